"""How many parts a batch is computed in, on any number of devices."""

import pytest

from paligemma_lib.train.microbatching import number_of_parts


@pytest.mark.parametrize(
    ("batch_size", "devices", "microbatches", "parts"),
    [(8, 1, 4, 4), (8, 2, 4, 4), (8, 4, 4, 2), (8, 8, 8, 1), (12, 4, 4, 3), (16, 4, 2, 2)],
)
def test_no_more_parts_than_a_device_has_rows(batch_size, devices, microbatches, parts):
    assert number_of_parts(batch_size, devices, microbatches) == parts


@pytest.mark.parametrize("given", [(9, 2, 1), (3, 1, 4), (6, 2, 2), (2, 4, 1), (6, 2, 4)])
def test_unequal_parts_are_refused(given):
    size, devices, microbatches = given
    message = (
        f"batch_size={size} cannot be divided among {devices} devices and {microbatches} "
        f"microbatches: use a multiple of {devices * microbatches}"
    )
    with pytest.raises(ValueError, match=message):
        number_of_parts(*given)
