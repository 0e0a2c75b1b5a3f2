"""The report as a page: its parts in order, texts as they are, and what is refused."""

import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import HOSTILE, Page, examples, full_report

from paligemma_lib.report import (
    Alternative,
    Chart,
    Example,
    Line,
    ParameterGroup,
    Report,
    Score,
    render,
    write_report,
)
from paligemma_lib.report.markup import element, to_html

WITHOUT = """
import sys
sys.modules["jax"] = sys.modules["tensorflow"] = None
from paligemma_lib.report import Report, render
print(len(render(Report("Title"))))
"""
SECTIONS = ["scores", "images", "training", "parameters", "configuration", "environment", "files"]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(full_report()))


def sections(page: Page) -> list[str | None]:
    return [a["id"] for a in page.all("section") if "id" in a]


def test_it_needs_neither_tensorflow_nor_jax():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert int(done.stdout) > 1000, done.stderr


def test_every_part_is_on_the_page_in_its_order(page):
    assert sections(page) == SECTIONS
    assert [a["href"] for a in page.all("a")] == ["#main"] + [f"#{name}" for name in SECTIONS]
    assert len(page.all("section", "warnings")) == 1


def test_parts_that_are_empty_are_left_out():
    page = Page(render(Report("Only a title")))
    assert sections(page) == [] == page.all("section") == page.all("nav")
    assert "Only a title" in page.text
    one = Page(render(Report("One", config={"seed": 0})))
    assert sections(one) == ["configuration"]


@pytest.mark.parametrize(
    "place",
    [
        *("Title", "Subtitle", "Lead", "Sentence", "Warning", "Note", "Score", "Now", "Then"),
        *(
            "Name",
            "Caption",
            "Former",
            "Reference",
            "Alternative",
            "Example score",
            "Chart",
            "Line",
            "Unit",
        ),
        *("Axis", "Group", "Key", "Value", "Tool", "Version", "File", "/Path"),
    ],
)
def test_text_appears_as_it_is_wherever_it_stands(page, place):
    assert any(f"{place} {HOSTILE}" in text for text in page.texts), page.texts


def test_no_text_becomes_markup(page):
    assert page.all("script") == []
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in page.all("img"))
    assert all("style" not in attributes for _, attributes in page.elements)  # the policy has none


def test_the_policy_allows_images_within_and_the_one_style_sheet(page):
    policies = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
    style = re.search("<style>(.*)</style>", render(full_report()), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    ]


def test_nothing_is_loaded_from_elsewhere(page):
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "object", "form"})
    assert not re.search(r"https?:|url\(|@import", render(full_report()))


def test_images_have_alternative_text_of_a_person(page):
    assert all(a["alt"] for a in page.all("img"))
    assert f"Image Name {HOSTILE}, described by a person as: Reference {HOSTILE}" in [
        a["alt"] for a in page.all("img")
    ]


@given(st.text())
def test_any_text_survives_but_for_what_html_cannot_hold(text):
    markup = to_html(element("p", {"title": text}, text))
    page = Page(markup)
    kept = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
    assert page.elements == [("p", {"title": kept})]
    assert "".join(page.texts) == kept
    markup.encode("utf-8")


def test_children_keep_their_order():
    node = element("p", {}, "a", "b", element("b", {}, "c"), "d", "e", element("i", {}))
    assert to_html(node) == "<p>ab<b>c</b>de<i></i></p>"


def test_scores_show_intervals_and_only_the_columns_there_are():
    page = Page(render(Report("", scores=[Score("CIDEr", 87.25, 83.94, 90.81, before=12.4)])))
    assert {"87.2", "83.9 to 90.8", "12.4"} <= set(page.texts)
    assert "Permuted" not in page.texts
    assert "95%" in page.text
    plain = Page(render(Report("", scores=[Score("CIDEr", 0.8125)])))
    assert "0.812" in plain.texts
    assert "Before" not in plain.texts
    assert "confidence" not in plain.text


def test_a_score_that_could_not_be_computed_is_a_dash():
    assert "\N{EN DASH}" in Page(render(Report("", scores=[Score("CIDEr", float("nan"))]))).texts


def test_parameters_are_counted(page):
    assert any("250 of 1,000 parameters trained, 25%" in text for text in page.texts)
    assert {"trainable", "frozen", "10", "75%"} <= set(page.texts)


def test_nested_configuration_becomes_dotted_names(page):
    assert {"optimizer.rate", "5e-05"} <= set(page.texts)


def test_writing_replaces_the_file_only_when_the_page_is_whole(tmp_path):
    path = tmp_path / "report.html"
    assert write_report(path, Report("First")) == path
    assert path.read_text("utf-8") == render(Report("First"))
    with pytest.raises(ValueError, match="images=-1"):
        write_report(path, Report("Second"), images=-1)
    assert "First" in path.read_text("utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("report.pdf", ValueError, "name it report.html"),
        ("missing/report.html", FileNotFoundError, "missing is not a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        write_report(tmp_path / name, Report(""))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Score("A", 1.0, low=0.5), "only one bound"),
        (lambda: Score("A", 1.0, low=2.0, high=1.0), "low=2.0 is above high=1.0"),
        (lambda: Alternative("a", -3.2), "take the exponential"),
        (lambda: Alternative("a", float("nan")), "expected 0 to 1"),
        (lambda: Line("loss", [1, 2], [1.0]), "2 x values and 1 y values"),
        (lambda: Line("loss", [1, 1], [1.0, 2.0]), "increasing"),
        (lambda: Line("loss", [1, float("nan")], [1.0, 2.0]), "finite"),
        (lambda: Chart("Loss", []), "0 lines, expected 1 to 3"),
        (lambda: Chart("Loss", [Line("a", [], [])] * 4), "split it"),
        (lambda: Report("", summary="one text"), "summary must be a sequence"),
        (lambda: Example("1", "1.jpg", "", references="a dog"), "references of '1' must be"),
        (lambda: Report("", examples=examples(1), rank_by="SPICE"), r"have scores \['CIDEr'\]"),
        (lambda: ParameterGroup("a", -1, 5, trainable=True), "tensors=-1, expected a whole number"),
    ],
)
def test_contents_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2.2 between two colours, #rrggbb."""

    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_the_contrast_that_wcag_asks_for_in_both_colour_schemes():
    style = Path(render.__code__.co_filename).with_name("style.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for text in ("ink", "quiet", "line-0", "line-1", "line-2"):
            assert contrast(colours[text], colours["page"]) >= 4.5, text
        assert contrast(colours["quiet"], colours["well"]) >= 4.5
        assert contrast(colours["ink"], colours["warning"]) >= 4.5
        assert contrast(colours["warning-edge"], colours["page"]) >= 3
