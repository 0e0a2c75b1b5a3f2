"""Scales images from files, bytes or arrays down to a size for a report.

small = thumbnail("Images/1.jpg", side=384)
source = data_uri(small)          # "data:image/jpeg;base64,..."
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from paligemma_lib.data.encoded import upright
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES, check_bounds, check_pixels
from paligemma_lib.runtime.regular_files import read_bounded

# A path, the bytes of an image file, a Pillow image, uint8[H, W, 3] or uint8[H, W]; or a function
# without arguments that returns one of these and is called only if the image is shown.
Stored = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
ImageLike = Stored | Callable[[], Stored]

_QUALITY = 82


def thumbnail(image: ImageLike, side: int) -> Image.Image:
    """Returns a copy in RGB, scaled down so that no side has more than `side` pixels.

    Smaller images keep their size. An EXIF orientation is applied, as in `data.image`.

    Raises:
      ValueError: the image cannot be read, is too large to decode safely, or is an array of
        another dtype or shape.
      FileNotFoundError: the file does not exist.
    """
    if callable(image):
        image = image()
    if isinstance(image, np.ndarray):
        grey_or_rgb = image.ndim == 2 or image.shape[2:] == (3,)
        if image.dtype != np.uint8 or not grey_or_rgb or image.size == 0:
            raise ValueError(
                f"an image is {image.dtype}{list(image.shape)}, expected uint8[H, W, 3] or "
                "uint8[H, W]; convert floats in [-1, 1] by ((x + 1) * 127.5).astype(np.uint8)"
            )
        return _scaled(Image.fromarray(image), side)
    if isinstance(image, Image.Image):
        return _scaled(image.copy(), side)
    try:
        encoded = image if isinstance(image, bytes) else read_bounded(image, MAX_IMAGE_BYTES)
        check_bounds(encoded)
        with Image.open(io.BytesIO(encoded)) as opened:
            check_pixels(*opened.size)
            return _scaled(opened, side)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{image!s} does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name = f"{len(image)} bytes" if isinstance(image, bytes) else str(image)
        raise ValueError(f"{name} could not be read as an image: {error}") from error


def data_uri(image: Image.Image) -> str:
    """Returns the image as a JPEG in a data URI, for a `src` attribute."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _scaled(image: Image.Image, side: int) -> Image.Image:
    if image.mode not in ("RGB", "L", "CMYK"):  # palette indices, for one, cannot be averaged
        image = image.convert("RGB")
    image.thumbnail((side, side))  # for an opened JPEG, decodes it at a reduced scale
    return upright(image).convert("RGB")
