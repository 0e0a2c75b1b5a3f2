"""What the page says of an image: escaped HTML, and tables and documents that others can read."""

import csv
import dataclasses
import io
import json

import cards
import PIL.Image
import pytest
from mask_cases import square_arrays
from report_cases import Page
from uploads import Upload

from paligemma_lib.decode import Caption
from paligemma_lib.regions import MaskCodec

HOSTILE = "<img src=x onerror=alert(1)> & \"quotes\" 'too'"
IMAGE = Upload(HOSTILE, b"", b"", 4, 3)
MASK = "<seg001>" * 16 + " dog"
WAY = cards.Way(HOSTILE, "beam search, 2 beams", 32, 7)
OTHER = Caption("another <b>one</b>", (9, 1), (-2.0, -1.0), -3.0)
CAPTION = Caption(HOSTILE, (8, 9, 1), (-0.5, -0.25, -0.25), -1.0, (OTHER,))
RESULT = cards.Result(IMAGE, WAY, HOSTILE, CAPTION, None, 0.1234)
FAILED = cards.Result(IMAGE, WAY, HOSTILE, None, HOSTILE, 0.0)


def test_everything_is_escaped():
    pieces = [cards.answer(RESULT), cards.answer(FAILED), cards.writing(RESULT, HOSTILE)]
    pieces += [cards.masthead([(HOSTILE, "", HOSTILE)]), cards.message(HOSTILE, HOSTILE)]
    pieces += [cards.message("What to type:", command=HOSTILE)]
    for piece in pieces:
        page = Page(piece)
        assert not page.all("img")
        assert not page.all("b")
        assert HOSTILE in page.text


def test_alternatives_come_with_bars_of_their_probability():
    piece = cards.answer(RESULT)
    page = Page(piece)
    assert "37 %" in page.text  # exp(-1)
    assert "5.0 %" in page.text  # exp(-3)
    assert "width:100.0%" in piece
    assert "width:13.5%" in piece  # exp(-2)
    assert "0.12 s" in page.text


def test_what_failed_and_what_was_stopped_is_told():
    assert 'role="alert"' in cards.answer(FAILED)
    stopped = cards.Result(IMAGE, WAY, "nano", None, None, 0.0)
    assert "Stopped." in cards.answer(stopped)
    assert FAILED.description == IMAGE.name
    assert RESULT.description == f"{IMAGE.name}: {CAPTION.text}"


def test_the_table_is_read_back():
    rows = list(csv.DictReader(io.StringIO(cards.table([RESULT, FAILED]))))
    assert len(rows) == 1
    assert rows[0] | {"probability": ""} == {
        "image": HOSTILE,
        "caption": HOSTILE,
        "probability": "",
        "model": HOSTILE,
        "prompt": HOSTILE,
        "words": "beam search, 2 beams",
        "length": "32",
        "seed": "7",
    }
    assert float(rows[0]["probability"]) == pytest.approx(0.367879, abs=1e-6)


@pytest.mark.parametrize("begin", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1"])
def test_no_cell_is_a_formula(begin):
    caption = Caption(begin, (8, 1), (-1.0, -1.0), -2.0)
    result = cards.Result(Upload(begin, b"", b"", 1, 1), WAY, "nano", caption, None, 1.0)
    (row,) = csv.DictReader(io.StringIO(cards.table([result])))
    assert (row["image"], row["caption"]) == (f"'{begin}", f"'{begin}")


def test_the_document_holds_all_that_it_takes_to_repeat_it():
    document = json.loads(cards.document([RESULT, FAILED]))
    assert document == {
        "captions": [
            {
                "image": HOSTILE,
                "caption": HOSTILE,
                "logprob": -1.0,
                "alternatives": [{"caption": OTHER.text, "logprob": -3.0}],
                "model": HOSTILE,
                "prompt": HOSTILE,
                "words": "beam search, 2 beams",
                "length": 32,
                "seed": 7,
                "seconds": 0.123,
            }
        ],
    }


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (1.0, "100 %"),
        (0.997, "100 %"),
        (0.123, "12 %"),
        (0.0994, "9.9 %"),
        (0.0402, "4.0 %"),
        (0.00994, "0.99 %"),
        (0.00123, "0.12 %"),
        (0.0009, "1 in 1,100"),
        (1.9e-5, "1 in 53,000"),
        (0.0, "next to nothing"),
    ],
)
def test_probabilities_are_for_people(probability, shown):
    assert cards.percent(probability) == shown


def test_boxes_are_drawn_and_their_tokens_are_not_shown():
    file = io.BytesIO()
    PIL.Image.new("RGB", (60, 40), "#808080").save(file, "JPEG")
    upload = Upload("a.jpg", b"", file.getvalue(), 60, 40)
    said = Caption("<loc0100><loc0100><loc0900><loc0900> dog", (8, 1), (-0.5, -0.5), -1.0)
    with_box = dataclasses.replace(RESULT, image=upload, caption=said)
    assert with_box.preview != upload.preview
    with PIL.Image.open(io.BytesIO(with_box.preview)) as drawn:
        assert drawn.size == (60, 40)
    page = Page(cards.answer(with_box))
    assert "dog" in page.texts and "<loc" not in page.text
    assert with_box.description == "a.jpg: dog"
    masked = dataclasses.replace(said, text="<loc0100><loc0100><loc0900><loc0900>" + MASK)
    boxes = dataclasses.replace(with_box, caption=masked)
    masks = dataclasses.replace(boxes, codec=MaskCodec(square_arrays()))
    assert len({upload.preview, boxes.preview, masks.preview}) == 3
    assert dataclasses.replace(with_box, caption=CAPTION).preview == upload.preview
    assert dataclasses.replace(with_box, image=IMAGE).preview == b""
