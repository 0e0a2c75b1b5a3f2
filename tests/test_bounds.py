"""Numbers that a caller passes: which are numbers, and which bounds they have."""

import numpy as np
import pytest

from paligemma_lib.runtime.bounds import real, whole


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_whole_numbers_become_ints(value):
    assert type(whole("f: n", value, 3, 3)) is int and whole("f: n", value, 3, 3) == 3


@pytest.mark.parametrize("value", [True, np.bool_(True), 3.0, np.float32(3), "3", None, [3], 1j])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="f: n=.*expected a whole number of at least 0"):
        whole("f: n", value, 0)


@pytest.mark.parametrize("value", [2, 6, -(10**40), 10**40])
def test_whole_numbers_have_bounds(value):
    with pytest.raises(ValueError, match="expected a whole number from 3 to 5"):
        whole("f: n", value, 3, 5)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers_become_floats(value):
    assert type(real("f: x", value, above=0, most=1)) is float


@pytest.mark.parametrize(
    "value", [True, "1", None, float("nan"), float("inf"), -np.inf, 10**400, 1j, np.array([1.0, 2])]
)
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="f: x=.*expected a finite number$"):
        real("f: x", value)


@pytest.mark.parametrize(
    ("bounds", "value", "message"),
    [
        ({"least": 0}, -1e-9, "at least 0"),
        ({"above": 0}, 0.0, "above 0"),
        ({"above": 0, "most": 1}, 1.1, "above 0 and at most 1"),
        ({"least": 0, "below": 1}, 1, "at least 0 and below 1"),
    ],
)
def test_numbers_have_bounds(bounds, value, message):
    with pytest.raises(ValueError, match=f"expected a finite number {message}$"):
        real("f: x", value, **bounds)
