"""Loads the VQ-VAE that turns the <seg> codes of masks into pixels.

codec = load_mask_codec("vae-oid.npz")        # gs://big_vision/paligemma/vae-oid.npz

Source: big_vision, which trained it on the masks of Open Images.
"""

import math
import os

from paligemma_lib.checkpoint.npz import NpzReader
from paligemma_lib.regions import MaskCodec

_PARTS = ("encoder.", "decoder.", "_vq_vae._embedding")
_MOST_BYTES = 256 << 20  # of all arrays


def load_mask_codec(path: str | os.PathLike[str]) -> MaskCodec:
    """Returns the codec in an `.npz` file, also one on `gs://`.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is damaged, or not this codec.
      ImportError: fsspec, or a package that it needs for this kind of URL, is not installed.
    """
    with NpzReader(path) as file:
        names = [name for name in file.shapes if name.startswith(_PARTS)]
        size = sum(4 * math.prod(file.shapes[name]) for name in names)
        if size > _MOST_BYTES:
            raise ValueError(f"{file.path}: {size >> 20} MiB of masks' codec: expected vae-oid.npz")
        arrays = {name: file.read(name) for name in names}
    try:
        return MaskCodec(arrays)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
