"""Opens the description of a prepared data set of TFDS, which may come from a stranger.

builder = builder_in("built/flickr8k_tfds/original/1.0.0")
with tfds_errors("flickr8k_tfds"):
    builder.info.splits["train"].file_instructions
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from paligemma_lib.data.files import join, read_whole
from paligemma_lib.data.sources.json_values import object_of, parse_json
from paligemma_lib.data.storage_errors import storage_errors

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_INFO, _FEATURES = "dataset_info.json", "features.json"
_MAX_JSON_BYTES = 64 << 20
_CLASS_KEYS = ("pythonClassName", "type")  # of features, in the present form and in the former one


@contextlib.contextmanager
def tfds_errors(name: str) -> Iterator[None]:
    """Converts whatever TFDS raises in a `with` block, for the metadata of a data set.

    Raises:
      FileNotFoundError, OSError: as the file system says.
      ValueError: the metadata are damaged.
    """
    try:
        with storage_errors(name):
            yield
    except Exception as error:  # KeyError, AssertionError, ParseError of protobuf, ...
        if isinstance(error, OSError):
            raise
        told = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ValueError(
            f"the metadata of {name} cannot be used ({told}): copy or build the data set again"
        ) from error


def is_data_set(folder: str) -> bool:
    """Returns whether a local or remote folder holds the description of a data set."""
    if "\0" in folder:
        return False
    with storage_errors(folder):
        return tf.io.gfile.exists(join(folder, _INFO))


def builder_in(folder: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of the data set in a folder.

    Raises:
      FileNotFoundError, OSError: a file is missing or cannot be read.
      ValueError: a file is damaged, no regular file, or too large; or names code to be imported.
    """
    import tensorflow_datasets as tfds  # here, since the import is slow

    for file in (_INFO, _FEATURES):
        path = join(folder, file)
        data = read_whole(path, _MAX_JSON_BYTES)  # TFDS itself would read anything
        try:
            found = object_of(parse_json(data))
            if file == _FEATURES:
                _check_classes(found)
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error
    with tfds_errors(folder):
        return tfds.builder_from_directory(folder)


def check_below(path: str, folder: str) -> None:
    """Raises ValueError if the name of a file, which metadata say, leads out of the data set."""
    if ".." in path.replace("\\", "/").split("/") or os.path.dirname(path) != folder.rstrip("/"):
        raise ValueError(f"the metadata of {folder} name {path[:200]}, which is outside of it")


def _check_classes(features: Any) -> None:
    """Raises ValueError if TFDS would import a module of somebody else to make the features."""
    left = [features]
    while left:
        found = left.pop()
        if isinstance(found, list):
            left += found
        elif isinstance(found, dict):
            left += found.values()
            for key in _CLASS_KEYS:
                module = str(found.get(key, "")).rpartition(".")[0]
                ours = module.partition(".")[0] == "tensorflow_datasets"
                if module and not ours and module not in sys.modules:
                    raise ValueError(
                        f"it names code of {module[:80]}, which is not imported for data: import "
                        "it yourself if you trust it"
                    )
