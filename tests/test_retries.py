"""Trying again: what may pass is tried, what lasts is not, and what takes long is told."""

import errno
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

from paligemma_lib.runtime import retries
from paligemma_lib.runtime.retries import is_transient, retry

PASSING = [
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ESTALE, "stale handle"),
    TimeoutError(errno.ETIMEDOUT, "timed out"),
    tf.errors.UnavailableError(None, None, "503"),
    ValueError("UNAVAILABLE: Error reading 7/state/d/0 [source locations=...]"),
]
LASTING = [
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "denied"),
    OSError(errno.ENOSPC, "no space left on device"),
    tf.errors.NotFoundError(None, None, "404"),
    ValueError("DATA_LOSS: Error reading manifest"),
    ValueError("UNAVAILABLE"),  # somebody's word, not a code
    KeyboardInterrupt(),
    SystemExit(143),
]


def failing(times: int, error: BaseException):
    """A function that fails so often, and the list of its calls."""
    calls = []

    def function() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "read"

    return function, calls


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again_and_told_once(error, caplog):
    function, calls = failing(2, error)
    assert retry(function, "a.tfrecord", delays=(0, 0, 0)) == "read"
    assert len(calls) == 3
    (record,) = caplog.records
    assert record.message == f"a.tfrecord: {error}; trying again for 0 s"


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_lasts_is_raised_at_once(error):
    function, calls = failing(1, error)
    with pytest.raises(type(error)):
        retry(function, "a.tfrecord", delays=(0, 0))
    assert len(calls) == 1


def test_patience_ends():
    function, calls = failing(9, PASSING[0])
    with pytest.raises(OSError, match="input/output"):
        retry(function, "a.tfrecord", delays=(0, 0))
    assert len(calls) == 3


def test_the_intervals_grow(monkeypatch):
    slept = []
    monkeypatch.setattr(retries, "_sleep", slept.append)
    function, _ = failing(len(retries.DELAYS), PASSING[0])
    retry(function, "a.tfrecord")
    for delay, seconds in zip(retries.DELAYS, slept, strict=True):
        assert delay / 2 <= seconds <= delay
    assert 90 < sum(retries.DELAYS) < 180


def test_nobody_waits_once_the_process_has_been_asked_to_end():
    function, calls = failing(9, PASSING[0])
    with ThreadPoolExecutor() as reader:
        read = reader.submit(retry, function, "a.tfrecord", delays=(100, 100))
        while not calls:
            time.sleep(0.01)
        assert not read.done()
        retries.skip_delays(True)
        try:
            assert isinstance(read.exception(timeout=30), OSError)
        finally:
            retries.skip_delays(False)
    assert len(calls) == 3


def test_a_stall_is_told_with_what_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(retries, "_STALL", 0.2)
    monkeypatch.setattr(retries, "_LOOK", 0.05)
    with caplog.at_level(logging.WARNING):
        retry(lambda: time.sleep(0.01), "fast.tfrecord")
        retry(lambda: time.sleep(2.5), "slow.tfrecord")
    assert "still waiting for slow.tfrecord, after " in caplog.text
    assert "fast" not in caplog.text
    assert len(caplog.records) <= 6  # after 0.2 s, 0.4 s, 0.8 s, ...


def test_kinds_are_told_apart():
    assert all(map(is_transient, PASSING))
    assert not any(map(is_transient, LASTING))
    assert not is_transient(KeyError("x"))
