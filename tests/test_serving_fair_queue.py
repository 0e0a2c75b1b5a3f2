"""Clients take turns, whatever they put."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.serving.fair_queue import FairQueue


def job(client: str, name: int = 0):
    return SimpleNamespace(client=client, name=name)


def everything(queue: FairQueue) -> list:
    found = []
    while (each := queue.take(lambda _: True)) is not None:
        found.append(each)
    return found


def test_a_client_with_one_job_waits_for_one_of_each_other():
    queue = FairQueue()
    for name in range(5):
        queue.append(job("many", name))
    queue.append(job("one"))
    assert [each.client for each in everything(queue)] == ["many", "one"] + ["many"] * 4


def test_what_does_not_fit_lets_others_pass():
    queue = FairQueue()
    large, small = job("a", 9), job("a", 1)
    queue.append(large)
    queue.append(small)
    assert queue.take(lambda each: each.name < 5) is small
    assert queue.take(lambda each: each.name < 5) is None
    assert list(queue) == [large]


def test_what_comes_back_is_next():
    queue = FairQueue()
    queue.append(job("a"))
    back = job("b")
    queue.push_front(back)
    assert queue.take(lambda _: True) is back


@given(st.lists(st.integers(0, 3), max_size=30), st.data())
def test_the_queue_says_how_many_come_first(clients, data):
    queue, jobs = FairQueue(), [job(str(each), n) for n, each in enumerate(clients)]
    for each in jobs:
        queue.append(each)
    for _ in range(data.draw(st.integers(0, len(jobs)))):  # whose turn it is has moved on
        jobs.remove(queue.take(lambda _: True))
    for gone in [each for each in jobs if data.draw(st.booleans())]:
        assert queue.discard(gone)
        assert not queue.discard(gone)
        assert queue.ahead_of(gone) is None
        jobs.remove(gone)
    assert len(queue) == len(jobs)
    promised = {each.name: queue.ahead_of(each) for each in jobs}
    assert promised == {each.name: place for place, each in enumerate(everything(queue))}
