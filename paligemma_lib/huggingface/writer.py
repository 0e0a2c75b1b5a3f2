"""Write parameters as a folder that transformers opens.

    export(params, config, "my-captioner", dtype="bfloat16", tokenizer="tokenizer.model")

    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration
    model = PaliGemmaForConditionalGeneration.from_pretrained("my-captioner")

Tensors are cast and written one at a time, so the host holds a block of layers beside `params`.
"""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from paligemma_lib.checkpoint.matching import expected_shapes
from paligemma_lib.checkpoint.npz import DTYPES
from paligemma_lib.checkpoint.placement import to_host
from paligemma_lib.huggingface import settings, tensors
from paligemma_lib.huggingface.format import CODES, header_bytes
from paligemma_lib.huggingface.reader import INDEX, WEIGHTS
from paligemma_lib.huggingface.tensors import Tensor
from paligemma_lib.model.config import PaliGemmaConfig

MAX_FILE_BYTES = 5_000_000_000

_OTHER_FILES_BYTES = 64 << 20


def export(
    params: dict[str, Any],
    config: PaliGemmaConfig,
    folder: str | Path,
    *,
    dtype: str | None = None,
    tokenizer: str | Path | None = None,
) -> Path:
    """Writes weights, config.json and the processor's files to a new folder; returns it.

    A crash at any moment leaves no folder of that name: it is written under another and renamed.

    Args:
      params: nested dict with the reference's names and shapes; `jax.Array` of any sharding or
        NumPy's; one may be given in pieces along axis 0, as a tuple (see `model.stack`).
      config: the model; what changes no results, such as `remat`, is not written.
      folder: must not exist.
      dtype: "float32", "bfloat16" or "float16"; None: each parameter keeps its type.
      tokenizer: the `.model` file to put beside the weights; None: transformers will find
        no tokenizer in the folder.

    Raises:
      FileExistsError: the folder exists.
      FileNotFoundError: its parent or the tokenizer does not exist.
      OSError: the disk has too little room.
      ValueError: missing, unexpected or wrongly shaped parameters, types that cannot be written,
        values too large for float16, or a model that transformers does not have.
    """
    folder = _new_folder(folder)
    pieces, types = _checked(params, config, dtype)
    names = {each.name for each in types.values()}
    content = settings.files(config, names.pop() if len(names) == 1 else "float32")
    if tokenizer is not None:
        content |= settings.tokenizer_files(config)
        if not Path(tokenizer).is_file():
            raise FileNotFoundError(f"huggingface.export: no tokenizer at {tokenizer}.")
    order = _in_order(config, types)
    shards = _shards(order, types)
    total = sum(_num_bytes(t, types) for shard in shards for t in shard)
    free = shutil.disk_usage(folder.parent).free
    if free < total + _OTHER_FILES_BYTES:
        raise OSError(
            f"huggingface.export: {folder} needs {total:,} bytes and 64 MiB, and the disk has "
            f'{free:,} left. Make room, or pass dtype="bfloat16".'
        )

    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        weight_map: dict[str, str] = {}
        values = _stored_values(order, pieces, types)
        for k, shard in enumerate(shards, start=1):
            file = f"model-{k:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else WEIGHTS
            weight_map |= {tensor.name: file for tensor in shard}
            _write_safetensors(partial / file, shard, values, types)
        if len(shards) > 1:
            content[INDEX] = {"metadata": {"total_size": total}, "weight_map": weight_map}
        for file, fields in content.items():
            (partial / file).write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, partial / "tokenizer.model")
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _new_folder(folder: str | Path) -> Path:
    if "://" in str(folder):
        raise ValueError(
            f"huggingface.export: {folder} is not on this machine; export writes local folders. "
            "Copy the result, for instance with `gcloud storage cp -r`."
        )
    folder = Path(os.path.abspath(folder))
    if folder.exists():
        raise FileExistsError(
            f"huggingface.export: {folder} exists. Remove it, or choose another name."
        )
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"huggingface.export: no folder {folder.parent} to write to.")
    return folder


def _checked(
    params: dict[str, Any], config: PaliGemmaConfig, dtype: str | None
) -> tuple[dict[str, tuple[Any, ...]], dict[str, np.dtype]]:
    """Returns the pieces of every parameter, and the type in which each will be written."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(
            f"huggingface.export: dtype={dtype!r}, expected one of {list(DTYPES)} or None."
        )
    expected = expected_shapes(config)
    leaves = flax.traverse_util.flatten_dict(params, sep="/")
    problems = [f"missing: {name}" for name in expected if name not in leaves]
    problems += [f"unexpected: {name}" for name in leaves if name not in expected]
    pieces, types = {}, {}
    for name in expected.keys() & leaves.keys():
        leaf = leaves[name]
        pieces[name] = leaf if isinstance(leaf, tuple) else (leaf,)
        shape = (sum(piece.shape[0] for piece in pieces[name]), *pieces[name][0].shape[1:])
        if shape != expected[name]:
            problems.append(f"{name}: shape {list(shape)}, expected {list(expected[name])}")
        found = {np.dtype(piece.dtype) for piece in pieces[name]}
        if not found <= set(CODES.values()) or (dtype is None and len(found) > 1):
            listed = " and ".join(sorted(map(str, found)))
            problems.append(f"{name}: type {listed}, expected one of {list(DTYPES)}")
        types[name] = DTYPES[dtype] if dtype else found.pop()
    if problems:
        raise ValueError(
            "huggingface.export: these parameters are not this model's.\n" + "\n".join(problems)
        )
    return pieces, types


def _in_order(config: PaliGemmaConfig, types: dict[str, np.dtype]) -> list[Tensor]:
    """Returns all tensors, the vocabulary padded, in the order in which they are written.

    Wide types come first, so that every tensor starts at a multiple of its item's size; then
    each parameter's layers in turn.
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
    """Distributes the tensors over files of at most MAX_FILE_BYTES, or of one tensor."""
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
    order: list[Tensor], pieces: dict[str, tuple[Any, ...]], types: dict[str, np.dtype]
) -> Iterator[Iterable[np.ndarray]]:
    """Gives the values of each tensor, in one block or several."""
    for parameter, group in itertools.groupby(order, key=lambda tensor: tensor.parameter):
        blocks = (
            rows
            for piece in pieces[parameter]
            for rows in to_host(parameter, piece, types[parameter])
        )
        first, *others = group
        if parameter == tensors.EMBEDDING:
            yield _with_padding(blocks)
        elif not first.index:
            yield [first.to_stored(np.concatenate(list(blocks)))]
        else:
            layers = itertools.chain.from_iterable(blocks)
            for _, same in itertools.groupby([first, *others], key=lambda tensor: tensor.index[0]):
                layer = next(layers)
                for tensor in same:
                    yield [tensor.to_stored(layer[tensor.index[1:]])]


def _with_padding(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Gives the table and, as rows to pad it, its mean.

    Their logits are then the mean of all logits, so the largest is never theirs.
    """
    total: Any = 0.0
    count = 0
    for rows in blocks:
        total += rows.sum(axis=0, dtype=np.float32).astype(np.float64)
        count += len(rows)
        yield rows
    yield np.tile(total / count, (tensors.VOCABULARY_PADDING, 1)).astype(rows.dtype)


def _write_safetensors(
    path: Path,
    shard: list[Tensor],
    values: Iterator[Iterable[np.ndarray]],
    types: dict[str, np.dtype],
) -> None:
    header = {tensor.name: (tensor.stored_shape, types[tensor.parameter]) for tensor in shard}
    with path.open("wb") as file:
        file.write(header_bytes(header))
        for blocks in itertools.islice(values, len(shard)):
            for block in blocks:
                contiguous = np.empty(block.shape, block.dtype)
                tensors.copy(block, contiguous)
                file.write(contiguous.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
