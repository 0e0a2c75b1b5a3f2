"""Regions in texts: what is written is read again, and what a model may write does no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.regions import Box, Region, parse_regions, write_regions

GRID = st.integers(0, 1023)
SIDES = st.tuples(GRID, GRID).filter(lambda pair: pair[0] != pair[1]).map(sorted)
BOXES = st.tuples(SIDES, SIDES).map(
    lambda pair: Box(pair[0][0] / 1023, pair[1][0] / 1023, pair[0][1] / 1023, pair[1][1] / 1023)
)
LABELS = st.lists(st.sampled_from(["red", "ball", "chat noir", "犬", "a>b"]), max_size=3).map(
    " ".join
)
MASKS = st.one_of(st.just(()), st.tuples(*[st.integers(0, 127)] * 16))
REGIONS = st.builds(Region, LABELS, BOXES, MASKS)


@given(st.lists(REGIONS, max_size=6))
def test_what_is_written_is_read_again(regions):
    assert parse_regions(write_regions(regions)) == regions


def test_a_box_is_top_left_bottom_right_in_steps_of_1_in_1023():
    dog = Region("a dog", Box(0, 0.25, 0.5, 1))
    assert write_regions([dog]) == "<loc0000><loc0256><loc0512><loc1023> a dog"
    (found,) = parse_regions("<loc0000><loc0256><loc0512><loc1023>   a  dog ")
    assert found.label == "a dog"
    assert found.box == pytest.approx(dog.box, abs=1e-3)


def test_masks_stand_behind_their_box():
    codes = "".join(f"<seg{n:03d}>" for n in range(16))
    text = f"<loc0000><loc0000><loc0010><loc0010>{codes} cat ; <loc0001><loc0001><loc0002><loc0002>"
    cat, nameless = parse_regions(text)
    assert cat.mask == tuple(range(16)) and cat.label == "cat"
    assert nameless.mask == () and nameless.label == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog runs",
        "<loc0001><loc0001><loc0002> dog",
        "<loc1024><loc0001><loc1025><loc0002> dog",
        "<loc0005><loc0001><loc0005><loc0002> flat",
        "<loc0005><loc0009><loc0006><loc0002> exchanged",
        "<loc-001><loc0001><loc0002><loc0002>",
        "<loc\N{ARABIC-INDIC DIGIT ONE}001><loc0001><loc0002><loc0002> other digits",
    ],
)
def test_what_is_no_region_is_passed_over(text):
    assert parse_regions(text) == []


def test_broken_codes_of_a_mask_leave_the_box():
    (found,) = parse_regions("<loc0000><loc0000><loc0010><loc0010><seg001><seg002> cat")
    assert found.mask == ()
    codes = "<seg128>" * 16
    assert parse_regions(f"<loc0000><loc0000><loc0010><loc0010>{codes} cat") == []


def test_texts_without_end_are_read_up_to_a_bound():
    assert len(parse_regions("<loc0000><loc0000><loc0010><loc0010> x ; " * 5000)) == 1000


@given(st.text(alphabet="<loceg0123456789> ;\n", max_size=200))
def test_any_text_gives_valid_regions(text):
    for region in parse_regions(text):
        assert 0 <= region.box.top < region.box.bottom <= 1
        assert 0 <= region.box.left < region.box.right <= 1
        assert parse_regions(write_regions([region])) == [region]


@pytest.mark.parametrize(
    ("region", "told"),
    [
        (Region("a;b", Box(0, 0, 1, 1)), "has ;, < or a line break"),
        (Region("dog", Box(0, 0, 1.2, 1)), "lies outside of the image"),
        (Region("dog", Box(0.5, 0, 0.5001, 1)), "has no area"),
        (Region("dog", Box(0, 0, 1, 1), (1, 2)), "is not 16 codes"),
        (Region("dog", Box(0, 0, 1, 1), (128,) * 16), "is not 16 codes"),
    ],
)
def test_what_cannot_be_written_is_told(region, told):
    with pytest.raises(ValueError, match=told):
        write_regions([region])


@given(BOXES, BOXES)
def test_iou_is_symmetric_and_1_for_the_same_box(one, other):
    assert one.iou(other) == pytest.approx(other.iou(one))
    assert 0 <= one.iou(other) <= 1
    assert one.iou(one) == pytest.approx(1)


def test_iou_of_halves_that_share_a_third():
    assert Box(0, 0, 1, 0.6).iou(Box(0, 0.2, 1, 0.8)) == pytest.approx(0.4 / 0.8)
    assert Box(0, 0, 0.1, 0.1).iou(Box(0.5, 0.5, 1, 1)) == 0
