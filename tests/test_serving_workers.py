"""Threads of an engine: they are waited for, and those that die start again."""

import threading
import time

from paligemma_lib.serving.workers import Workers


def working(work) -> Workers:
    workers = Workers()
    workers.add("one", work, lambda: None)
    workers.start(lambda: None)
    return workers


def test_closing_waits_for_what_a_thread_is_doing():
    begun, over = threading.Event(), threading.Event()

    def work():
        begun.set()
        time.sleep(0.2)
        over.set()

    workers = working(work)
    assert begun.wait(10)
    workers.close()
    workers.join(30)
    assert over.is_set()


def test_closing_does_not_wait_for_ever():
    forever = threading.Event()
    workers = working(forever.wait)
    workers.close()
    workers.join(0.1)
    forever.set()


def test_a_thread_may_close_its_own_workers():
    closed = threading.Event()

    def work():
        workers.close()
        workers.join(30)
        closed.set()

    workers = Workers()
    workers.add("one", work, lambda: None)
    workers.start(lambda: None)
    assert closed.wait(10)


def test_a_thread_that_dies_starts_again():
    started, again = [], threading.Event()

    def work():
        started.append(threading.get_ident())
        if len(started) == 1:
            raise MemoryError
        again.set()

    workers = working(work)
    assert again.wait(10) and workers.restarts == 1
    workers.close()
