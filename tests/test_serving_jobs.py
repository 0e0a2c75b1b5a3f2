"""Answers of a job, which several threads show."""

import threading

from paligemma_lib.decode import Greedy
from paligemma_lib.serving.admission import Bounds
from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.dispatch import Dispatch
from paligemma_lib.serving.jobs import Job


def test_text_so_far_never_replaces_the_end():
    job = Job(
        Dispatch(Bounds(1, 1, 1), ahead=1), b"", "caption en", Greedy(), 8, 0, 0, "", None, True
    )
    looked, ended = threading.Event(), threading.Event()

    class Slow(Answer):
        """Another thread ends the job just after one has seen that it is not over."""

        @property
        def over(self) -> bool:
            if threading.current_thread() is partial:
                looked.set()
                ended.wait(0.5)  # or waits for this thread
            return False

    partial = threading.Thread(target=job.show, args=(Answer(("a dog",)),))
    job.show(Slow())
    partial.start()
    assert looked.wait(10)
    job.cancel()
    ended.set()
    partial.join()
    assert job.answer.fault == "cancelled"
