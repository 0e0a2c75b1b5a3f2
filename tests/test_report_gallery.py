"""A report's images: which are shown, how large, in which forms they may come."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_cases import Page, examples
from report_cases import image as photo

from paligemma_lib.report import Example, Report, render
from paligemma_lib.report.gallery import choose
from paligemma_lib.report.thumbnails import data_uri, thumbnail


def test_best_and_worst_come_first_and_others_evenly_between():
    groups = choose(examples(100), "CIDEr", most=30)
    captions = [[e.caption for e in group.examples] for group in groups]
    assert captions[0] == [f"caption {k}" for k in range(99, 91, -1)]
    assert captions[1] == [f"caption {k}" for k in range(8)]
    assert captions[2] == [f"caption {91 - k * 84 // 14}" for k in range(14)]
    assert [group.folded for group in groups] == [False, False, True]
    assert groups[2].title == "14 of the 84 others, from better to worse"


@given(st.integers(0, 60), st.integers(0, 60), st.booleans(), st.integers(1, 5))
def test_no_example_is_shown_twice_and_never_more_than_allowed(count, most, ranked, every):
    given_ = [
        Example(e.image_id, e.image, e.caption, scores=e.scores if k % every == 0 else {})
        for k, e in enumerate(examples(count))
    ]
    shown = [
        e.image_id for g in choose(given_, "CIDEr" if ranked else "", most) for e in g.examples
    ]
    assert len(shown) == len(set(shown)) == min(count, most)


def test_examples_without_a_score_are_neither_best_nor_worst():
    unscored = [Example("none", photo(), ""), Example("nan", photo(), "", scores={"C": np.nan})]
    scored = [Example(f"{k}", photo(), "", scores={"C": float(k)}) for k in range(20)]
    best, worst, others = choose([*unscored, *scored], "C", most=48)
    assert best.examples[0].image_id == "19"
    assert worst.examples[0].image_id == "0"
    assert [e.image_id for e in others.examples[-2:]] == ["none", "nan"]


def test_the_page_says_how_many_images_it_shows():
    page = Page(render(Report("", examples=examples(50)), images=10, side=40))
    assert "10 of 50 images are shown" in page.text
    assert len(page.all("img")) == 10
    assert all(max(int(a["width"]), int(a["height"])) == 40 for a in page.all("img"))


def test_a_remark_stands_below_its_caption():
    shown = [Example("a.jpg", photo(), "two dogs", remark="Not true: two"), *examples(1)]
    page = Page(render(Report("A run", examples=shown)))
    assert page.texts.count("Not true: two") == 1
    assert page.texts.index("Not true: two") == page.texts.index("two dogs") + 1


def test_size_is_bounded_whatever_the_images():
    noise = photo(height=900, width=1200)  # compresses worst
    many = [Example(f"{k}", noise, "c") for k in range(60)]
    bounded = render(Report("", examples=many), images=6, side=384)
    assert len(bounded) < 6 * 384 * 384 + 100_000


def test_a_image_that_cannot_be_read_leaves_the_reason(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no more")
    several = [
        Example("gone", tmp_path / "gone.jpg", "first"),
        Example("broken", broken, "second"),
        Example("floats", np.zeros((4, 4, 3), np.float32), "third"),
    ]
    page = Page(render(Report("", examples=several)))
    reasons = [text for text in page.texts if text.startswith("No image:")]
    assert f"{tmp_path / 'gone.jpg'} does not exist" in reasons[0]
    assert "broken.jpg could not be read as an image" in reasons[1]
    assert "float32[4, 4, 3], expected uint8[H, W, 3]" in reasons[2]
    assert {"first", "second", "third"} <= set(page.texts)


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "image", "array", "grey", "function"])
def test_images_come_in_many_forms(tmp_path, kind):
    array = np.full((50, 100, 3), (200, 30, 40), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path)
    forms = {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "image": Image.open(path),
        "array": array,
        "grey": array[..., 0],
        "function": path.read_bytes,
    }
    small = thumbnail(forms[kind], 20)
    assert (small.mode, small.size) == ("RGB", (20, 10))
    expected = (200, 200, 200) if kind == "grey" else (200, 30, 40)
    assert small.getpixel((5, 5)) == expected
    reread = Image.open(io.BytesIO(base64.b64decode(data_uri(small).partition(",")[2])))
    assert (reread.format, reread.size) == ("JPEG", (20, 10))


def test_the_callers_image_is_left_alone():
    image = Image.fromarray(photo())
    thumbnail(image, 8)
    assert image.size == (80, 60)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_are_shown(mode):
    image = Image.fromarray(photo()).convert("RGB" if mode == "P" else "L")
    image = Image.new("I;16", (8, 8)) if mode == "I;16" else image.convert(mode)
    assert data_uri(thumbnail(image, 16)).startswith("data:image/jpeg")
