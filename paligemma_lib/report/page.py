"""Renders a report as one self-contained HTML file.

    write_report("report.html", Report("Captions of Flickr8k", summary=["..."], examples=examples))

A Content-Security-Policy allows only images embedded in the page and its one style sheet, which it
identifies by hash: no script, no connection, no form.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from xml.etree.ElementTree import Element

from paligemma_lib.report.content import Report
from paligemma_lib.report.gallery import gallery
from paligemma_lib.report.markup import element, to_html
from paligemma_lib.report.scores import score_table
from paligemma_lib.report.training import charts_section, parameter_section
from paligemma_lib.runtime.atomic import atomic_write, path_of
from paligemma_lib.runtime.bounds import whole

MAX_SIDE = 8192  # pixels of an image on a page


def write_report(
    path: str | os.PathLike[str], report: Report, *, images: int = 48, side: int = 384
) -> Path:
    """Writes the page atomically and returns its path.

    Args:
      path: file name that ends in .html or .htm.
      report: contents of the page.
      images: maximum number of images shown; each takes 20 to 50 kB at the default `side`.
      side: pixels; the longer side of an image is scaled down to it.

    Raises:
      FileNotFoundError: the folder of `path` does not exist.
      ValueError: `path` does not end in .html or .htm, or a number is out of range.
    """
    path = path_of(path).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML file, got {path}: name it {path.stem}.html")
    page = render(report, images=images, side=side).encode("utf-8")
    with atomic_write(path) as file:
        file.write(page)
    return path


def render(report: Report, *, images: int = 48, side: int = 384) -> str:
    """Returns the page as text; see `write_report`."""
    images = whole("report: images", images, 0)
    side = whole("report: side", side, 1, MAX_SIDE)
    groups = report.parameters
    sections = [
        ("scores", "Scores", score_table(report) if report.scores else []),
        ("images", "Images", gallery(report, images, side) if report.examples else []),
        ("training", "Training", charts_section(report.charts) if report.charts else []),
        ("parameters", "Parameters", parameter_section(groups) if groups else []),
        ("configuration", "Configuration", _pairs(report.config)),
        ("environment", "Environment", _pairs(report.environment)),
        ("files", "Files", _pairs(report.files)),
    ]
    present = [(name, title, parts) for name, title, parts in sections if parts]
    main = element(
        "main", {"id": "main", "tabindex": -1}, *_summary(report), *map(_section, present)
    )
    links = (
        element("li", {}, element("a", {"href": f"#{name}"}, title)) for name, title, _ in present
    )
    header = element("header", {}, element("h1", {}, report.title))
    if report.subtitle:
        header.append(element("p", {"class": "subtitle"}, report.subtitle))
    if present:
        header.append(element("nav", {"aria-label": "Sections"}, element("ul", {}, *links)))
    skip = element("a", {"class": "skip", "href": "#main"}, "Skip to the contents")
    page = element(
        "html", {"lang": "en"}, _head(report.title), element("body", {}, skip, header, main)
    )
    return "<!DOCTYPE html>\n" + to_html(page) + "\n"


def _head(title: str) -> Element:
    style = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    # Browsers hash the text between the <style> tags. The serializer does not escape it there, so
    # that text is `style` itself.
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("meta", {"name": "referrer", "content": "no-referrer"}),
        element("title", {}, title),
        element("style", {}, style),
    )


def _section(section: tuple[str, str, Sequence[Element]]) -> Element:
    name, title, parts = section
    heading = element("h2", {"id": f"{name}-title"}, title)
    return element("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, *parts)


def _summary(report: Report) -> Iterator[Element]:
    for number, sentence in enumerate(report.summary):
        yield element("p", {"class": "lead" if number == 0 else "summary"}, sentence)
    if report.warnings:
        heading = element("h2", {"id": "warnings-title"}, "Warnings")
        said = element("ul", {}, *(element("li", {}, text) for text in report.warnings))
        attributes = {"class": "warnings", "aria-labelledby": "warnings-title"}
        yield element("section", attributes, heading, said)


def _pairs(values: Mapping[str, object]) -> list[Element]:
    """Returns a list of names and values, or no element if `values` is empty."""
    pairs = element("dl", {})
    for name, value in _flat(values):
        term, said = element("dt", {}, name), element("dd", {}, str(value))
        pairs.append(element("div", {}, term, said))
    # Written with len(): the truth value of an ElementTree element is deprecated.
    return [pairs] if len(pairs) else []


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
