"""Draws charts as inline SVG, without scripts: CSS alone shows values under the pointer.

    interval_chart(score)       # the interval, the value, and what it is compared with
    line_chart(chart)           # one to three lines over the steps of a run
    bar(0.37)                   # a share

Sizes are in units of a drawing 360 units wide. A unit is about a pixel both on a phone and in a
column of a desktop page. Colours come from style.css, by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from paligemma_lib.report.content import Chart, Line, Score
from paligemma_lib.report.markup import element
from paligemma_lib.report.numbers import short, ticks

POINTS = 90  # maximum per line; of a longer one, neighbouring values are averaged
WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 352, 24, 168  # edges of the plot; labels lie outside
MARKED = 24  # points; a line with at most this many gets a dot at each
LAST = -1


@dataclass(frozen=True)
class Point:
    """Mean of neighbouring values, at the x of the last one, with their minimum and maximum."""

    x: float
    y: float
    low: float
    high: float


def downsampled(line: Line) -> list[Point]:
    """Averages a line to at most POINTS points of equally many values; skips those not finite."""
    # The plot is 352 - 42 = 310 units wide, 3.4 for each of 90 points; more would merge.
    # The band from `low` to `high` keeps the extremes that a mean hides.
    size = max(1, math.ceil(len(line.x) / POINTS))
    points = []
    for first in range(0, len(line.x), size):
        values = [float(y) for y in line.y[first : first + size] if math.isfinite(y)]
        if values:
            x = float(line.x[min(first + size, len(line.x)) - 1])
            # Rounding may put a mean just outside its values: fsum([0.1] * 3) / 3 > 0.1. Clamp it.
            mean = min(max(math.fsum(values) / len(values), min(values)), max(values))
            points.append(Point(x, mean, min(values), max(values)))
    return points


def bar(share: float) -> Element:
    """Draws a share from 0 to 1 as a bar; screen readers skip it and read the number beside it."""
    return element(
        "svg",
        {"class": "bar", "aria-hidden": "true"},
        element("rect", {"class": "track", "width": "100%", "height": "100%", "rx": 3}),
        element("rect", {"class": "share", "width": f"{share:.2%}", "height": "100%", "rx": 3}),
    )


def interval_chart(score: Score) -> Element:
    """Draws a score on its own scale, which includes 0.

    A bar shows the interval, a dot the value, a ring `before` and a cross `permuted`.
    """
    given = (0.0, score.value, score.low, score.high, score.before, score.permuted)
    values = [value for value in given if value is not None and math.isfinite(value)]
    # A little room beyond the highest value; if all values are 0, `or` avoids a scale of length 0.
    low = min(values)
    high = max(values) + 0.04 * (max(values) - low) or 1.0

    def x(value: float) -> float:
        return round(10 + (value - low) / (high - low) * 260, 1)

    parts = [_line(x(low), 15, x(high), 15, "axis")]
    for tick in ticks(low, high, 4):
        parts += [
            _line(x(tick), 12, x(tick), 18, "axis"),
            _text(x(tick), 31, short(tick), anchor="middle"),
        ]
    if score.low is not None and score.high is not None:
        width = max(x(score.high) - x(score.low), 1.0)
        box = {"x": x(score.low), "y": 10, "width": round(width, 1), "height": 10, "rx": 2}
        parts.append(element("rect", {"class": "interval", **box}))
    if score.before is not None and math.isfinite(score.before):
        parts.append(
            element("circle", {"class": "before", "cx": x(score.before), "cy": 15, "r": 4})
        )
    if score.permuted is not None and math.isfinite(score.permuted):
        at = x(score.permuted)
        cross = f"M{at - 4} 11l8 8m0 -8l-8 8"
        parts.append(element("path", {"class": "permuted", "d": cross}))
    if math.isfinite(score.value):
        parts.append(element("circle", {"class": "value", "cx": x(score.value), "cy": 15, "r": 4}))
    # The drawing is hidden from screen readers, as the row's numbers say the same.
    return element(
        "svg", {"class": "forest", "viewBox": "0 0 280 36", "aria-hidden": "true"}, *parts
    )


def line_chart(chart: Chart, lines: Sequence[Sequence[Point]]) -> Element:
    """Draws a chart's lines, with a band from minimum to maximum where values were averaged.

    Args:
      chart: the chart.
      lines: result of `downsampled` for each line of the chart; at least one must not be empty.
    """
    plot = _Plot.around(chart, lines)
    parts = [*plot.axes(chart.x_name)]
    for number, points in enumerate(lines):
        parts += plot.drawn(points, f"line-{number}")
    longest = max(lines, key=len)
    parts += [plot.reading(chart, lines, longest, k) for k in range(len(longest))]
    said = "; ".join(
        f"{line.name} from {short(points[0].y)} to {short(points[LAST].y)}"
        for line, points in zip(chart.lines, lines, strict=True)
        if points
    )
    label = f"{chart.title} over {chart.x_name}: {said}"
    attributes = {"class": "chart", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img"}
    return element("svg", {**attributes, "aria-label": label}, *parts)


def swatch(number: int) -> Element:
    """Draws a sample of the stroke of line `number`, for a legend."""
    stroke = element("path", {"class": f"stroke line-{number}", "d": "M0 6h22"})
    return element(
        "svg", {"class": "swatch", "viewBox": "0 0 22 12", "aria-hidden": "true"}, stroke
    )


@dataclass(frozen=True)
class _Plot:
    """Ranges of both axes, which map values to places in the drawing, and the parts of a plot."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, chart: Chart, lines: Sequence[Sequence[Point]]) -> _Plot:
        points = [point for line in lines for point in line]
        x_low, x_high = min(p.x for p in points), max(p.x for p in points)
        y_low, y_high = min(p.low for p in points), max(p.high for p in points)
        # A constant line has no range: it gets 5 % of its value above and below, or 1 around 0.
        margin = 0.06 * (y_high - y_low) or 0.05 * abs(y_high) or 1.0
        y_low, y_high = y_low - margin, y_high + margin
        if chart.from_zero:
            y_low, y_high = min(0.0, y_low + margin), max(0.0, y_high)
        return cls(x_low, x_high if x_high > x_low else x_low + 1, y_low, y_high)

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (RIGHT - LEFT), 1)

    def y(self, value: float) -> float:
        # SVG counts y downwards, so larger values are further from BOTTOM.
        return round(BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (BOTTOM - TOP), 1)

    def axes(self, x_name: str) -> list[Element]:
        parts = []
        for tick in ticks(self.y_low, self.y_high):
            parts.append(_line(LEFT, self.y(tick), RIGHT, self.y(tick), "grid"))
            parts.append(_text(LEFT - 6, self.y(tick) + 3.5, short(tick), anchor="end"))
        marks = [tick for tick in ticks(self.x_low, self.x_high, 7) if self.x(tick) < RIGHT - 44]
        parts += [_text(self.x(tick), HEIGHT - 6, short(tick), anchor="middle") for tick in marks]
        parts.append(_text(RIGHT, HEIGHT - 6, short(self.x_high), anchor="end"))
        parts.append(_text(LEFT - 6, HEIGHT - 6, x_name, anchor="end"))
        return [*parts, _line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")]

    def drawn(self, points: Sequence[Point], name: str) -> list[Element]:
        parts = []
        if any(p.low < p.high for p in points):
            upper = [f"{self.x(p.x)},{self.y(p.high)}" for p in points]
            lower = [f"{self.x(p.x)},{self.y(p.low)}" for p in reversed(points)]
            # The band's outline runs along the maxima to the right and back along the minima.
            outline = " ".join([*upper, *lower])
            parts.append(element("polygon", {"class": f"band {name}", "points": outline}))
        path = " ".join(f"{self.x(p.x)},{self.y(p.y)}" for p in points)
        parts.append(element("polyline", {"class": f"stroke {name}", "points": path}))
        if len(points) <= MARKED:
            parts += [self.dot(p, name) for p in points]
        return parts

    def dot(self, point: Point, name: str) -> Element:
        centre = {"cx": self.x(point.x), "cy": self.y(point.y)}
        return element("circle", {"class": f"dot {name}", **centre, "r": 2.5})

    def reading(
        self, chart: Chart, lines: Sequence[Sequence[Point]], columns: Sequence[Point], k: int
    ) -> Element:
        """Draws a column that shows all lines' values at point k while the pointer is in it."""
        at = columns[k].x
        # Columns meet halfway between neighbouring points, so that the nearest point is shown.
        left = LEFT if k == 0 else (self.x(columns[k - 1].x) + self.x(at)) / 2
        right = RIGHT if k == len(columns) - 1 else (self.x(at) + self.x(columns[k + 1].x)) / 2
        width = round(right - left, 1)
        box = {"x": round(left, 1), "y": 0, "width": width, "height": HEIGHT}
        shown = [_line(self.x(at), TOP - 4, self.x(at), BOTTOM, "rule")]
        text = _text(LEFT, 13, f"{chart.x_name} {short(at)}")
        for number, points in enumerate(lines):
            reached = [p for p in points if p.x <= at]
            if reached:
                shown.append(self.dot(reached[LAST], f"line-{number}"))
                label = f"{chart.lines[number].name} {short(reached[LAST].y)}"
                text.append(element("tspan", {"class": f"text-{number}", "dx": 9}, label))
        return element(
            "g",
            {"class": "reading"},
            element("rect", {"class": "hit", **box}),
            element("g", {"class": "read"}, *shown, text),
        )


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Element:
    return element("line", {"class": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> Element:
    return element("text", {"x": x, "y": round(y, 1), "text-anchor": anchor}, text)
