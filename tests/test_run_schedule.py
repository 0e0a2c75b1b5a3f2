"""What is due after which step, and when a run ends early."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.schedule import Schedule, by_loss


def schedule(**changes):
    values = {"batch_size": 4, "epochs": 2.0, "validate_every": 0.5, "save_every": 0.0} | changes
    return Schedule.of(RunConfig(**values), images=20)


def test_fractions_of_an_epoch_are_passed_in_time():
    found = schedule()
    assert (found.total_steps, found.steps_per_epoch) == (10, 5)
    assert [done for done in range(1, 11) if found.validates(done)] == [3, 5, 8, 10]
    assert [done for done in range(1, 11) if found.saves(done)] == [10]


def test_never_is_never():
    assert not any(schedule(validate_every=0.0).validates(done) for done in range(1, 11))


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ([3.0, 2.0, 1.0], False),
        ([1.0, 2.0], False),
        ([1.0, 2.0, 3.0], True),
        ([1.0, 1.0, 1.0], True),  # as low is not lower
        ([1.0, math.nan, math.nan], True),
        ([math.nan, math.nan], True),
        ([3.0, 4.0, 2.0], False),
        ([], False),
    ],
)
def test_a_run_ends_early_after_validations_without_a_lower_loss(losses, ends):
    by_step = {5 * (k + 1): loss for k, loss in enumerate(losses)}
    assert schedule(early_stopping=2).ends_early(by_step) is ends
    assert not schedule().ends_early(by_step)


@given(st.dictionaries(st.integers(0, 99), st.floats()))
def test_the_best_comes_first_and_what_is_not_finite_nowhere(losses):
    found = [(losses[step], step) for step in by_loss(losses)]
    assert found == sorted(found)
    assert len(found) == sum(map(math.isfinite, losses.values()))
