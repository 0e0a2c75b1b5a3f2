"""Runs a property on generated inputs: on a few by default, on 20,000 in the slow tests.

@EXAMPLES
def test_any_header(examples):
    fuzz(examples, check, damaged(valid_file))
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MANY = [pytest.mark.slow, pytest.mark.fuzz, pytest.mark.timeout(3600)]
EXAMPLES = pytest.mark.parametrize("examples", [25, pytest.param(20_000, marks=MANY)])

# Whole numbers at which sizes overflow, and what stands in JSON where a number should.
ODD_NUMBERS = st.sampled_from([-1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**40])
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    ODD_NUMBERS,
    st.sampled_from([0.5, float("nan"), float("inf"), 1e308]),
    st.text(max_size=8),
    st.sampled_from(["", "\0", "../up", "/etc/passwd", "\x1b[2J", "\ud800", "é" * 300]),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def fuzz(examples: int, check: Callable[..., None], *inputs: st.SearchStrategy[Any]) -> None:
    """Calls `check` with so many examples of the inputs."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    limits = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=quiet
    )
    limits(given(*inputs)(check))()


def read_all(open_source: Callable[[], Any], place: str = "") -> None:
    """Opens a source and reads all of it; what cannot be read is told, with its place."""
    try:
        source = open_source()
        count = len(source)
        source.fingerprint()
    except (ValueError, OSError) as error:
        assert str(error)
        return
    for number in range(count):
        try:
            (record,) = source.read([number])
            assert isinstance(record.image, bytes) and all(map(str.strip, record.captions))
        except ValueError as error:
            assert str(error) and place in str(error)


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file after one to three changes: bits, cuts, doubled or lost pieces, other bytes."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 64)))
        match draw(st.sampled_from(["flip", "cut", "double", "lose", "replace", "insert"])):
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start:]
            case "double":
                data[stop:stop] = data[start:stop]
            case "lose":
                del data[start:stop]
            case "replace":
                data[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
            case "insert":
                data[start:start] = draw(st.binary(max_size=32))
    return bytes(data)


@st.composite
def changed_json(draw: st.DrawFn, valid: Any) -> Any:
    """A tree of JSON in which one value, at any depth, is removed, renamed or an odd one."""
    if not isinstance(valid, dict | list) or not valid or draw(st.integers(0, 4)) == 0:
        return draw(ODD_VALUES)
    tree = dict(valid) if isinstance(valid, dict) else list(valid)
    key = draw(st.sampled_from(sorted(tree) if isinstance(tree, dict) else range(len(tree))))
    match draw(st.sampled_from(["change", "change", "change", "remove", "rename"])):
        case "change":
            tree[key] = draw(changed_json(tree[key]))
        case "remove":
            del tree[key]
        case "rename" if isinstance(tree, dict):
            tree[draw(st.text(max_size=8))] = tree.pop(key)
    return tree
