"""Errors of remote storage are those of Python; damaged side files are put aside."""

import errno

import pytest
import tensorflow as tf

from paligemma_lib.data.storage_errors import storage_errors
from paligemma_lib.runtime.retries import is_transient


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (tf.errors.NotFoundError, FileNotFoundError, "gs://b/x does not exist"),
        (tf.errors.PermissionDeniedError, PermissionError, "gs://b/x must not be read .*: why"),
        (tf.errors.UnauthenticatedError, PermissionError, "gs://b/x must not be read"),
        (tf.errors.UnavailableError, OSError, "the storage failed: why: 'gs://b/x'"),
        (tf.errors.DataLossError, OSError, "gs://b/x cannot be read or written: why"),
        (tf.errors.InvalidArgumentError, OSError, "gs://b/x cannot be read or written: why"),
    ],
)
def test_errors_of_tensorflow(raised, error, message):
    with pytest.raises(error, match=message) as caught, storage_errors("gs://b/x"):
        raise raised(None, None, "why\nand more")
    assert type(caught.value) is error
    transient = raised is tf.errors.UnavailableError
    assert is_transient(caught.value) == transient
    assert caught.value.errno == (errno.EIO if transient else None)


def test_other_errors_stay_as_they_are():
    with pytest.raises(KeyError), storage_errors("gs://b/x"):
        raise KeyError
