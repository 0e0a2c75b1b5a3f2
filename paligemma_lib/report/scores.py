"""Builds the table of scores, with the numbers and a drawing of each row.

table = score_table(report)       # elements: the table, and notes on how to read it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from paligemma_lib.report.charts import interval_chart
from paligemma_lib.report.content import Report, Score
from paligemma_lib.report.markup import element
from paligemma_lib.report.numbers import fixed

PERMUTED = (
    "Permuted: every caption is scored against another image's references. That is its score "
    "without looking at the image."
)


def score_table(report: Report) -> list[Element]:
    """Returns a table with a row for each score, and notes. Columns without values are left out."""
    columns = [("value", report.score_label)]
    if any(score.before is not None for score in report.scores):
        columns.append(("before", report.before_label))
    if any(score.permuted is not None for score in report.scores):
        columns.append(("permuted", "Permuted"))
    heads = [element("th", {"scope": "col"}, "Metric")]
    for name, label in columns:
        mark = element("span", {"class": f"mark {name}", "aria-hidden": "true"})
        heads.append(element("th", {"scope": "col", "class": "number"}, mark, label))
    heads.append(element("th", {"scope": "col", "class": "drawn"}, "Each on its own scale"))
    table = element("table", {"class": "scores"})
    table.append(element("thead", {}, element("tr", {}, *heads)))
    table.append(element("tbody", {}, *(_row(score, columns) for score in report.scores)))
    notes = []
    if any(score.low is not None for score in report.scores):
        notes.append(f"Intervals and shaded bars: {report.confidence:.0%} confidence.")
    if columns[-1][0] == "permuted":
        notes.append(PERMUTED)
    return [table, *([element("p", {"class": "note"}, " ".join(notes))] if notes else [])]


def _row(score: Score, columns: Sequence[tuple[str, str]]) -> Element:
    values = [score.value, score.low, score.high, score.before, score.permuted]
    finite = [abs(value) for value in values if value is not None and math.isfinite(value)]
    # One number of decimals for all cells of a row makes them comparable: 87.4, or 0.312.
    decimals = 1 if max(finite, default=0) >= 10 else 3
    name = element("th", {"scope": "row"}, score.name)
    if score.note:
        name.append(element("small", {}, score.note))
    cells = [name]
    for key, label in columns:
        # On a narrow screen the style sheet shows each cell's data-label in place of the heads.
        cell = element("td", {"class": f"number {key}", "data-label": label})
        value = getattr(score, key)
        if value is not None:
            cell.append(element("span", {}, fixed(value, decimals)))
        if key == "value" and score.low is not None and score.high is not None:
            bounds = f"{fixed(score.low, decimals)} to {fixed(score.high, decimals)}"
            cell.append(element("small", {}, bounds))
        cells.append(cell)
    cells.append(element("td", {"class": "drawn"}, interval_chart(score)))
    return element("tr", {}, *cells)
