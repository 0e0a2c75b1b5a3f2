import numpy as np
import pytest
from PIL import Image
from report_cases import image as photo

from paligemma_lib.report import contact_sheet
from paligemma_lib.report.sheet import (
    CELL,
    GAP,
    LINE,
    MAX_LINES,
    PAPER,
    _drawable,
    _width,
    _wrapped,
)


def ink(image: Image.Image) -> int:
    """Pixels that are not paper."""
    paper = tuple(int(PAPER[k : k + 2], 16) for k in (1, 3, 5))
    return int((np.asarray(image) != paper).any(axis=-1).sum())


def test_images_stand_in_rows_with_their_captions_below():
    red = np.full((CELL, CELL, 3), (255, 0, 0), np.uint8)
    sheet = contact_sheet([(red, "a red square")] * 5, columns=2)
    assert sheet.mode == "RGB"
    pixels = np.asarray(sheet)
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 5 * CELL * CELL
    first = pixels[20 : 20 + CELL, 20 : 20 + CELL]
    assert (first == (255, 0, 0)).all()
    caption = sheet.crop((20, 20 + CELL, 20 + CELL, 20 + CELL + 40))
    assert ink(caption) > 100
    assert ink(contact_sheet([(red, "")], columns=1)) == CELL * CELL


def test_a_sheet_of_few_is_no_wider_than_they_are():
    assert contact_sheet([(photo(), "one")], columns=4).width < 2 * CELL
    assert contact_sheet([(photo(), "x")] * 9).width == 1124


def test_a_row_is_as_high_as_its_longest_caption():
    short = contact_sheet([(photo(), "a dog")] * 2)
    long = contact_sheet([(photo(), "a dog"), (photo(), "a dog runs " * 8)])
    assert long.height > short.height


@pytest.mark.parametrize(
    "text", ["a dog runs " * 30, "w" * 500, "a " + "m" * 200 + " end", "", " "]
)
def test_captions_are_wrapped_to_the_cell(text):
    lines = _wrapped(text)
    assert 1 <= len(lines) <= MAX_LINES
    assert all(_width(line) <= CELL for line in lines)


def test_a_caption_that_fits_is_whole_and_one_that_does_not_says_so():
    text = "a brown dog runs over the wet sand with a red ball in its mouth"
    assert " ".join(_wrapped(text)) == text
    assert _wrapped("a dog runs " * 60)[-1].endswith("…")


def test_accents_are_dropped_where_the_font_has_none():
    assert _drawable("naïve café \N{EN DASH} Ångström") == "naive cafe - Angstrom"


def test_other_scripts_leave_boxes_and_no_error():
    assert ink(contact_sheet([(photo(), "日本語 שלום 🙂 \x00")])) > 60 * 80


def test_a_image_that_cannot_be_read_leaves_a_note(tmp_path):
    sheet = contact_sheet([(tmp_path / "gone.jpg", "a dog")])
    assert 500 < ink(sheet) < CELL * CELL / 4


def test_remarks_are_red_and_below_their_captions():
    captioned = [(photo(), "two dogs"), (photo(), "a dog")]
    plain = contact_sheet(captioned)
    sheet = contact_sheet(captioned, remarks=["Not true: two", ""])
    assert sheet.height == plain.height + LINE
    pixels = np.asarray(sheet).astype(int)
    red = (pixels[..., 0] - pixels[..., 1] > 100) & (pixels[..., 0] - pixels[..., 2] > 100)
    rows, columns = np.nonzero(red[plain.height - GAP :])
    assert len(rows) > 50 and columns.max() < GAP + CELL
    with pytest.raises(ValueError, match="1 remarks, expected one for each of the 2 images"):
        contact_sheet(captioned, remarks=[""])


@pytest.mark.parametrize(("count", "columns"), [(0, 4), (3, 0)])
def test_there_must_be_something_to_show(count, columns):
    with pytest.raises(ValueError, match="expected at least one|columns=0, expected"):
        contact_sheet([(photo(), "x")] * count, columns=columns)
