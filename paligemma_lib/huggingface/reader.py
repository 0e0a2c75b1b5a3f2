"""Read a folder of safetensors as the reference's parameters, a layer at a time.

with SafetensorsReader("paligemma2-3b-pt-224", config) as file:
    file.shapes["llm/layers/mlp/linear"]                       # (26, 9216, 2304)
    file.read("llm/layers/mlp/linear", slice(3, 4))            # [1, 9216, 2304], in the file's type

The folder is untrusted: nothing is unpickled, no path out of it is followed, and all sizes must
agree with the files before anything is allocated.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.matching import POSITION_EMBEDDING, expected_shapes
from paligemma_lib.huggingface import tensors
from paligemma_lib.huggingface.format import CODES, Entry, read_header, read_values
from paligemma_lib.huggingface.tensors import Tensor
from paligemma_lib.model.config import PaliGemmaConfig

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_MAX_INDEX_BYTES = 16 << 20
_MAX_FILES = 1000
_LISTED = 20
_ROWS = 8192  # of the embedding table, compared at a time


@dataclasses.dataclass(frozen=True)
class _Stored:
    file: Any  # binary, not buffered
    name: str
    entry: Entry


class SafetensorsReader:
    """An open checkpoint; a context manager.

    Attributes:
      path: the folder.
      shapes: parameter name -> shape, as in the reference; the position embedding has the shape
        that the file has, since it can be interpolated.
      dtypes: parameter name -> NumPy dtype: float32, float16 or bfloat16.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: PaliGemmaConfig,
        names: Iterable[str] | None = None,
    ) -> None:
        """Opens the files and checks that they hold the wanted parameters.

        Args:
          folder: holds `model.safetensors`, or several files and their index.
          config: the model; only its sizes matter.
          names: the parameters wanted, of the reference's names; None: all. Others may be missing
            from the files, and no tensor may be there that belongs to none.

        Raises:
          FileNotFoundError: no folder, no safetensors, or files missing that the index names.
          ValueError: damaged files, a bad index, or tensors that are missing, unexpected, or of a
            wrong shape or type: all of them in one error.
        """
        self.path = os.fspath(folder)
        self._buffer = np.empty(0, np.uint8)
        with contextlib.ExitStack() as stack:
            self._stored = _open_all(stack, _weight_files(Path(folder)))
            self._check(config, names)
            self._stack = stack.pop_all()

    def __enter__(self) -> "SafetensorsReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(
        self, name: str, rows: slice | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns `parameter[rows]`, reading those layers, or rows of the vocabulary, alone.

        Args:
          name: a name in `shapes`.
          rows: a slice of axis 0, without a step; None: all.
          out: where to read to, contiguous; None: new memory.
        """
        shape = self.shapes[name]
        first, last, _ = (rows or slice(None)).indices(shape[0])
        count = max(0, last - first)
        if out is None:
            out = np.empty((count, *shape[1:]), self.dtypes[name])
        for part in self._parts[name]:
            if name == tensors.EMBEDDING:
                stored = self._stored[part.name]
                read_values(stored.file, stored.entry, out, skip=first * shape[1])
            elif not part.index:
                tensors.copy(self._values(part)[first : first + count], out)
            elif first <= part.index[0] < last:
                layer, *place = part.index
                tensors.copy(self._values(part), out[(layer - first, *place)])
        return out

    def _values(self, tensor: Tensor) -> np.ndarray:
        """Values in the reference's layout, until the next call."""
        stored, dtype = self._stored[tensor.name], self.dtypes[tensor.parameter]
        num_bytes = math.prod(tensor.shape) * dtype.itemsize
        if len(self._buffer) < num_bytes:
            self._buffer = np.empty(num_bytes, np.uint8)
        values = self._buffer[:num_bytes].view(dtype).reshape(tensor.stored_shape)
        read_values(stored.file, stored.entry, values)
        return tensor.from_stored(values)

    def _check(self, config: PaliGemmaConfig, names: Iterable[str] | None) -> None:
        expected = expected_shapes(config)
        wanted = set(expected if names is None else names)
        if unknown := wanted - set(expected):
            raise ValueError(
                f"SafetensorsReader: this model has no parameters {sorted(unknown)}; "
                f"it has {sorted(expected)}."
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._parts: dict[str, list[Tensor]] = {}
        missing, wrong = [], []
        unexpected = set(self._stored) - {tensors.LM_HEAD}
        for tensor in tensors.all_tensors(config):
            unexpected.discard(tensor.name)
            if tensor.parameter not in wanted:
                continue
            if tensor.name not in self._stored:
                missing.append(tensor.name)
                continue
            entry = self._stored[tensor.name].entry
            found, dtype = entry.shape, entry.dtype
            shapes = _allowed_shapes(tensor, found)
            if found not in shapes:
                expectation = " or ".join(str(list(shape)) for shape in shapes)
                wrong.append(f"{tensor.name}: shape {list(found)}, expected {expectation}")
            if dtype is None:
                codes = ", ".join(CODES)
                wrong.append(f"{tensor.name}: type {entry.code}, expected one of {codes}")
            elif self.dtypes.setdefault(tensor.parameter, dtype) != dtype:
                other = self.dtypes[tensor.parameter]
                wrong.append(f"{tensor.name}: type {dtype}, but {other} in an earlier layer")
            shape = expected[tensor.parameter]
            if tensor.parameter == POSITION_EMBEDDING and found in shapes:
                shape = (1, *found)
                tensor = Tensor(tensor.name, tensor.parameter, (), shape, tensor.axes)
            self.shapes[tensor.parameter] = shape
            self._parts.setdefault(tensor.parameter, []).append(tensor)
        problems = [
            f"{len(items)} {kind}: {_listed(sorted(items))}"
            for kind, items in (
                ("missing", missing),
                ("unexpected", [self._stored[name].name for name in unexpected]),
                ("wrong", wrong),
            )
            if items
        ]
        if problems:
            raise ValueError(
                f"{self.path}: the tensors are not those of this model. "
                + "\n".join(problems)
                + "\nTake the configuration that belongs to this checkpoint, or download it again."
            )
        self._check_tied()

    def _check_tied(self) -> None:
        """The output layer may be stored too, but must be the embedding table."""
        if tensors.LM_HEAD not in self._stored or tensors.EMBEDDING not in self.shapes:
            return
        head = self._stored[tensors.LM_HEAD]
        table = self._stored[self._parts[tensors.EMBEDDING][0].name]
        rows, width = self.shapes[tensors.EMBEDDING]
        shape = head.entry.shape
        equal = shape[1:] == (width,) and shape[0] >= rows and head.entry.code == table.entry.code
        for row in range(0, rows if equal else 0, _ROWS):
            chunks = np.empty((2, min(_ROWS, rows - row), width), self.dtypes[tensors.EMBEDDING])
            for stored, chunk in zip((head, table), chunks, strict=True):
                read_values(stored.file, stored.entry, chunk, skip=row * width)
            equal = equal and chunks[0].tobytes() == chunks[1].tobytes()
        if not equal:
            raise ValueError(
                f"{self.path}: {head.name} differs from the embedding table, but PaliGemma's are "
                "one and the same. Export the model with tied word embeddings."
            )


def _allowed_shapes(tensor: Tensor, found: tuple[int, ...]) -> list[tuple[int, ...]]:
    shape = tensor.stored_shape
    if tensor.parameter == tensors.EMBEDDING:
        return [shape, (shape[0] + tensors.VOCABULARY_PADDING, shape[1])]
    if tensor.parameter == POSITION_EMBEDDING and found[1:] == shape[1:]:
        return [found]
    return [shape]


def _weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint, of an index or the single one."""
    if "://" in str(folder) or not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder on this machine. Download the checkpoint first, for "
            "instance with `hf download google/paligemma-3b-pt-224 --local-dir FOLDER`."
        )
    if (folder / INDEX).is_file():
        names = _indexed_names(folder / INDEX)
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise FileNotFoundError(
                f"{folder}: {len(absent)} of {len(names)} files are missing that {INDEX} names: "
                f"{_listed(absent)}. Download the checkpoint again."
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    cure = f"Download the checkpoint again, with {WEIGHTS} or {INDEX} and the files it names."
    if pickles := sorted(path.name for p in ("*.bin", "*.pt", "*.pth") for path in folder.glob(p)):
        raise ValueError(
            f"{folder}: {_listed(pickles)} are pickles, which can run any program and are not "
            "read. Save the model as safetensors, transformers' save_pretrained does, and retry."
        )
    raise FileNotFoundError(f"{folder}: neither {WEIGHTS} nor {INDEX}. {cure}")


def _indexed_names(index: Path) -> list[str]:
    if (size := index.stat().st_size) > _MAX_INDEX_BYTES:
        raise ValueError(f"{index}: {size} bytes, expected at most {_MAX_INDEX_BYTES}.")
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{index}: expected JSON with a weight_map of tensor names to file names, got "
            f"{error!r}. Download the checkpoint again."
        ) from error
    bad = [name for name in names if not _is_bare(name)]
    if bad or not 0 < len(names) <= _MAX_FILES:
        raise ValueError(
            f"{index}: names {len(names)} files, expected 1 to {_MAX_FILES}, each a bare "
            f"*.safetensors name in this folder; not: {_listed(bad)}."
        )
    return names


def _is_bare(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and not any(c in name for c in "/\\:\0")
    )


def _open_all(stack: contextlib.ExitStack, files: list[Path]) -> dict[str, _Stored]:
    """Opens all files: tensor's name on the Hub -> where it is."""
    found: dict[str, _Stored] = {}
    for path in files:
        entries = read_header(path)
        file = stack.enter_context(path.open("rb", buffering=0))
        for name, entry in entries.items():
            canonical = tensors.canonical_name(name)
            if canonical in found:
                raise ValueError(
                    f"{path}: {name} and {found[canonical].name} are the same tensor, there twice. "
                    "Remove files that do not belong to this checkpoint."
                )
            found[canonical] = _Stored(file, name, entry)
    return found


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(map(str, items[:_LISTED])) + more
