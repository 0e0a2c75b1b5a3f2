"""Reads a folder of safetensors as parameters of the reference's names, shapes and layout.

with SafetensorsReader("paligemma2-3b-pt-224", config) as file:
    file.shapes["llm/layers/mlp/linear"]                       # (26, 9216, 2304)
    file.read("llm/layers/mlp/linear", slice(3, 4))            # [1, 9216, 2304], in the file's type

The folder is untrusted: nothing is unpickled, no path that leaves it is followed, and all sizes
must match the files before memory is allocated.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from paligemma_lib.checkpoint.arrays import (
    DTYPES,
    THREADS,
    as_bytes,
    read_at,
    read_here,
    row_range,
)
from paligemma_lib.checkpoint.configuration import (
    POSITION_EMBEDDING,
    SETTINGS,
    Shape,
    differing_fields,
    side_of_grid,
)
from paligemma_lib.checkpoint.finite import NotFinite, count_not_finite
from paligemma_lib.checkpoint.huggingface import tensors
from paligemma_lib.checkpoint.huggingface.bitsandbytes import take_quantised
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG, read_config_json
from paligemma_lib.checkpoint.huggingface.folder import open_tensors
from paligemma_lib.checkpoint.huggingface.format import Entry
from paligemma_lib.checkpoint.huggingface.refusals import hints
from paligemma_lib.checkpoint.huggingface.tensors import Tensor
from paligemma_lib.checkpoint.huggingface.tied import check_tied
from paligemma_lib.checkpoint.matching import describe_model, differences, expected_shapes, mismatch
from paligemma_lib.checkpoint.placement import row_blocks
from paligemma_lib.model.variants import PaliGemmaConfig


class SafetensorsReader:
    """An open checkpoint, used as a context manager.

    Attributes:
      path: the folder.
      shapes: parameter name -> shape, as in the reference. The position embedding has the number of
        patches in the file, since it can be interpolated.
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
          folder: folder with `model.safetensors`, or with several files and their index.
          config: the model. Only its sizes matter; if config.json has other soft caps or another
            query scale, a UserWarning says so.
          names: names of the wanted parameters, as in the reference; None: all. The files may lack
            other parameters, but may hold no tensor that belongs to no parameter of the model.

        Raises:
          FileNotFoundError: the folder does not exist, holds no safetensors, or lacks a file that
            the index names.
          ValueError: a file is damaged, the index is invalid, config.json is of another model, or
            tensors are missing, unexpected, or of another shape or dtype (one error lists all).
        """
        self.path = os.fspath(folder)
        with contextlib.ExitStack() as stack:
            self._stored = open_tensors(stack, Path(folder))
            self._quantised = take_quantised(self._stored, self.path)
            self._threads = stack.enter_context(ThreadPoolExecutor(THREADS, "safetensors"))
            self._check(config, names)
            self._stack = stack.pop_all()

    def __enter__(self) -> "SafetensorsReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(
        self, name: str, rows: slice | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns `parameter[rows]` and reads only these layers, or rows of the vocabulary.

        Args:
          name: a name in `shapes`.
          rows: a slice of axis 0, without a step; None: all rows.
          out: a contiguous array to read into; None: a new array.

        Raises:
          ValueError: a file is shorter than when it was opened.
        """
        shape, dtype = self.shapes[name], self.dtypes[name]
        first, last = row_range(rows, shape[0])
        if out is None:
            out = np.empty((last - first, *shape[1:]), dtype)
        with self._damage_reported(name):
            # There are three cases: the embedding table, whose rows are read at their offset;
            # another single tensor (no index), which is read whole and cut; and a stack of tensors,
            # each with index (layer,) or (layer, k), such as (3, 1) for `v_proj` of layer 3.
            for part in self._parts[name]:
                if name == tensors.EMBEDDING:
                    skip = first * shape[1] * dtype.itemsize
                    stored = self._stored[part.name]
                    read_at(stored.file, stored.entry.start + skip, out, self._threads)
                elif not part.index and len(out) == shape[0]:
                    self._read_tensor(part, out)
                elif not part.index:
                    whole = np.empty(shape, dtype)
                    self._read_tensor(part, whole)
                    out[...] = whole[first:last]
                elif first <= part.index[0] < last:
                    layer, *place = part.index
                    self._read_tensor(part, out[(layer - first, *place)])
        return out

    def verify(self) -> str:
        """Looks at all values, and returns a sentence that says so.

        Sizes are checked when the files are opened; the format has no checksums.

        Raises:
          ValueError: values are NaN or infinite; all parameters with such values are named.
        """
        found = {}
        for name, shape in self.shapes.items():
            blocks = row_blocks(shape, self.dtypes[name].itemsize)
            if bad := sum(count_not_finite(self.read(name, rows)) for rows in blocks):
                found[name] = bad, math.prod(shape)
        if found:
            raise NotFinite(self.path, found)
        files = len({stored.file.name for stored in self._stored.values()})
        return (
            f"{len(self._stored)} tensors in {files} file{'s' * (files > 1)}, all sizes match and "
            "all values are finite"
        )

    def _read_tensor(self, tensor: Tensor, out: np.ndarray) -> None:
        stored = self._stored[tensor.name]
        if weight := self._quantised.get(tensor.name):
            tensors.copy(tensor.from_stored(weight.undo(self._threads)), out)
            return
        dtype = stored.entry.dtype or out.dtype

        def read(strip: tuple[int, np.ndarray]) -> None:
            skip, view = strip
            start = stored.entry.start + skip * dtype.itemsize
            # A strip is contiguous in the file. If it is not in memory, or of another dtype there,
            # it is read into a temporary array and copied from there.
            if view.flags.c_contiguous and dtype == view.dtype:
                read_here(stored.file, start, as_bytes(view))
            else:
                values = np.empty(view.shape, dtype)
                read_here(stored.file, start, as_bytes(values))
                tensors.copy(values, view)

        list(self._threads.map(read, tensor.strips(out)))

    @contextlib.contextmanager
    def _damage_reported(self, name: str) -> Iterator[None]:
        try:
            yield
        except EOFError as error:
            raise ValueError(f"{self.path}, {name}: {error}. Download it again") from error

    def _check(self, config: PaliGemmaConfig, names: Iterable[str] | None) -> None:
        expected = expected_shapes(config)
        wanted = set(expected if names is None else names)
        if unknown := wanted - set(expected):
            raise ValueError(
                f"SafetensorsReader: this model has no parameters {sorted(unknown)}; "
                f"it has {sorted(expected)}."
            )
        # Tensors to leave out of the comparison. `check_tied` compares the output layer.
        not_wanted = {tensors.LM_HEAD}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._parts: dict[str, list[Tensor]] = {}
        allowed = {}
        for tensor in tensors.all_tensors(config):
            if tensor.parameter not in wanted:
                not_wanted.add(tensor.name)
                continue
            entry = self._stored[tensor.name].entry if tensor.name in self._stored else None
            allowed[tensor.name] = _allowed_shapes(tensor, entry)
            shape = expected[tensor.parameter]
            if tensor.parameter == POSITION_EMBEDDING and entry:
                # It is read with the file's number of patches, and the caller interpolates it.
                shape = (1, *entry.shape)
                tensor = Tensor(tensor.name, tensor.parameter, (), shape, tensor.axes)
            self.shapes[tensor.parameter] = shape
            self._parts.setdefault(tensor.parameter, []).append(tensor)
            if entry and entry.dtype:
                # Where layers differ in dtype, they are cast when they are read, to the one that
                # holds all values of the others.
                other = self.dtypes.setdefault(tensor.parameter, entry.dtype)
                if other != entry.dtype:
                    self.dtypes[tensor.parameter] = DTYPES["float32"]
        found = {name: s.entry for name, s in self._stored.items() if name not in not_wanted}
        lines = differences(
            allowed,
            {name: entry.shape for name, entry in found.items()},
            {name: entry.dtype or entry.code for name, entry in found.items()},
        )
        if lines:
            lines += hints(found, {entry.code for entry in found.values()})
        self._check_config(config, lines)
        if tensors.LM_HEAD in self._stored and tensors.EMBEDDING in self.shapes:
            head = self._stored[tensors.LM_HEAD]
            table = self._stored[self._parts[tensors.EMBEDDING][0].name]
            check_tied(self.path, head, table, self.shapes[tensors.EMBEDDING], self._threads)

    def _check_config(self, config: PaliGemmaConfig, lines: list[str]) -> None:
        """Raises ValueError for differing tensors or sizes; warns of settings that differ."""
        path = Path(self.path, CONFIG)
        theirs = read_config_json(path) if path.is_file() else config
        fields = differing_fields(config, theirs)
        told = [f"  {name} is {found} in {CONFIG}" for name, found in fields.items()]
        if lines or not SETTINGS.issuperset(fields):
            hint = [f"  {CONFIG} describes {describe_model(theirs)}."] if fields else []
            raise mismatch(self.path, (lines or told) + hint)
        if told:
            warnings.warn(
                "\n".join([f"{self.path} has settings that differ from the given config:", *told]),
                stacklevel=2,
            )


def _allowed_shapes(tensor: Tensor, entry: Entry | None) -> list[Shape]:
    shape = tensor.stored_shape
    if tensor.parameter == tensors.EMBEDDING:
        return [shape, (shape[0] + tensors.VOCABULARY_PADDING, shape[1])]
    if tensor.parameter == POSITION_EMBEDDING and entry and side_of_grid((1, *entry.shape)):
        return [(entry.shape[0], *shape[1:])]
    return [shape]
