"""SIGTERM: noted in a block, and never lost."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import pytest
from process_cases import ENVIRONMENT

from paligemma_lib import sharding
from paligemma_lib.runtime import termination
from paligemma_lib.runtime.termination import EXIT_CODE, Termination, exit_on_sigterm

MESH = sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture
def handled():
    """The signals that reach the handler of before."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_noted_in_the_block(handled):
    with Termination(MESH) as asked:
        assert not asked.agreed()
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == [signal.SIGTERM]


def test_once_agreed_no_other_sigterm_comes_between(handled):
    with Termination(MESH) as asked:
        assert not asked.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.agreed() and asked.agreed()
    os.kill(os.getpid(), signal.SIGTERM)  # while a checkpoint is written, say
    assert handled == []


def test_sigterm_after_the_last_question_is_passed_on(handled):
    with Termination(MESH) as asked:
        assert not asked.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert handled == []
    assert handled == [signal.SIGTERM]


def test_between_sigterm_and_the_agreement_no_read_waits(handled, monkeypatch):
    hurried = []
    monkeypatch.setattr(termination, "skip_delays", hurried.append)
    with Termination(MESH) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert hurried == [True]
        assert asked.agreed()
        assert hurried == [True, False]


FAILING = """
    import errno, os, signal, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    import jax
    from paligemma_lib import sharding
    from paligemma_lib.runtime.retries import retry
    from paligemma_lib.runtime.termination import Termination, exit_on_sigterm

    def read():
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise OSError(errno.EIO, "Input/output error")

    exit_on_sigterm()
    with ThreadPoolExecutor() as reader:
        if sys.argv[1] == "before":
            reader.submit(retry, read, "a.tfrecord").result()
        with Termination(sharding.make_mesh()):
            reader.submit(retry, read, "a.tfrecord").result()
"""


@pytest.mark.parametrize("when", ["before", "in"])
def test_sigterm_does_not_wait_for_storage_that_fails(when):
    start = time.monotonic()
    command = [sys.executable, "-c", textwrap.dedent(FAILING), when]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == EXIT_CODE, result.stderr[-3000:]
    assert "a.tfrecord: [Errno 5] Input/output error; trying again for 122 s" in result.stderr
    assert time.monotonic() - start < 60  # of which JAX takes most


class Fragile:
    """Gets SIGTERM where Python drops what is raised."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # here the handler runs


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sigterm_before_the_block_ends_the_process_or_else_the_block(handled, monkeypatch):
    monkeypatch.setattr(termination, "_early", [])
    exit_on_sigterm()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == EXIT_CODE
    termination._early.clear()
    with Termination(MESH) as asked:
        assert not asked.agreed()
    Fragile()
    with Termination(MESH) as asked:
        assert asked.agreed()
