"""SIGTERM: noted in a block, and never lost."""

import os
import signal

import jax
import pytest

from paligemma_lib import sharding
from paligemma_lib.termination import Termination

MESH = sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture
def handled():
    """The signals that reach the handler of before."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_noted_in_the_block_alone(handled):
    with Termination(MESH) as termination:
        assert not termination.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.agreed() and termination.agreed()
    assert handled == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == [signal.SIGTERM]


def test_sigterm_after_the_last_question_is_passed_on(handled):
    with Termination(MESH) as termination:
        assert not termination.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert handled == []
    assert handled == [signal.SIGTERM]
