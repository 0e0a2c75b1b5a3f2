"""Every test that docs/robustness.md names is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "robustness.md"
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", PAGE.read_text("utf-8"))))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file, name):
    text = (TESTS / file).read_text("utf-8")
    assert f"def {name}(" in text if name else "def test_" in text


def test_many_are_named():
    assert len(NAMED) > 40
