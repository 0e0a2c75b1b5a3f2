"""JSON that every program reads."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.runtime.strict_json import dumps

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_what_is_not_finite_is_null():
    found = dumps({"loss": math.nan, "all": [1.0, (math.inf, -math.inf)]}, indent=None)
    assert found == '{"loss": null, "all": [1.0, [null, null]]}'


@given(VALUES)
def test_no_value_gives_what_json_does_not_have(value):
    def refuse(name):
        raise AssertionError(name)

    json.loads(dumps(value), parse_constant=refuse)
