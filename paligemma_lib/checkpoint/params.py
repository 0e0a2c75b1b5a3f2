"""Load and save the parameters of a model.

params = load_params("paligemma-3b-pt-224.f16.npz", config, dtype="bfloat16")
save_params("paligemma_flickr8k.params.f16.npz", params, dtype="float16")
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from paligemma_lib.checkpoint.arrays import DTYPES, checked_dtype
from paligemma_lib.checkpoint.configuration import Shape
from paligemma_lib.checkpoint.exporting import prepare
from paligemma_lib.checkpoint.matching import PARTS, expected_shapes, listed
from paligemma_lib.checkpoint.npz import write_npz
from paligemma_lib.checkpoint.placement import to_devices
from paligemma_lib.checkpoint.stored import open_params
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import atomic_write, is_remote, path_of


def load_params(
    path: str | os.PathLike[str],
    config: PaliGemmaConfig,
    *,
    sharding: Any = None,
    dtype: str | Callable[[str], str | None] | None = None,
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """Reads a checkpoint, each block of it straight to the devices that it belongs to.

    Args:
      path: a local `.npz` file or `gs://bucket/file`; a Hugging Face folder of safetensors; or a
        Kaggle model such as `google/paligemma/jax/paligemma-3b-pt-224` (see `hub.fetch`).
      config: the model. A position embedding of another image size is interpolated.
      sharding: a `jax.sharding.Sharding` for all parameters, or a nested dict of them with the
        parameters' names, as `sharding.param_shardings` makes it; None: the default device.
      dtype: "float32", "bfloat16" or "float16"; None: each parameter's own in the file; or a
        function of a parameter's name that says which of these, as when what trains shall be
        float32 and the rest not.
      parts: the parts of the model to load: "img" (vision), "llm" (language), or both; the file
        need not hold the others.

    Returns:
      Nested dict of `jax.Array`, with the names and shapes of `model.init`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, does not hold the parameters of this model (all that is
        missing, unexpected or otherwise than expected is listed), or holds values too large for
        `dtype`; a config.json beside it is of another model.

    Warns:
      UserWarning: config.json has other soft caps or another scale of queries than `config`, which
        counts.
    """
    dtype_of = dtype if callable(dtype) else lambda name: dtype
    shardings = _sharding_of_each(sharding, expected_shapes(config, parts))
    with open_params(path, config, parts) as stored:
        params = {}
        for name, array in stored.items():
            target = checked_dtype(dtype_of(name)) or array.dtype
            params[name] = to_devices(
                name, array.shape, target, shardings[name], array.read, array.dtype
            )
    return flax.traverse_util.unflatten_dict(params, sep="/")


def save_params(
    path: str | os.PathLike[str], params: Mapping[str, Any], dtype: str | None = None
) -> None:
    """Writes parameters to an `.npz` file that NumPy, big_vision and `load_params` read.

    The file takes its name when it is whole and on the disk. Until then, and whatever goes wrong,
    a file of that name stays as it was. Parameters are copied to the host a block at a time.

    Args:
      path: a local file, or one on `gs://`, which is collected in a local temporary file first.
      params: nested dict of arrays, `jax.Array` of any sharding or NumPy's; one may be given in
        parts along axis 0, as a tuple (see `model.stack.scan_layers`).
      dtype: "float32", "bfloat16" or "float16"; None: each parameter's own.

    Raises:
      ValueError: a parameter cannot be written so: its type, a value too large for `dtype`, or a
        part of it that other processes hold.
      OSError: no room on the disk, or another fault of it.
    """
    path = path_of(path).expanduser()
    arrays = prepare(params, dtype)
    if not arrays:
        raise ValueError(f"there are no parameters to write to {path}")
    bad = [f"{each.name} is {each.given}" for each in arrays if each.given not in DTYPES.values()]
    if bad:
        raise ValueError(f"{listed(bad)}; what can be written is {', '.join(DTYPES)}")
    try:
        with atomic_write(path) as file:
            write_npz(file, ((p.name, p.shape, p.dtype, p.blocks()) for p in arrays))
    except OSError as error:
        folder = Path(tempfile.gettempdir()) if is_remote(path) else path.parent
        if error.errno is None or not folder.is_dir():
            raise
        size = sum(each.num_bytes for each in arrays)
        free = shutil.disk_usage(folder).free
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}): it needs {size:,} bytes, and "
            f"{free:,} are free in {folder}. What was there before is unchanged",
        ) from error


def _sharding_of_each(sharding: Any, shapes: Mapping[str, Shape]) -> dict[str, Sharding]:
    if sharding is None:
        sharding = jnp.zeros(()).sharding
    if isinstance(sharding, Sharding):
        return dict.fromkeys(shapes, sharding)
    names = flax.traverse_util.unflatten_dict({name: name for name in shapes}, sep="/")
    each = jax.tree.broadcast({part: sharding[part] for part in names}, names)
    return flax.traverse_util.flatten_dict(each, sep="/")
