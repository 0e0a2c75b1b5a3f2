"""SIGTERM: noted in a block, and never lost."""

import os
import signal
import time

import jax
import pytest

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
