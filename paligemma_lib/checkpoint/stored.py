"""Opens and checks the parameters of a checkpoint, and reads their values only on request.

config = read_config("paligemma-3b-pt-224.f16.npz")
with open_params("paligemma-3b-pt-224.f16.npz", config) as params:
    params["llm/layers/mlp/linear"].shape              # (18, 16384, 2048)
    params["llm/layers/mlp/linear"][3:4]               # one layer, float16[1, 16384, 2048]
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from paligemma_lib import hub
from paligemma_lib.checkpoint.configuration import Shape, config_of_shapes
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG, read_config_json
from paligemma_lib.checkpoint.huggingface.folder import weight_files
from paligemma_lib.checkpoint.huggingface.format import read_metadata
from paligemma_lib.checkpoint.huggingface.reader import SafetensorsReader
from paligemma_lib.checkpoint.huggingface.refusals import check_no_adapter
from paligemma_lib.checkpoint.matching import PARTS, check_params, expected_shapes
from paligemma_lib.checkpoint.npz import NpzReader
from paligemma_lib.model.siglip import resize_position_embedding
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import is_remote, path_of


class Reader(Protocol):
    """An open checkpoint of either format, with the reference's parameter names and shapes.

    Attributes:
      path: the file or folder.
      shapes: parameter name -> shape.
      dtypes: parameter name -> NumPy dtype.
    """

    path: str
    shapes: dict[str, Shape]
    dtypes: dict[str, np.dtype]

    def read(
        self, name: str, rows: slice | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns `parameter[rows]`, read into `out` if it is given."""

    def verify(self) -> str:
        """Runs the integrity checks of the format and returns a sentence about them."""


class StoredArray:
    """A parameter in a file, whose rows are read on request.

    Attributes:
      shape: shape of the parameter in the model. A position embedding is interpolated to it.
      dtype: dtype of the values in the file.
    """

    def __init__(self, file: Reader, name: str, shape: Shape) -> None:
        self.shape, self.dtype = shape, file.dtypes[name]
        self._file, self._name = file, name

    def read(self, rows: slice, out: np.ndarray) -> None:
        """Reads these rows into `out`, which must be contiguous."""
        if self._file.shapes[self._name] == self.shape:
            self._file.read(self._name, rows, out)
        else:
            # The checks at opening let only a position embedding differ in shape.
            embedding = self._file.read(self._name).astype(np.float32)
            out[...] = resize_position_embedding(embedding, self.shape[1])[rows]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        self.read(rows, out)
        return out


@contextlib.contextmanager
def open_reader(
    path: str | os.PathLike[str], config: PaliGemmaConfig, parts: Sequence[str] = PARTS
) -> Iterator[Reader]:
    """Opens a checkpoint of either format and checks that it holds the parameters of a model.

    Args:
      path: as in `load_params`.
      config: the model.
      parts: the parts of the model that the checkpoint must hold.

    Raises:
      The same errors as `load_params`.
    """
    place = _place(path)
    names = expected_shapes(config, parts)
    if os.path.isdir(place):
        with SafetensorsReader(place, config, names) as folder:
            yield folder
    else:
        with NpzReader(place) as file:
            check_params(file.shapes, file.dtypes, config, parts, source=file.path)
            yield file


@contextlib.contextmanager
def open_params(
    path: str | os.PathLike[str], config: PaliGemmaConfig, parts: Sequence[str] = PARTS
) -> Iterator[dict[str, StoredArray]]:
    """Yields a dict of parameter names to stored arrays; from `.npz`, in the order of the file.

    Arguments and errors are those of `open_reader`.
    """
    shapes = expected_shapes(config, parts)
    with open_reader(path, config, parts) as file:
        names = [name for name in file.shapes if name in shapes]
        yield {name: StoredArray(file, name, shapes[name]) for name in names}


def read_config(path: str | os.PathLike[str]) -> PaliGemmaConfig:
    """Returns the configuration of a checkpoint, from its config.json or its arrays' shapes.

    Args:
      path: as in `load_params`. A folder must hold config.json, as transformers writes it.

    Raises:
      FileNotFoundError: the checkpoint or its config.json does not exist.
      ValueError: the file is damaged, or describes a model that this library does not support.
    """
    place = _place(path)
    if os.path.isdir(place):
        if not Path(place, CONFIG).exists():
            check_no_adapter(Path(place))
        return read_config_json(Path(place, CONFIG))
    with NpzReader(place) as file:
        try:
            return config_of_shapes(file.shapes)
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error


def metadata_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the texts that a checkpoint holds beside its parameters, by name.

    Args:
      path: as in `load_params`. Of a folder with several files of weights, those of the first.

    Raises:
      FileNotFoundError, ValueError: the checkpoint does not exist, or is damaged.
    """
    place = _place(path)
    if os.path.isdir(place):
        return read_metadata(weight_files(Path(place))[0])
    with NpzReader(place) as file:
        return file.metadata


def _place(path: str | os.PathLike[str]) -> str:
    """Returns a local path, after a download if needed, or the URL of an `.npz` file."""
    # An `.npz` file at a URL is not downloaded first: NpzReader reads it in place.
    name = os.fspath(path)
    hub.check_no_address(name)
    if not is_remote(name):
        return os.fspath(hub.fetch(name))
    return name if name.endswith(".npz") else os.fspath(hub.exported(path_of(name)))
