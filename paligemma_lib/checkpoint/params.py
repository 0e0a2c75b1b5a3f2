"""Load and save the parameters of a model.

params = load_params("paligemma-3b-pt-224.f16.npz", config, dtype="bfloat16")
save_params("paligemma_flickr8k.params.f16.npz", params, dtype="float16")
"""

import functools
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from paligemma_lib.checkpoint.matching import PARTS, Shape, check_params, expected_shapes
from paligemma_lib.checkpoint.npz import DTYPES, NpzReader, write_npz
from paligemma_lib.checkpoint.placement import to_devices, to_host
from paligemma_lib.hub import whole_file
from paligemma_lib.model.config import PaliGemmaConfig
from paligemma_lib.model.siglip import resize_position_embedding


def load_params(
    path: str | os.PathLike[str],
    config: PaliGemmaConfig,
    *,
    sharding: Any = None,
    dtype: str | None = None,
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """Reads parameters from an `.npz` file, each block straight to the devices it belongs to.

    Args:
      path: a local file or `gs://bucket/file`; `paligemma_lib.hub.fetch` finds published ones.
      config: the model. A position embedding of another image size is interpolated.
      sharding: a `jax.sharding.Sharding` for all parameters, or a nested dict of them with the
        parameters' names; None: the default device.
      dtype: "float32", "bfloat16" or "float16"; None: each parameter's own in the file.
      parts: the parts of the model to load: "img" (vision), "llm" (language), or both; the file
        need not hold the others.

    Returns:
      Nested dict of `jax.Array`, with the names and shapes of `model.init`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, does not hold the parameters of this model, or holds values
        too large for `dtype`.
    """
    target = _checked_dtype(dtype)
    shapes = expected_shapes(config, parts)
    shardings = _sharding_of_each(sharding, shapes)
    params = {}
    with NpzReader(path) as file:
        check_params(file.shapes, file.dtypes, config, parts, source=file.path)
        for name, shape in shapes.items():
            stored = file.dtypes[name]
            result = target or stored
            read: Callable[[slice, np.ndarray], object] = functools.partial(file.read, name)
            if file.shapes[name] != shape:
                embedding = file.read(name).astype(np.float32)
                resized = resize_position_embedding(embedding, shape[1])
                stored, read = resized.dtype, functools.partial(_copy_rows, resized)
            params[name] = to_devices(name, shape, result, shardings[name], read, stored)
    return flax.traverse_util.unflatten_dict(params, sep="/")


def save_params(
    path: str | os.PathLike[str], params: Mapping[str, Any], dtype: str | None = None
) -> None:
    """Writes parameters to an `.npz` file that NumPy, big_vision and `load_params` read.

    The file takes its name when it is whole and on the disk. Until then, and whatever goes wrong,
    a file of that name stays as it was. Parameters are copied to the host a block at a time.

    Args:
      path: a local file.
      params: nested dict of arrays, `jax.Array` of any sharding or NumPy's; one may be given in
        pieces along axis 0, as a tuple (see `model.stack.scan_layers`).
      dtype: "float32", "bfloat16" or "float16"; None: each parameter's own.

    Raises:
      ValueError: a parameter cannot be written so: its type, a value too large for `dtype`, or a
        part of it that other processes hold.
      OSError: no room on the disk, or another fault of it.
    """
    if "://" in os.fspath(path):
        raise ValueError(f"save_params writes local files, not {path}: save it here, then copy it")
    path = Path(path).expanduser()
    target = _checked_dtype(dtype)
    leaves = flax.traverse_util.flatten_dict(dict(params), sep="/")
    arrays = [_prepared(name, leaf, target) for name, leaf in leaves.items()]
    if not arrays:
        raise ValueError(f"there are no parameters to write to {path}")
    try:
        with whole_file(path) as file:
            write_npz(file, arrays)
    except OSError as error:
        if error.errno is None or not path.parent.is_dir():
            raise
        size = sum(math.prod(shape) * kind.itemsize for _, shape, kind, _ in arrays)
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}): it needs {size:,} bytes, and "
            f"{free:,} are free in {path.parent}. What was there before is unchanged",
        ) from error


def _prepared(
    name: str, leaf: Any, target: np.dtype | None
) -> tuple[str, Shape, np.dtype, Iterator[np.ndarray]]:
    pieces = leaf if isinstance(leaf, tuple) else (leaf,)
    dtypes = {np.dtype(piece.dtype) for piece in pieces}
    if not dtypes <= set(DTYPES.values()):
        found = ", ".join(map(str, dtypes))
        raise ValueError(f"{name} is {found}; what can be written is {', '.join(DTYPES)}")
    if target is None and len(dtypes) > 1:
        raise ValueError(f"{name} is in pieces of different types: give the `dtype` to write")
    dtype = target or dtypes.pop()
    shape = (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])
    return name, shape, dtype, (rows for piece in pieces for rows in to_host(name, piece, dtype))


def _copy_rows(array: np.ndarray, rows: slice, out: np.ndarray) -> None:
    out[...] = array[rows]


def _sharding_of_each(sharding: Any, shapes: Mapping[str, Shape]) -> dict[str, Sharding]:
    if sharding is None:
        sharding = jnp.zeros(()).sharding
    if isinstance(sharding, Sharding):
        return dict.fromkeys(shapes, sharding)
    names = flax.traverse_util.unflatten_dict({name: name for name in shapes}, sep="/")
    each = jax.tree.broadcast({part: sharding[part] for part in names}, names)
    return flax.traverse_util.flatten_dict(each, sep="/")


def _checked_dtype(name: str | None) -> np.dtype | None:
    if name is not None and name not in DTYPES:
        raise ValueError(f"dtype={name!r}, expected one of {', '.join(DTYPES)}")
    return None if name is None else DTYPES[name]
