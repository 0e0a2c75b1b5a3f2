import itertools
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import Page

from paligemma_lib.report import Chart, Line, Report, Score, render
from paligemma_lib.report.charts import POINTS, bar, downsampled, interval_chart, line_chart
from paligemma_lib.report.numbers import fixed, percent, short, ticks

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
finite = st.floats(-1e9, 1e9, allow_subnormal=False)


def drawn(chart: Chart) -> ElementTree.Element:
    return line_chart(chart, [downsampled(line) for line in chart.lines])


def by_class(node: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in node.iter() if name in e.get("class", "").split()]


def coordinates(polyline: ElementTree.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in polyline.get("points").split()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (5e-5, "5e-5"),
        (2.714e-9, "2.71e-9"),
        (0.0317, "0.0317"),
        (1.78125, "1.781"),
        (41.07, "41.07"),
        (1200, "1,200"),
        (12345.6, "12,346"),
        (2.5e7, "2.5e7"),
        (1e6, "1e6"),
        (-0.25, MINUS + "0.25"),
        (math.nan, DASH),
        (math.inf, DASH),
    ],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_numbers_beside_each_other_have_the_same_decimals():
    assert [fixed(v, 1) for v in (7.25, -3, 1234.56, math.nan)] == [
        "7.2",
        MINUS + "3.0",
        "1,234.6",
        DASH,
    ]


def test_small_shares_are_not_nothing():
    shares = [0, 1e-5, 0.004, 0.058, 0.5, 0.9996, 1]
    assert [percent(s) for s in shares] == ["0%", "<0.1%", "0.4%", "5.8%", "50%", "100%", "100%"]


@given(finite, st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_are_round_few_and_within(low, span, most):
    high = low + span
    if span < 1e-9 * max(abs(low), abs(high)):
        return  # no room for a difference between floats
    found = ticks(low, high, most)
    step = found[1] - found[0] if len(found) > 1 else None
    assert len(found) <= most
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in found)
    if step:
        assert f"{step:.0e}"[0] in "125"


def test_axes_have_enough_ticks():
    assert ticks(0, 1200, 7) == [0, 200, 400, 600, 800, 1000, 1200]
    assert ticks(1.6, 4.5) == [2, 3, 4]


@given(st.lists(finite, max_size=400))
def test_downsampling_keeps_range_ends_and_order(values):
    points = downsampled(Line("loss", list(range(len(values))), values))
    assert len(points) <= POINTS
    if values:
        assert min(p.low for p in points) == min(values)
        assert max(p.high for p in points) == max(values)
        assert points[-1].x == len(values) - 1
        assert all(p.low <= p.y <= p.high for p in points)
        assert all(a.x < b.x for a, b in itertools.pairwise(points))


def test_a_short_line_is_not_averaged():
    points = downsampled(Line("loss", [1, 2, 5], [3.0, 2.0, 1.0]))
    assert [(p.x, p.low, p.y, p.high) for p in points] == [(1, 3, 3, 3), (2, 2, 2, 2), (5, 1, 1, 1)]


def test_values_that_are_not_finite_are_left_out_and_counted():
    line = Line("loss", [1, 2, 3, 4], [3.0, math.nan, math.inf, 1.0])
    assert [p.x for p in downsampled(line)] == [1, 4]
    page = Page(render(Report("", charts=[Chart("Loss", [line])])))
    assert "2 of 4 values of loss are not finite." in page.texts


@pytest.mark.parametrize("y", [[], [math.nan] * 3])
def test_a_line_without_any_finite_value_has_no_drawing(y):
    chart = Chart("Loss", [Line("training", list(range(len(y))), y)])
    page = Page(render(Report("", charts=[chart])))
    assert "no finite value" in page.texts
    assert page.all("svg", "chart") == []


def test_a_falling_line_falls_from_left_to_right():
    svg = drawn(Chart("Loss", [Line("training", [1, 2, 3], [3.0, 2.0, 1.0])]))
    (line,) = by_class(svg, "stroke")
    points = coordinates(line)
    assert points == sorted(points)  # both grow: y counts downwards in SVG
    assert points[1] == pytest.approx(
        ((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2), abs=0.1
    )


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=120), st.booleans())
def test_everything_is_drawn_inside(pairs, from_zero):
    line = Line("a", list(range(len(pairs))), [y for y, _ in pairs])
    other = Line("b", list(range(len(pairs))), [y for _, y in pairs])
    svg = drawn(Chart("Loss", [line, other], from_zero=from_zero))
    shapes = [e for e in svg.iter() if e.tag in ("polyline", "polygon")]
    assert len(shapes) >= 2
    for shape in shapes:
        assert all(42 <= x <= 352 and 24 <= y <= 168 for x, y in coordinates(shape))


def test_rates_start_at_zero():
    svg = drawn(Chart("Speed", [Line("training", [1, 2], [40.0, 41.0])], from_zero=True))
    labels = [e.text for e in svg.iter("text")]
    assert "0" in labels


def test_readings_tell_all_lines_at_a_step_and_cover_the_plot():
    training = Line("training", [1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0])
    svg = drawn(Chart("Loss", [training, Line("validation", [2, 4], [3.5, 1.5])]))
    readings = by_class(svg, "reading")
    said = ["|".join("".join(t.itertext()) for t in r.iter("text")) for r in readings]
    assert said[0] == "step 1training 4"
    assert said[2] == "step 3training 2validation 3.5"  # the latest there is
    areas = [(float(e.get("x")), float(e.get("width"))) for e in by_class(svg, "hit")]
    assert areas[0][0] == 42
    for (x, width), (following, _) in itertools.pairwise(areas):
        assert x + width == pytest.approx(following, abs=0.11)
    assert sum(areas[-1]) == pytest.approx(352, abs=0.11)


def test_the_chart_says_in_words_what_it_shows():
    svg = drawn(Chart("Loss", [Line("training", [1, 2], [4.0, 1.5])]))
    assert svg.get("aria-label") == "Loss over step: training from 4 to 1.5"


def test_the_values_are_there_as_a_table():
    chart = Chart("Loss", [Line("a", [1, 2], [4.0, 1.5]), Line("b", [2], [2.25])])
    page = Page(render(Report("", charts=[chart])))
    values = page.texts[page.texts.index("Values") :]
    cells = [text.strip() for text in values if text.strip()]
    assert cells[:9] == ["Values", "step", "a", "b", "1", "4", "2", "1.5", "2.25"]


def centre(svg: ElementTree.Element, name: str) -> float:
    (mark,) = by_class(svg, name)
    return float(mark.get("cx"))


def test_the_interval_lies_around_the_value_and_before_below_it():
    svg = interval_chart(Score("CIDEr", 87.3, 83.9, 90.8, before=12.4, permuted=7.9))
    (interval,) = by_class(svg, "interval")
    left, width = float(interval.get("x")), float(interval.get("width"))
    assert left < centre(svg, "value") < left + width
    assert centre(svg, "before") < left
    assert len(by_class(svg, "permuted")) == 1
    scale = (centre(svg, "value") - centre(svg, "before")) / (87.3 - 12.4)
    assert width / (90.8 - 83.9) == pytest.approx(scale, rel=0.02)


@given(st.lists(st.one_of(finite, st.just(math.nan)), min_size=5, max_size=5), st.booleans())
def test_any_score_can_be_drawn(values, bounded):
    low, high = (min(values[:2]), max(values[:2])) if bounded else (None, None)
    if bounded and any(map(math.isnan, values[:2])):
        low, high = math.nan, math.nan
    score = Score("A", values[2], low, high, before=values[3], permuted=values[4])
    for mark in interval_chart(score).iter("circle"):
        assert 10 <= float(mark.get("cx")) <= 270


def test_a_bar_is_as_long_as_its_share():
    (share,) = by_class(bar(0.375), "share")
    assert share.get("width") == "37.50%"
