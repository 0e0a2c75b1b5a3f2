"""What is from outside cannot act on a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.runtime.visible_text import told, visible, visible_lines


def test_escapes_line_breaks_and_direction_marks_are_shown() -> None:
    assert visible("a\x1b[31m dog\r\n\u202egpj.\x9b") == r"a\x1b[31m dog\r\n\u202egpj.\x9b"
    assert visible("\ud800") == r"\ud800"  # an undecodable byte of a file name


def test_text_of_any_language_stays() -> None:
    text = "ein Hündchen, 犬, می‌خواهم, \N{MAN}\u200d\N{WOMAN}, 1\u00a0kg"
    assert visible(text) == text


def test_lines_stay_lines() -> None:
    assert visible_lines("first\n  second\x07") == "first\n  second\\x07"


def test_a_line_break_in_a_name_does_not_forge_a_message() -> None:
    assert told("x\x1b.jpg\nERROR: lost\n  - a") == "x\\x1b.jpg\n  ERROR: lost\n  - a"


@given(st.text())
def test_nothing_that_acts_is_left(text: str) -> None:
    assert not set(visible(text)) & set(map(chr, [*range(32), *range(127, 160)]))
