"""Who is served next, told step by step: no threads and no model."""

import itertools
import threading

import pytest

from paligemma_lib.decode import Caption
from paligemma_lib.serving import Answer, Busy, Queue, Request

GREEDY, BEAM = "greedy", "beam"  # any samplers
DONE = Answer("a dog", Caption("a dog", (5, 1), (-1.0, -1.0), -2.0))


def make_queue(prepare=(), compiled=(GREEDY,), max_waiting=10, timeout=60.0) -> Queue:
    queue = Queue(prepare=[*compiled, *prepare], max_waiting=max_waiting, timeout=timeout)
    for sampler in compiled:
        assert queue.next_sampler() == sampler
        queue.compiled(sampler)
    return queue


def ask(queue: Queue, images: int = 1, sampler: str = GREEDY) -> Request:
    request = Request(queue, (b"",) * images, "caption en", sampler, 8, 0)
    queue.put(request)
    return request


def told(*requests: Request) -> list[tuple[str, int]]:
    return [(each.stage, each.ahead) for each in (request.progress() for request in requests)]


def take_turn(queue: Queue, answer: Answer = DONE) -> tuple[Request, int]:
    request, number = queue.next_request()
    queue.show(request, number, answer)
    queue.end_turn(request)
    return request, number


def test_requests_take_turns_by_the_image():
    queue = make_queue()
    first, second = ask(queue, 3), ask(queue, 2)
    turns = [take_turn(queue) for _ in range(5)]
    assert turns == [(first, 0), (second, 0), (first, 1), (second, 1), (first, 2)]
    assert told(first, second) == [("over", 0)] * 2


def test_places_are_told():
    queue = make_queue()
    requests = [ask(queue) for _ in range(3)]
    assert told(*requests) == [("waiting", 0), ("waiting", 1), ("waiting", 2)]
    writing, number = queue.next_request()
    assert told(*requests) == [("writing", 0), ("waiting", 1), ("waiting", 2)]
    requests[1].cancel()
    assert told(*requests) == [("writing", 0), ("over", 0), ("waiting", 1)]
    queue.show(writing, number, Answer("a"))
    assert writing.progress().answers == (Answer("a"),)
    queue.show(writing, number, DONE)
    queue.end_turn(writing)
    assert told(*requests) == [("over", 0), ("over", 0), ("waiting", 0)]


def test_what_is_cancelled_or_fails_is_not_gone_on_with():
    queue = make_queue()
    cancelled, failed = ask(queue, 2), ask(queue, 2)
    request, number = queue.next_request()
    assert queue.show(request, number, Answer("a"))
    cancelled.cancel()
    assert not queue.show(request, number, Answer("a dog"))
    queue.end_turn(request)
    assert cancelled.progress().answers[0].text == "a dog"
    take_turn(queue, Answer(problem="no image"))
    assert take_turn(queue) == (failed, 1)
    assert [each.problem for each in failed.progress().answers] == ["no image", None]


def test_before_the_model_is_there_it_is_being_loaded():
    queue = Queue(prepare=[GREEDY], max_waiting=2, timeout=60.0)
    request = ask(queue)
    assert told(request) == [("loading", 0)]
    assert not queue.all_compiled
    assert queue.next_sampler() == GREEDY
    assert told(request) == [("compiling", 0)]
    queue.compiled(GREEDY)
    assert told(request) == [("waiting", 0)]
    assert queue.all_compiled


def test_a_sampler_in_demand_is_compiled_before_the_others():
    queue = make_queue(prepare=["a", "b"])
    ask(queue, sampler=BEAM)
    ask(queue, sampler="b")
    order = []
    while not queue.all_compiled:
        order.append(queue.next_sampler())
        queue.compiled(order[-1])
    assert order == ["b", BEAM, "a"]


def test_who_waits_for_a_program_holds_up_nobody():
    queue = make_queue()
    aside, other = ask(queue, sampler=BEAM), ask(queue)
    assert told(aside, other) == [("compiling", 0), ("waiting", 0)]
    assert take_turn(queue) == (other, 0)
    queue.compiled(queue.next_sampler())
    assert queue.is_compiled(BEAM)
    assert take_turn(queue) == (aside, 0)


def test_a_program_that_fails_is_told_to_those_who_wait_for_it():
    queue = make_queue()
    aside, other = ask(queue, 2, sampler=BEAM), ask(queue)
    queue.compiled(queue.next_sampler(), "out of memory")
    assert [each.problem for each in aside.progress().answers] == ["out of memory"] * 2
    assert not queue.is_compiled(BEAM)
    assert told(aside, other) == [("over", 0), ("waiting", 0)]


def test_what_nobody_asks_about_is_dropped():
    queue = make_queue(timeout=-1.0)
    left, asked = ask(queue, 2), ask(queue, 2)
    assert take_turn(queue) == (left, 0)
    request, number = queue.next_request()
    asked._seen += 60
    assert queue.show(request, number, DONE)
    queue.end_turn(request)
    assert take_turn(queue) == (asked, 1)
    assert told(left, asked) == [("over", 0)] * 2
    assert left.progress().answers[1] == Answer()


def test_too_many_requests_are_turned_away():
    queue = make_queue(max_waiting=2)
    first = ask(queue, sampler=BEAM)
    ask(queue)
    with pytest.raises(Busy, match="2 requests are waiting"):
        ask(queue)
    first.cancel()
    ask(queue)


def test_when_all_is_given_up_everybody_is_told():
    queue = Queue(max_waiting=2, timeout=60.0)
    request = ask(queue)
    queue.give_up("no such checkpoint")
    assert request.progress().answers == (Answer(problem="no such checkpoint"),)
    with pytest.raises(RuntimeError, match="no such checkpoint"):
        ask(queue)


@pytest.mark.parametrize("wait", [Queue.next_request, Queue.next_sampler])
def test_threads_wait_and_end_with_the_queue(wait):
    queue, found = make_queue(), []
    thread = threading.Thread(target=lambda: found.append(wait(queue)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    queue.close()
    thread.join(60)
    assert found == [None]


def test_no_image_is_forgotten_when_many_threads_ask():
    queue, served = make_queue(max_waiting=1000), []
    threads = [
        threading.Thread(target=lambda: [ask(queue, 2) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for _ in itertools.repeat(None, 400):
        served.append(take_turn(queue))
    for thread in threads:
        thread.join(60)
    assert len(set(served)) == 400
    assert all(request.progress().over for request, _ in served)
