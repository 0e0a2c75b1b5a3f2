import collections
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.data import order

seeds = st.integers(0, 2**63 - 1)

GOLDEN_RECORDS = [5790, 5614, 2250, 2504, 5405, 2396, 5993, 3868]
GOLDEN_OTHERS = [394, 466, 248, 265, 517, 243, 241, 268]


def epoch_of(number: int, records: int, seed: int = 0) -> np.ndarray:
    return order.record_numbers(number * records + np.arange(records), records=records, seed=seed)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 10**9), seeds)
def test_every_epoch_is_a_permutation(records, epoch, seed):
    assert sorted(epoch_of(epoch, records, seed)) == list(range(records))


def test_the_order_never_changes_between_versions():
    """A resumed run goes on as it began; these numbers may never change."""
    examples = np.array([0, 1, 2, 3, 6000, 6001, 10**7, 10**12])
    numbers = order.record_numbers(examples, records=6000, seed=0)
    assert numbers.tolist() == GOLDEN_RECORDS
    assert order.record_numbers(examples, records=529, seed=7).tolist() == GOLDEN_OTHERS


def test_epochs_and_seeds_differ():
    orders = [epoch_of(0, 100), epoch_of(1, 100), epoch_of(2, 100), epoch_of(0, 100, seed=1)]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            assert np.mean(first == second) < 0.1


@pytest.mark.parametrize("records", [2, 3, 4, 5])
def test_all_orders_of_a_few_records_are_equally_likely(records):
    epochs = 5000
    numbers = order.record_numbers(np.arange(epochs * records), records=records, seed=3)
    found = collections.Counter(map(tuple, numbers.reshape(epochs, records)))
    kinds = math.factorial(records)
    expected = epochs / kinds
    chi2 = sum((found[each] - expected) ** 2 / expected for each in found)
    assert len(found) == kinds
    assert chi2 < kinds - 1 + 5 * math.sqrt(2 * (kinds - 1))


def test_places_in_an_epoch_are_uncorrelated():
    epochs = np.stack([epoch_of(number, 1000) for number in range(200)])
    where = np.arange(1000)
    correlations = [np.corrcoef(where, numbers)[0, 1] for numbers in epochs]
    assert np.std(correlations) == pytest.approx(1000**-0.5, rel=0.2)
    following = [np.corrcoef(one, other)[0, 1] for one, other in itertools.pairwise(epochs)]
    assert np.std(following) == pytest.approx(1000**-0.5, rel=0.2)
    neighbours = np.mean(np.diff(epochs, axis=1) == 1) * 1000
    assert neighbours == pytest.approx(1, abs=0.25)


@settings(deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 6).map(lambda n: 8 * n),
    st.integers(0, 10**12),
)
def test_processes_divide_every_global_batch_among_them_in_order(processes, batch_size, step):
    share = batch_size // processes
    slots = step * share + np.arange(share)
    parts = [
        order.example_numbers(
            slots, batch_size=batch_size, process_index=index, process_count=processes
        )
        for index in range(processes)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), step * batch_size + np.arange(batch_size))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 1000), seeds)
def test_all_captions_come_before_any_repeats(record, captions, cycle, seed):
    epochs = range(cycle * captions, (cycle + 1) * captions)
    chosen = [order.caption_number(record, epoch, captions=captions, seed=seed) for epoch in epochs]
    assert sorted(chosen) == list(range(captions))


def test_records_and_cycles_take_their_captions_in_different_orders():
    orders = {
        tuple(order.caption_number(record, 5 * cycle + k, captions=5, seed=0) for k in range(5))
        for record in range(20)
        for cycle in range(5)
    }
    assert len(orders) > 50  # of 120


@settings(deadline=None)
@given(st.floats(0.05, 1), seeds)
def test_crops_lie_in_the_image_and_keep_the_area_asked_for(min_area, seed):
    top, left, height, width = order.crop_boxes(np.arange(200), min_area=min_area, seed=seed).T
    for corner, side in ((top, height), (left, width)):
        assert np.all(corner >= 0) and np.all(side > 0) and np.all(corner + side <= 1 + 1e-6)
    assert np.all(height * width >= min_area * (1 - 1e-5))
    assert np.all((height / width > 0.74) & (height / width < 1.34))


def test_crops_follow_from_the_example_alone_and_differ():
    boxes = order.crop_boxes(np.arange(100), min_area=0.3, seed=0)
    np.testing.assert_array_equal(
        boxes[40:60], order.crop_boxes(np.arange(40, 60), min_area=0.3, seed=0)
    )
    assert len(np.unique(boxes, axis=0)) == 100
    assert np.mean(boxes[:, 2] * boxes[:, 3]) == pytest.approx(0.65, abs=0.06)


def test_half_are_mirrored_and_not_as_they_are_cropped():
    flipped = order.flipped(np.arange(1000), seed=0)
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(flipped[40:60], order.flipped(np.arange(40, 60), seed=0))
    assert np.mean(flipped == order.flipped(np.arange(1000), seed=1)) < 0.6
    top, left, _, _ = order.crop_boxes(np.arange(1000), min_area=0.3, seed=0).T
    for drawn in (top, left):
        assert abs(np.corrcoef(flipped, drawn)[0, 1]) < 0.1
