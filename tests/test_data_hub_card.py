"""The YAML of a card: what it says, and bombs that nobody may set off."""

import itertools
import time

import pytest

from paligemma_lib.data.sources.hub_card import read_card
from paligemma_lib.data.sources.hub_configs import configs_in_card

LEVELS = [chr(ord("a") + level) for level in range(26)]


def lists() -> str:
    """A list of nine lists of nine lists, 26 levels deep."""
    rows = ["a: &a [x]"]
    rows += [
        f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]"
        for below, name in itertools.pairwise(LEVELS)
    ]
    return "\n".join([*rows, "configs: *z"])


def merges() -> str:
    """A mapping that merges nine times what merges nine times, 26 levels deep."""
    rows = ["a: &a {x: 1}"]
    rows += [
        f"{name}: &{name} {{<<: [{', '.join([f'*{below}'] * 9)}]}}"
        for below, name in itertools.pairwise(LEVELS)
    ]
    return "\n".join(rows)


@pytest.fixture
def card(tmp_path):
    """Reads a card with this YAML."""

    def read(text: str):
        file = tmp_path / "README.md"
        file.write_text(f"---\n{text}\n---\n# Dogs\n")
        return read_card(file)

    return read


def test_it_says_what_yaml_says(card):
    assert card("a: &a [1]\nb: *a\nc: {<<: {d: 2}}") == {"a": [1], "b": [1], "c": {"d": 2}}
    assert card("") == {}


def test_without_yaml_it_says_nothing(tmp_path):
    (tmp_path / "README.md").write_text("# Dogs")
    assert read_card(tmp_path / "README.md") == {}


@pytest.mark.parametrize("bomb", [lists, merges])
def test_aliases_that_stand_for_billions_are_refused_at_once(card, bomb):
    start = time.monotonic()
    with pytest.raises(ValueError, match="stands for more than 1,000,000 values"):
        configs_in_card(card(bomb()))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "holds itself"),
        ("[" * 5000, "."),
        ("a: b: c", "mapping values are not allowed"),
        ("- 1", "a list, expected a mapping"),
        ("a: 2024-99-99", "month"),
        ("? [1]\n: 2", "unhashable"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
    ],
)
def test_what_is_no_card_is_an_error(card, text, message):
    with pytest.raises(ValueError, match=message):
        card(text)
