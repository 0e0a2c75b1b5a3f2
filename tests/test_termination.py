"""SIGTERM and Ctrl-C: noted in a block, and never lost."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import pytest
from process_cases import ENVIRONMENT

from paligemma_lib import sharding
from paligemma_lib.runtime import signals, termination
from paligemma_lib.runtime.termination import Termination

MESH = sharding.make_mesh(devices=jax.devices()[:1])
BOTH = pytest.mark.parametrize("number", signals.SIGNALS)


@pytest.fixture
def handled():
    """The signals that reach the handler of before."""
    came = []
    before = {
        each: signal.signal(each, lambda number, _: came.append(number)) for each in signals.SIGNALS
    }
    yield came
    for each, handler in before.items():
        signal.signal(each, handler)


@BOTH
def test_a_signal_is_noted_in_the_block(handled, number):
    with Termination(MESH) as asked:
        assert not asked.agreed() and asked.exit_code == 0
    os.kill(os.getpid(), number)
    assert handled == [number]


@BOTH
def test_all_end_with_the_code_of_the_signal(handled, number):
    with Termination(MESH) as asked:
        os.kill(os.getpid(), number)
        assert asked.agreed()
    assert asked.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]


def test_once_agreed_no_sigterm_comes_between(handled):
    with Termination(MESH) as asked:
        assert not asked.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.agreed() and asked.agreed()
        os.kill(os.getpid(), signal.SIGTERM)  # while a checkpoint is written, say
    assert handled == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == [signal.SIGTERM]


def test_a_second_ctrl_c_ends_in_the_block(handled, monkeypatch):
    with Termination(MESH) as asked:
        for _ in range(2):  # as `timeout -s INT` sends them: one press
            os.kill(os.getpid(), signal.SIGINT)
        assert asked.agreed()
        monkeypatch.setattr(signals, "ONE_PRESS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert handled == []


@BOTH
def test_a_signal_after_the_last_question_is_passed_on(handled, number):
    with Termination(MESH) as asked:
        assert not asked.agreed()
        os.kill(os.getpid(), number)
        assert handled == []
    assert handled == [number]


def test_a_signal_that_is_ignored_stays_ignored(handled):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what is in its background
    with Termination(MESH) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert not asked.agreed()


def test_other_threads_train_too():
    agreed = []

    def train():
        with Termination(MESH) as asked:
            agreed.append(asked.agreed())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert agreed == [False]


def test_between_a_signal_and_the_agreement_no_read_waits(handled, monkeypatch):
    hurried = []
    monkeypatch.setattr(termination, "skip_delays", hurried.append)
    with Termination(MESH) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert hurried == [True]
        assert asked.agreed()
        assert hurried == [True, False]
        os.kill(os.getpid(), signal.SIGTERM)  # while the last checkpoint is saved
        assert hurried == [True, False]


FAILING = """
    import errno, os, signal, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    import jax
    from paligemma_lib import sharding
    from paligemma_lib.runtime.retries import retry
    from paligemma_lib.runtime.signals import exit_on_signals
    from paligemma_lib.runtime.termination import Termination

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))

    def read():
        if timer.ident is None:
            timer.start()
        raise OSError(errno.EIO, "Input/output error")

    with exit_on_signals(), ThreadPoolExecutor() as reader:
        if sys.argv[1] == "before":
            reader.submit(retry, read, "a.tfrecord").result()
        with Termination(sharding.make_mesh()):
            reader.submit(retry, read, "a.tfrecord").result()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "in"])
def test_sigterm_does_not_wait_for_storage_that_fails(when):
    start = time.monotonic()
    command = [sys.executable, "-c", textwrap.dedent(FAILING), when]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 143, result.stderr[-3000:]
    assert "a.tfrecord: [Errno 5] Input/output error; trying again for 122 s" in result.stderr
    assert time.monotonic() - start < 60  # of which JAX takes most
