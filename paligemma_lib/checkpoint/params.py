"""Loads and saves the parameters of a model.

params = load_params("paligemma-3b-pt-224.f16.npz", config, dtype="bfloat16")
save_params("paligemma_flickr8k.params.f16.npz", params, dtype="float16")
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from paligemma_lib.checkpoint.arrays import DTYPES, checked_dtype
from paligemma_lib.checkpoint.configuration import Shape
from paligemma_lib.checkpoint.exporting import prepare
from paligemma_lib.checkpoint.matching import PARTS, expected_shapes, listed
from paligemma_lib.checkpoint.npz import write_npz
from paligemma_lib.checkpoint.placement import to_devices
from paligemma_lib.checkpoint.stored import open_params
from paligemma_lib.checkpoint.target_names import target_kind
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_roles import role_of
from paligemma_lib.quantized import KINDS, Kind
from paligemma_lib.runtime.atomic import atomic_write, is_remote, path_of


def load_params(
    path: str | os.PathLike[str],
    config: PaliGemmaConfig,
    *,
    sharding: Any = None,
    dtype: str | Callable[[str], str | None] | None = None,
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """Loads a checkpoint and sends each block of rows straight to the devices that hold it.

    Args:
      path: a local `.npz` file or `gs://bucket/file`; a Hugging Face folder of safetensors; or a
        model of the Hub or Kaggle, such as `google/paligemma-3b-pt-224` (see `hub.fetch`).
      config: the model. A position embedding of another image size is interpolated.
      sharding: one `jax.sharding.Sharding` for all parameters, or a nested dict of shardings with
        the parameters' names, as `sharding.param_shardings` returns it; None: the default device.
      dtype: "float32", "bfloat16" or "float16"; None: the dtype of each parameter in the file; or
        "int8" or "nf4" to quantise matrices block by block on their way, while all else keeps the
        dtype of the file; or a function that maps a parameter's name to one of these values, for
        example to load only the trainable parameters in float32.
      parts: the parts of the model to load: "img" (vision), "llm" (language), or both. The file
        need not hold the other part.

    Returns:
      Nested dict of `jax.Array`, with the names and shapes of `model.init`; of `Quantized` where
        matrices are quantised, which are undone to the dtype of the model's activations.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is damaged, does not hold the parameters of this model (the error lists
        every parameter that is missing, unexpected, or of another shape or dtype), or holds values
        that are NaN, infinite, or too large for `dtype`; or config.json in the folder describes
        another model. Of a model that is split over processes, each process looks at the values
        that it reads.

    Warns:
      UserWarning: config.json has other soft caps or another query scale than `config`. The values
        of `config` apply.
    """
    dtype_of = dtype if callable(dtype) else lambda name: dtype
    shardings = _sharding_of_each(sharding, expected_shapes(config, parts))
    with open_params(path, config, parts) as stored:
        params = {}
        for name, array in stored.items():
            kind, target = _storage(name, dtype_of(name), array.dtype, config)
            params[name] = to_devices(
                name, array.shape, target, shardings[name], array.read, array.dtype,
                os.fspath(path), kind,
            )  # fmt: skip
    return flax.traverse_util.unflatten_dict(params, sep="/")


def save_params(
    path: str | os.PathLike[str],
    params: Mapping[str, Any],
    dtype: str | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Saves parameters to an `.npz` file that NumPy, big_vision and `load_params` read.

    The write is atomic: an existing file at `path` stays as it is until the new file is complete
    and on disk, and also when saving fails. Parameters are copied to the host one block at a time.

    Args:
      path: a local file, or a file on `gs://`, which is first written to a local temporary file.
      params: nested dict of arrays: `jax.Array` of any sharding, or NumPy arrays. A parameter may
        be split along axis 0 into a tuple of arrays (see `model.stack.scan_layers`).
      dtype: "float32", "bfloat16" or "float16"; None: the dtype of each parameter.
      metadata: texts to be kept in the file, by name; see `stored.metadata_of`.

    Raises:
      ValueError: `path` does not end in `.npz`, `params` is empty, or a parameter has a dtype that
        cannot be written, has a value that is NaN, infinite or too large for `dtype`, or lies
        partly with other processes.
      OSError: the disk is full, or fails in another way.
    """
    if target_kind(path) == "folder":
        raise ValueError(
            f"{os.fspath(path)} does not end in .npz, which is what save_params writes. For a "
            "folder of safetensors, call checkpoint.huggingface.export, or `paligemma convert`"
        )
    path = path_of(path).expanduser()
    arrays = prepare(params, dtype)
    if not arrays:
        raise ValueError(f"there are no parameters to write to {path}")
    bad = [f"{each.name} is {each.given}" for each in arrays if each.given not in DTYPES.values()]
    if bad:
        raise ValueError(f"{listed(bad)}; supported dtypes: {', '.join(DTYPES)}")
    try:
        with atomic_write(path) as file:
            write_npz(file, ((p.name, p.shape, p.dtype, p.blocks()) for p in arrays), metadata)
    except OSError as error:
        # A remote file fills the disk of the temporary folder, where it is collected first.
        folder = Path(tempfile.gettempdir()) if is_remote(path) else path.parent
        if error.errno is None or not folder.is_dir():
            raise
        size = sum(each.num_bytes for each in arrays)
        free = shutil.disk_usage(folder).free
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}): it needs {size:,} bytes, and "
            f"{free:,} are free in {folder}. Any existing file is unchanged",
        ) from error


def _storage(
    name: str, asked: str | None, stored: np.dtype, config: PaliGemmaConfig
) -> tuple[Kind | None, np.dtype]:
    """Returns how to quantise a parameter, or None, and its dtype; of a quantised one, undone."""
    if asked not in KINDS:
        if asked not in (None, *DTYPES):
            raise ValueError(f"dtype={asked!r}, expected one of {', '.join((*DTYPES, *KINDS))}")
        return None, checked_dtype(asked) or stored
    if not role_of(name).is_matrix:
        return None, stored
    return asked, np.dtype(DTYPES[config.dtype])


def _sharding_of_each(sharding: Any, shapes: Mapping[str, Shape]) -> dict[str, Sharding]:
    if sharding is None:
        sharding = jnp.zeros(()).sharding
    if isinstance(sharding, Sharding):
        return dict.fromkeys(shapes, sharding)
    # `sharding` may be a prefix of the tree of names: a sharding in place of a dict applies to all
    # parameters below it. Only the wanted parts are looked up, so it may cover others too.
    names = flax.traverse_util.unflatten_dict({name: name for name in shapes}, sep="/")
    each = jax.tree.broadcast({part: sharding[part] for part in names}, names)
    return flax.traverse_util.flatten_dict(each, sep="/")
