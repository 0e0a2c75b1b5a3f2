"""Trackers: one that fails is told, and does not stop the run."""

import numpy as np
import pytest

from paligemma_lib.train.tracking import Trackers


class Seeing:
    def __init__(self):
        self.seen = []

    def scalars(self, values, step):
        self.seen.append((values, step))

    def caption(self, image_id, image, caption, step):
        self.seen.append(caption)

    def close(self):
        self.seen.append("closed")


class Failing(Seeing):
    def scalars(self, values, step):
        raise RuntimeError("events.out: No space left on device")

    def close(self):
        super().close()
        raise OSError("still no space")


def test_one_that_fails_is_told_closed_and_left_out(caplog):
    failing, seeing = Failing(), Seeing()
    trackers = Trackers([failing, seeing])
    for step in (1, 2):
        trackers.scalars({"loss": 0.5}, step)
    trackers.caption("a.jpg", np.zeros(1), "a dog", 2)
    trackers.close()
    assert seeing.seen == [({"loss": 0.5}, 1), ({"loss": 0.5}, 2), "a dog", "closed"]
    assert failing.seen == ["closed"]
    assert caplog.text.count("Failing failed, and gets nothing more of this run") == 1
    assert not Trackers([])


def test_closing_never_fails():
    with Trackers([Failing()]):
        pass


def test_the_error_that_ends_a_run_is_told_to_those_that_ask():
    class Asking(Seeing):
        def failed(self, error):
            self.seen.append(repr(error))

    asking, seeing = Asking(), Seeing()
    with pytest.raises(KeyboardInterrupt), Trackers([asking, seeing]):
        raise KeyboardInterrupt
    assert asking.seen == ["KeyboardInterrupt()", "closed"] and seeing.seen == ["closed"]
    finished = Asking()
    with Trackers([finished]):
        pass
    assert finished.seen == ["closed"]
