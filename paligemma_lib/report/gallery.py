"""Chooses the images that a report shows, and builds a card for each.

groups = choose(report.examples, rank_by="CIDEr", most=48)    # best, worst, others
gallery(report, most=48, side=384)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from paligemma_lib.regions import MaskCodec, without_tokens
from paligemma_lib.report.charts import bar
from paligemma_lib.report.content import Alternative, Example, Report
from paligemma_lib.report.markup import element
from paligemma_lib.report.numbers import percent, short
from paligemma_lib.report.region_drawing import with_regions
from paligemma_lib.report.thumbnails import data_uri, thumbnail

ENDS = 8  # maximum number of best, and of worst, examples shown before the others


@dataclass(frozen=True)
class Group:
    """Examples under one heading; if `folded`, hidden until the reader unfolds them."""

    title: str
    examples: Sequence[Example]
    folded: bool = False


def choose(examples: Sequence[Example], rank_by: str, most: int) -> list[Group]:
    """Returns at most `most` examples: the best, the worst, and others spread evenly over the rest.

    If `rank_by` is empty, they are spread evenly over all examples, in their order. Examples
    without a finite score of that name come after the others.
    """
    if not rank_by:
        shown = _spread(examples, most)
        first, more = shown[: 2 * ENDS], shown[2 * ENDS :]
        return [
            Group("", first),
            *([Group(f"{len(more)} more", more, folded=True)] if more else []),
        ]
    scores = [example.scores.get(rank_by, math.nan) for example in examples]
    order = [k for k, score in enumerate(scores) if math.isfinite(score)]
    ranked = [examples[k] for k in sorted(order, key=lambda k: -scores[k])]
    unranked = [examples[k] for k, score in enumerate(scores) if not math.isfinite(score)]
    # Best and worst each take at most a third of the examples shown, and of those ranked: they
    # cannot overlap.
    ends = min(ENDS, most // 3, len(ranked) // 3)
    if ends == 0 or len(examples) <= 2 * ENDS:
        return [Group(f"From best to worst by {rank_by}", _spread(ranked + unranked, most))]
    rest = ranked[ends:-ends] + unranked
    between = _spread(rest, most - 2 * ends)
    title = f"{len(between):,} of the {len(rest):,} others, from better to worse"
    return [
        Group(f"Best by {rank_by}", ranked[:ends]),
        # The slice reads the last `ends` backwards: the worst first.
        Group(f"Worst by {rank_by}", ranked[: -ends - 1 : -1]),
        Group(title, between, folded=True),
    ]


def gallery(report: Report, most: int, side: int) -> list[Element]:
    """Returns the contents of the section: how many images are shown, then the cards by group."""
    groups = choose(report.examples, report.rank_by, most)
    shown = sum(len(group.examples) for group in groups)
    count = f"{shown:,} of {len(report.examples):,} images are shown"
    said = f"{count}, scaled down to at most {side} pixels on the longer side."
    parts = [element("p", {"class": "note"}, said)]
    for group in groups:
        cards = element("div", {"class": "cards"}, *(card(e, side, report) for e in group.examples))
        if group.folded:
            summary = element("summary", {}, group.title)
            parts.append(element("details", {"class": "more"}, summary, cards))
        else:
            parts += [*([element("h3", {}, group.title)] if group.title else []), cards]
    return parts


def card(example: Example, side: int, report: Report) -> Element:
    """Builds the card of an image: generated caption, scores, references and alternatives."""
    parts = [_image(example, side, report.codec)]
    parts.append(element("p", {"class": "generated", "dir": "auto"}, _said(example.caption)))
    if example.remark:
        parts.append(element("p", {"class": "remark"}, example.remark))
    if example.before is not None:
        label = element("small", {}, report.before_label)
        parts.append(element("p", {"class": "former", "dir": "auto"}, label, _said(example.before)))
    facts = (
        element("span", {}, f"{name} ", element("b", {}, short(value)))
        for name, value in example.scores.items()
    )
    if example.scores:
        parts.append(element("p", {"class": "facts"}, *facts))
    if example.references:
        said = (element("li", {"dir": "auto"}, _said(text)) for text in example.references)
        parts.append(element("ul", {"class": "references", "aria-label": "By people"}, *said))
    if example.alternatives:
        parts.append(_alternatives(example.alternatives))
    parts.append(element("p", {"class": "name"}, example.image_id))
    return element("article", {"class": "card"}, *parts)


def _image(example: Example, side: int, codec: MaskCodec | None) -> Element:
    try:
        image = thumbnail(example.image, side)
        image = with_regions(image, example.caption, example.references, codec)
    except (ValueError, FileNotFoundError) as error:
        return element("p", {"class": "image missing"}, f"No image: {error}")
    text = f"Image {example.image_id}"
    if example.references:
        text += f", described by a person as: {_said(example.references[0])}"
    size = {"width": image.width, "height": image.height}
    return element("img", {"class": "image", "src": data_uri(image), "alt": text, **size})


def _said(text: str) -> str:
    """Returns a text without the tokens of regions, which are drawn."""
    return without_tokens(text) or "(nothing)"


def _alternatives(alternatives: Sequence[Alternative]) -> Element:
    rows = [
        element(
            "li",
            {},
            element("span", {"class": "share-of"}, percent(each.probability)),
            bar(each.probability),
            element("span", {"class": "text", "dir": "auto"}, _said(each.text)),
        )
        for each in alternatives
    ]
    summary = element("summary", {}, f"{len(rows)} alternative{'s' * (len(rows) > 1)}")
    return element("details", {"class": "alternatives"}, summary, element("ol", {}, *rows))


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    if len(examples) <= most:
        return list(examples)
    # Evenly spaced indices: 3 of 10 are 0, 3, 6.
    return [examples[k * len(examples) // most] for k in range(most)]
