"""Cells that a spreadsheet would run are text, and come back as they were."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.metrics import read_captions
from paligemma_lib.runtime.csv_cells import csv_text, guarded, unguarded

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.from_regex(r"'{0,3}[=+\-@\t\r].{0,5}", fullmatch=True),
)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "'=1", "''-1"])
def test_a_formula_is_text(cell):
    assert guarded(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["a dog", "", "'tis a dog", "a=b", "1-2", "'"])
def test_other_text_stays(cell):
    assert guarded(cell) == cell == unguarded(cell)


@given(TEXT)
def test_what_is_guarded_comes_back(cell):
    assert unguarded(guarded(cell)) == cell
    assert not guarded(cell).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
def test_captions_come_back_from_a_table(rows):
    text = csv_text([["image", "caption"], *rows])
    expected: dict[str, list[str]] = {}
    for image, caption in rows:
        expected.setdefault(image, []).append(caption)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.csv")
        path.write_bytes(text.encode())
        assert read_captions(path) == expected
