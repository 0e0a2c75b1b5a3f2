"""Converts TensorFlow's errors of storage to those of Python.

with storage_errors("gs://bucket/file"):
    tf.io.gfile.stat("gs://bucket/file")            # FileNotFoundError, PermissionError, OSError
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import tensorflow as tf

from paligemma_lib.runtime.retries import is_transient


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Converts errors of `tf.io.gfile` in a `with` block; use it outside of `retry`.

    Raises:
      FileNotFoundError: there is no such file.
      PermissionError: the storage refuses access.
      OSError: anything else. It has the errno EIO if the storage failed, and may not fail later.
    """
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        raise PermissionError(f"{path} must not be read or written: {_told(error)}") from error
    except tf.errors.OpError as error:
        if is_transient(error):
            raise OSError(errno.EIO, f"the storage failed: {_told(error)}", path) from error
        raise OSError(f"{path} cannot be read or written: {_told(error)}") from error


def _told(error: tf.errors.OpError) -> str:
    return (str(error.message).splitlines() or [type(error).__name__])[0][:200]
