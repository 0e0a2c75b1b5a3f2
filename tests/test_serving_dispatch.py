"""Which jobs are written together, and for how long those that are written wait for others."""

import threading
import time

import pytest

from paligemma_lib.decode import Beam, Greedy
from paligemma_lib.serving.admission import Bounds
from paligemma_lib.serving.dispatch import Dispatch
from paligemma_lib.serving.jobs import Job, program_of

FOR_EVER = 60.0  # seconds that no test waits
PROGRAM = program_of(Greedy())


@pytest.fixture
def dispatch() -> Dispatch:
    dispatch = Dispatch(Bounds(100, 100, 100), ahead=8)
    dispatch.prepare([PROGRAM])
    assert dispatch.next_to_compile() == PROGRAM
    dispatch.compiled(PROGRAM, 4)
    return dispatch


def put(dispatch: Dispatch, sampler=Greedy()) -> Job:  # noqa: B008 (frozen)
    job = Job(dispatch, b"", "caption en", sampler, 8, 0, 0, "", None, False)
    dispatch.put(job)
    return job


def reading(dispatch: Dispatch) -> Job:
    job = put(dispatch)
    assert dispatch.next_to_read() is job
    return job


def written(dispatch: Dispatch) -> Job:
    job = reading(dispatch)
    dispatch.has_read(job, "prompt")
    assert dispatch.next_round(0, 0) == {PROGRAM: [(job, "prompt")]}
    return job


def test_captions_that_are_written_do_not_wait_for_one_image_that_takes_long(dispatch):
    written(dispatch)
    reading(dispatch)
    begin = time.monotonic()
    assert dispatch.next_round(FOR_EVER, 0.01) == {PROGRAM: []}
    assert time.monotonic() - begin < FOR_EVER / 2


def test_they_wait_while_one_is_read_after_the_other(dispatch):
    written(dispatch)
    jobs = [reading(dispatch) for _ in range(3)]

    def read():
        for job in jobs:
            time.sleep(0.05)
            dispatch.has_read(job, "prompt")

    thread = threading.Thread(target=read)
    thread.start()
    assert dispatch.next_round(FOR_EVER, FOR_EVER / 2) == {
        PROGRAM: [(job, "prompt") for job in jobs]
    }
    thread.join()


def test_nobody_waits_for_an_image_that_is_damaged(dispatch):
    written(dispatch)
    job = reading(dispatch)

    def fail():
        time.sleep(0.05)
        dispatch.end(job, "damaged", "request")
        dispatch.has_read(job, None)

    thread = threading.Thread(target=fail)
    thread.start()
    begin = time.monotonic()
    assert dispatch.next_round(FOR_EVER, FOR_EVER) == {PROGRAM: []}
    assert time.monotonic() - begin < FOR_EVER / 2
    thread.join()


def test_where_nothing_is_written_the_first_wait_for_each_other(dispatch):
    first, second = reading(dispatch), reading(dispatch)
    dispatch.has_read(first, "a")
    timer = threading.Timer(0.05, dispatch.has_read, (second, "b"))
    timer.start()
    assert dispatch.next_round(FOR_EVER, 0) == {PROGRAM: [(first, "a"), (second, "b")]}
    timer.join()


def test_what_a_client_asks_for_does_not_make_it_unready(dispatch):
    assert dispatch.is_prepared()
    job = put(dispatch, Beam(3))
    assert dispatch.is_prepared()
    assert dispatch.next_to_compile() == job.program
    dispatch.cannot_compile(job.program, "no")
    assert dispatch.is_prepared()
    assert dispatch.program_problems() == {job.program: "no"}


def test_a_program_that_cannot_be_compiled_is_not_tried_again():
    dispatch = Dispatch(Bounds(100, 100, 100), ahead=8)
    dispatch.prepare([PROGRAM])
    first = put(dispatch)
    assert dispatch.next_to_compile() == PROGRAM
    dispatch.cannot_compile(PROGRAM, "no")
    for job in (first, put(dispatch)):
        assert (job.answer.problem, job.answer.fault) == ("no", "server")
    assert dispatch.unfinished() == []
    assert not dispatch.is_prepared()
