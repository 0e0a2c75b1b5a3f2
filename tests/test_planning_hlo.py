"""Reading XLA's programs: how often each part of them runs."""

import pytest
from planning_cases import PROGRAM

from paligemma_lib.planning.hlo import parse


def test_loops_multiply_what_is_in_them():
    program = parse(PROGRAM)
    times = program.times(unknown=5)
    assert times["main"] == 1
    assert times["body"] == times["start"] == times["sliced"] == 18
    assert times["inner_body"] == 18 * 5


def test_a_number_of_turns_that_xla_knows_is_taken():
    text = PROGRAM.replace(
        "condition=%inner_condition, body=%inner_body",
        "condition=%inner_condition, body=%inner_body, "
        'backend_config={"known_trip_count":{"n":"4"}}',
    )
    assert parse(text).times(unknown=5)["inner_body"] == 18 * 4


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        parse("nothing of the kind")
