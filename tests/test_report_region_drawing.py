"""Boxes in reports: where they are drawn, in which colour, and what stays as it is."""

import numpy as np
from mask_cases import square_arrays
from PIL import Image
from report_cases import Page

from paligemma_lib.regions import Box, MaskCodec, Region, write_regions
from paligemma_lib.report import Example, Report, contact_sheet, render
from paligemma_lib.report.region_drawing import COLOURS, with_regions

HALF = write_regions([Region("dog", Box(0.25, 0.25, 0.75, 0.75))])


def grey(width: int = 200, height: int = 100) -> Image.Image:
    return Image.new("RGB", (width, height), "#808080")


def colours(image: Image.Image, *places: tuple[int, int]) -> list[str]:
    return ["#{:02x}{:02x}{:02x}".format(*image.getpixel(place)) for place in places]


def test_a_box_has_lines_where_the_text_says():
    drawn = with_regions(grey(), HALF)
    assert drawn.size == (200, 100)
    lower_right = (150, 75)
    assert colours(drawn, lower_right, (100, 75), (150, 50)) == [COLOURS[0]] * 3
    assert colours(drawn, (100, 60), (10, 90), (180, 50)) == ["#808080"] * 3


def test_masks_lie_over_the_image_where_they_are_true():
    upper = Region("dog", Box(0, 0, 1, 0.5), (1,) * 8 + (0,) * 8)
    text = write_regions([upper, Region("cat", Box(0.1, 0.6, 0.9, 0.9))])
    drawn = with_regions(grey(200, 300), text, codec=MaskCodec(square_arrays()))
    inside, below, cat = (drawn.getpixel(place) for place in ((50, 100), (50, 200), (150, 150)))
    share = 140 / 255
    colour = [int(COLOURS[0][k : k + 2], 16) for k in (1, 3, 5)]
    want = [share * each + (1 - share) * 128 for each in colour]
    np.testing.assert_allclose(inside, want, atol=2)
    assert below == cat == (128, 128, 128)  # a region without a mask has a box alone
    assert with_regions(grey(200, 300), text).getpixel((50, 100)) == (128, 128, 128)


def test_each_label_has_its_colour_and_boxes_of_one_label_the_same():
    text = write_regions(
        Region(label, Box(top, 0.1, top + 0.1, 0.9))
        for label, top in (("dog", 0.3), ("cat", 0.5), ("dog", 0.8))
    )
    drawn = with_regions(grey(200, 300), text)
    assert colours(drawn, (160, 120), (160, 180), (160, 270)) == [
        COLOURS[0],
        COLOURS[1],
        COLOURS[0],
    ]


def test_boxes_by_people_are_dashed_and_have_no_label():
    drawn = np.asarray(with_regions(grey(), "nothing", [HALF])).reshape(-1, 3)
    found = {tuple(pixel) for pixel in drawn.tolist()}
    assert (255, 255, 255) in found
    assert not {tuple(bytes.fromhex(each[1:])) for each in COLOURS} & found


def test_a_text_without_regions_leaves_the_image_as_it_is():
    image = grey()
    assert with_regions(image, "a dog", ["A dog ."]) is image


def test_boxes_at_the_edges_and_endless_labels_are_drawn_inside():
    text = write_regions([Region("x" * 500, Box(0, 0, 1, 1)), Region("", Box(0.9, 0.9, 1, 1))])
    assert with_regions(grey(30, 20), text).size == (30, 20)
    assert with_regions(grey(1, 1), " ; ".join([HALF] * 500)).size == (1, 1)


def test_pages_and_sheets_show_boxes_and_not_their_tokens():
    pixels = np.asarray(grey())
    examples = [
        Example("1.jpg", pixels, f"{HALF} ; {HALF}", before=HALF, references=[HALF]),
        Example("2.jpg", pixels, "a < b"),
    ]
    page = Page(render(Report("Boxes", examples=examples)))
    assert "dog ; dog" in page.texts and "a < b" in page.texts
    assert "<loc" not in page.text
    first, second = (each["src"] for each in page.all("img", "image"))
    assert first != second
    with_box, without = (contact_sheet([(pixels, text)]) for text in (HALF, "dog"))
    assert with_box.size == without.size
    assert with_box.tobytes() != without.tobytes()


def test_sheets_lay_masks_over_images():
    codec = MaskCodec(square_arrays())
    masked = [(np.asarray(grey()), write_regions([Region("dog", Box(0, 0, 1, 0.5), (1,) * 16)]))]
    plain, veiled = (np.asarray(contact_sheet(masked, codec=each)) for each in (None, codec))
    changed = (plain != veiled).any(-1)
    # Half of the image, but for the lines of its box and its label.
    assert 0.4 < changed.sum() / (plain == 0x80).all(-1).sum() < 0.55
