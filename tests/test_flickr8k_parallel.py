import threading

import pytest

from flickr8k_tfds.parallel import map_ahead


def test_results_come_in_the_order_of_the_items():
    assert list(map_ahead(lambda n: n * n, range(1000))) == [n * n for n in range(1000)]


def test_it_runs_a_bounded_number_ahead(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    started = []
    results = map_ahead(started.append, range(1000))
    next(results)
    assert len(started) == 1  # whoever takes one only gets one
    next(results)
    results.close()
    assert len(started) <= 1 + 4 * 2


def test_several_items_are_worked_on_at_once(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    both = threading.Barrier(2, timeout=10)
    assert len(list(map_ahead(lambda n: n and both.wait(), range(5)))) == 5


def test_an_error_is_raised_at_its_turn():
    results = map_ahead(lambda n: 1 // n, [1, 0])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
