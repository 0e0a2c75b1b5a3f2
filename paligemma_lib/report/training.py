"""Builds the sections of a report on a training run: its curves and its trained parameters.

charts_section(report.charts)
parameter_section(report.parameters)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from paligemma_lib.report.charts import Point, bar, downsampled, line_chart, swatch
from paligemma_lib.report.content import Chart, ParameterGroup
from paligemma_lib.report.markup import element
from paligemma_lib.report.numbers import percent, short


def charts_section(charts: Sequence[Chart]) -> list[Element]:
    """Returns all charts side by side, and below them a note that applies to all."""
    lines = [[downsampled(line) for line in chart.lines] for chart in charts]
    figures = [_figure(chart, drawn) for chart, drawn in zip(charts, lines, strict=True)]
    note = "The number beside a name is the last value drawn."
    if any(point.low < point.high for each in lines for points in each for point in points):
        note += " Lines are means of neighbouring values, bands their lowest and highest."
    return [
        element("div", {"class": "charts"}, *figures),
        element("p", {"class": "note"}, note),
    ]


def parameter_section(groups: Sequence[ParameterGroup]) -> list[Element]:
    """Returns a sentence and a table with a row for every group and for the total."""
    total = sum(group.parameters for group in groups)
    trained = sum(group.parameters for group in groups if group.trainable)
    share = trained / max(total, 1)
    names = ("Group", "Tensors", "Parameters", "Share", "")
    kinds = ("", "number", "number", "number", "state")
    heads = [
        element("th", {"scope": "col", "class": kind}, name)
        for name, kind in zip(names, kinds, strict=True)
    ]
    rows = [_parameter_row(group, group.parameters / max(total, 1)) for group in groups]
    tensors = sum(group.tensors for group in groups)
    last = element("th", {"scope": "row"}, "Total")
    cells = [element("td", {"class": "number"}, f"{n:,}") for n in (tensors, total)]
    cells.append(element("td", {"class": "number"}, "100%"))
    sums = element("tr", {}, last, *cells, element("td", {"class": "state"}))
    table = element("table", {"class": "parameters"})
    table.append(element("thead", {}, element("tr", {}, *heads)))
    table.append(element("tbody", {}, *rows))
    table.append(element("tfoot", {}, sums))
    said = f"{trained:,} of {total:,} parameters trained, {percent(share)}."
    return [element("p", {}, said), table]


def _parameter_row(group: ParameterGroup, share: float) -> Element:
    state = "trainable" if group.trainable else "frozen"
    return element(
        "tr",
        {"class": state},
        element("th", {"scope": "row"}, element("code", {}, group.name)),
        element("td", {"class": "number"}, f"{group.tensors:,}"),
        element("td", {"class": "number"}, f"{group.parameters:,}"),
        element("td", {"class": "number"}, bar(share), element("span", {}, percent(share))),
        element("td", {"class": "state"}, state),
    )


def _figure(chart: Chart, lines: Sequence[Sequence[Point]]) -> Element:
    unit = [element("small", {}, chart.unit)] if chart.unit else []
    figure = element("figure", {}, element("figcaption", {}, chart.title, *unit))
    legend = element("ul", {"class": "legend"})
    for number, (line, points) in enumerate(zip(chart.lines, lines, strict=True)):
        last = short(points[-1].y) if points else "no finite value"
        label = element("span", {}, f"{line.name} ", element("b", {}, last))
        legend.append(element("li", {}, swatch(number), label))
    figure.append(legend)
    if any(lines):
        figure.append(line_chart(chart, lines))
        figure.append(_values(chart, lines))
    for line in chart.lines:
        if wrong := sum(not math.isfinite(y) for y in line.y):
            said = f"{wrong:,} of {len(line.y):,} values of {line.name} are not finite."
            figure.append(element("p", {"class": "note"}, said))
    return figure


def _values(chart: Chart, lines: Sequence[Sequence[Point]]) -> Element:
    """Returns the chart's values as a table, for keyboards, screen readers and copying."""
    names = [chart.x_name, *(line.name for line in chart.lines)]
    heads = element(
        "tr", {}, *(element("th", {"scope": "col", "class": "number"}, n) for n in names)
    )
    # Lines may have points at different x: a row for each x that occurs, with empty cells between.
    rows = []
    for x in sorted({point.x for points in lines for point in points}):
        found = [next((short(p.y) for p in points if p.x == x), "") for points in lines]
        rows.append(
            element("tr", {}, *(element("td", {"class": "number"}, c) for c in (short(x), *found)))
        )
    table = element("table", {}, element("thead", {}, heads), element("tbody", {}, *rows))
    area = {
        "class": "values",
        "tabindex": 0,
        "role": "region",
        "aria-label": f"{chart.title}, values",
    }
    return element("details", {}, element("summary", {}, "Values"), element("div", area, table))
