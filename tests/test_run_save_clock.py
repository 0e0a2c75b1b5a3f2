"""A checkpoint is due once when its minutes are over, in one process and in several."""

import jax
import pytest

from paligemma_lib import sharding
from paligemma_lib.run import save_clock
from paligemma_lib.run.save_clock import SaveClock

MESH = sharding.make_mesh(devices=jax.devices()[:1])


class Late:
    """The answer of several processes: that of the call before."""

    def __init__(self, mesh):
        self.before = 0

    def largest(self, mine):
        mine, self.before = self.before, int(mine)
        return mine


@pytest.mark.parametrize("processes", [1, 2])
def test_each_time_it_is_due_once(monkeypatch, processes):
    now = [0.0]
    monkeypatch.setattr(save_clock.time, "monotonic", lambda: now[0])
    if processes > 1:
        monkeypatch.setattr(save_clock, "Agreement", Late)
        monkeypatch.setattr(jax, "process_count", lambda: processes)
    clock, due = SaveClock(1.0, MESH), []
    for second in range(0, 200, 2):
        now[0] = second
        if clock.is_due():
            due.append(second)
            clock.restart()
    assert due == ([62, 124, 186] if processes == 1 else [64, 128, 192])


def test_no_minutes_are_never_over():
    assert not SaveClock(0.0, MESH).is_due()
