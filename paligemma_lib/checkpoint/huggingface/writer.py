"""Writes parameters as a folder that transformers opens.

    export(params, config, "my-captioner", dtype="bfloat16", tokenizer="tokenizer.model")

    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration
    model = PaliGemmaForConditionalGeneration.from_pretrained("my-captioner")

Tensors are cast and written one at a time, so the host holds only a block of layers besides
`params`.
"""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.arrays import as_bytes
from paligemma_lib.checkpoint.exporting import ExportedParameter, prepare
from paligemma_lib.checkpoint.huggingface import settings, tensors
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS
from paligemma_lib.checkpoint.huggingface.format import header_bytes
from paligemma_lib.checkpoint.huggingface.tensors import Tensor
from paligemma_lib.checkpoint.matching import differences, expected_shapes, mismatch
from paligemma_lib.checkpoint.target_names import target_kind
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import atomic_folder

MAX_FILE_BYTES = 5_000_000_000

_OTHER_FILES_BYTES = 64 << 20  # ample disk space for the JSON files and the tokenizer


def export(
    params: dict[str, Any],
    config: PaliGemmaConfig,
    folder: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    tokenizer: str | os.PathLike[str] | bytes | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Writes weights, config.json and the processor's files to a new folder, and returns its path.

    The write is atomic: the folder has a temporary name until it is complete, so a crash at any
    moment leaves no incomplete folder of the final name.

    Args:
      params: nested dict with the reference's names and shapes, of `jax.Array` of any sharding or
        NumPy arrays. A parameter may be split along axis 0 into a tuple (see `model.stack`).
      config: the model. Fields that do not change results, such as `remat`, are not written.
      folder: a local path that does not exist yet, or an empty folder.
      dtype: "float32", "bfloat16" or "float16"; None: the dtype of each parameter.
      tokenizer: the `.model` file to copy into the folder, or its content; None: transformers finds
        no tokenizer in the folder.
      metadata: texts to be kept in the files of weights, by name; see `stored.metadata_of`.

    Raises:
      FileExistsError: the folder exists and is not empty.
      FileNotFoundError: the parent of the folder, or the tokenizer, does not exist.
      OSError: the disk has too little free space.
      ValueError: a parameter is missing, unexpected or of another shape, has a dtype that cannot be
        written or a value that is NaN, infinite or too large for `dtype`; `folder` is a URL, or has
        the ending of a file; or transformers has no such model.
    """
    folder = _local(folder)
    checked = _checked(params, config, dtype)
    types = {name: each.dtype for name, each in checked.items()}
    names = {each.name for each in types.values()}
    content = settings.files(config, names.pop() if len(names) == 1 else "float32")
    if tokenizer is not None:
        content |= settings.tokenizer_files(config)
        if not isinstance(tokenizer, bytes) and not Path(tokenizer).is_file():
            raise FileNotFoundError(f"huggingface.export: no tokenizer at {tokenizer}.")
    order = _in_order(config, types)
    shards = _shards(order, types)
    total = sum(_num_bytes(t, types) for shard in shards for t in shard)
    with atomic_folder(folder) as partial:
        free = shutil.disk_usage(partial).free
        if free < total + _OTHER_FILES_BYTES:
            raise OSError(
                f"huggingface.export: {folder} needs {total:,} bytes and 64 MiB, but the disk has "
                f'{free:,} bytes free. Free disk space, or pass dtype="bfloat16".'
            )
        weight_map: dict[str, str] = {}
        values = _stored_values(order, checked)
        for k, shard in enumerate(shards, start=1):
            file = f"model-{k:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else WEIGHTS
            weight_map |= {tensor.name: file for tensor in shard}
            _write_safetensors(partial / file, shard, values, types, metadata)
        if len(shards) > 1:
            content[INDEX] = {"metadata": {"total_size": total}, "weight_map": weight_map}
        for file, fields in content.items():
            (partial / file).write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        if isinstance(tokenizer, bytes):
            (partial / "tokenizer.model").write_bytes(tokenizer)
        elif tokenizer is not None:
            shutil.copyfile(tokenizer, partial / "tokenizer.model")
    return folder


def _local(folder: str | os.PathLike[str]) -> Path:
    if target_kind(folder) == "npz":
        raise ValueError(
            f"huggingface.export: {folder} ends in .npz, but a folder is written. For such a file, "
            "call save_params"
        )
    return Path(os.path.abspath(folder))


def _checked(
    params: dict[str, Any], config: PaliGemmaConfig, dtype: str | None
) -> dict[str, ExportedParameter]:
    """Returns the parameters by name, after a check against the model's names and shapes."""
    found = {each.name: each for each in prepare(params, dtype)}
    lines = differences(
        {name: [shape] for name, shape in expected_shapes(config).items()},
        {name: each.shape for name, each in found.items()},
        {name: each.given for name, each in found.items()},
    )
    if lines:
        raise mismatch("huggingface.export: `params`", lines)
    return found


def _in_order(config: PaliGemmaConfig, types: dict[str, np.dtype]) -> list[Tensor]:
    """Returns all tensors, with the vocabulary padded, in the order in which they are written.

    float32 tensors come before 16-bit ones, so that every tensor starts at a multiple of its item
    size. Within each item size, tensors are sorted by parameter, and then by layer.
    """
    order = sorted(
        tensors.all_tensors(config),
        key=lambda t: (-types[t.parameter].itemsize, t.parameter, t.index),
    )
    return [_padded(t) if t.parameter == tensors.EMBEDDING else t for t in order]


def _padded(tensor: Tensor) -> Tensor:
    rows, width = tensor.shape
    return dataclasses.replace(tensor, shape=(rows + tensors.VOCABULARY_PADDING, width))


def _shards(order: list[Tensor], types: dict[str, np.dtype]) -> list[list[Tensor]]:
    """Returns the tensors of each file: at most MAX_FILE_BYTES, or a single larger tensor."""
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in order:
        num_bytes = _num_bytes(tensor, types)
        if shards[-1] and size + num_bytes > MAX_FILE_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += num_bytes
    return shards


def _num_bytes(tensor: Tensor, types: dict[str, np.dtype]) -> int:
    return math.prod(tensor.shape) * types[tensor.parameter].itemsize


def _stored_values(
    order: list[Tensor], params: dict[str, ExportedParameter]
) -> Iterator[Iterable[np.ndarray]]:
    """Yields, for each tensor of `order`, the blocks of its values."""
    # The order groups tensors by parameter, so each parameter is copied to the host once. For
    # `kv_einsum`, indices (0, 0), (0, 1), (1, 0), ... give k_proj and v_proj of one layer in turn.
    for parameter, group in itertools.groupby(order, key=lambda tensor: tensor.parameter):
        blocks = params[parameter].blocks()
        first, *others = group
        if parameter == tensors.EMBEDDING:
            yield _with_padding(blocks)
        elif not first.index:
            yield [_to_stored(first, np.concatenate(list(blocks)))]
        else:
            layers = itertools.chain.from_iterable(blocks)
            for _, same in itertools.groupby([first, *others], key=lambda tensor: tensor.index[0]):
                layer = next(layers)
                for tensor in same:
                    yield [_to_stored(tensor, layer[tensor.index[1:]])]


def _to_stored(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    stored = np.empty(tensor.stored_shape, values.dtype)
    tensors.copy(np.ascontiguousarray(values), tensor.from_stored(stored))
    return stored


def _with_padding(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the blocks of the embedding table, then rows of its mean that pad it.

    The table is also the output layer. Logits are linear in its rows, so the logits of the padding
    are the mean of all other logits and, apart from rounding, never the largest.
    """
    total: Any = 0.0
    count = 0
    for rows in blocks:
        with np.errstate(over="ignore"):
            added = rows.sum(axis=0, dtype=np.float32).astype(np.float64)
        if not np.isfinite(added).all():  # only of huge values, whose mean is finite all the same
            added = rows.sum(axis=0, dtype=np.float64)
        total += added
        count += len(rows)
        yield rows
    yield np.tile(total / count, (tensors.VOCABULARY_PADDING, 1)).astype(rows.dtype)


def _write_safetensors(
    path: Path,
    shard: list[Tensor],
    values: Iterator[Iterable[np.ndarray]],
    types: dict[str, np.dtype],
    metadata: Mapping[str, str],
) -> None:
    # `values` continues over all files: each takes as many tensors from it as it holds.
    header = {tensor.name: (tensor.stored_shape, types[tensor.parameter]) for tensor in shard}
    with path.open("wb") as file:
        file.write(header_bytes(header, metadata))
        for blocks in itertools.islice(values, len(shard)):
            for block in blocks:
                file.write(as_bytes(block))
