"""Ticks are round and enclose, thinning loses no extreme, smoothing keeps the level, readouts tell true values."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.report.chart import MAX_READOUTS, Curve, draw, running_mean, short, thin, ticks

FIGURES = st.floats(-1e99, 1e99, allow_nan=False)
CURVES = st.lists(FIGURES, min_size=1, max_size=2000).map(lambda ys: [(float(x), y) for x, y in enumerate(ys)])


@given(FIGURES, FIGURES)
def test_a_handful_of_evenly_spaced_ticks_encloses_any_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    marks = ticks(low, high)
    # A number beside a far larger one may be rounded away.
    assert marks[0] <= low + 1e-9 * (high - low) and marks[-1] >= high - 1e-9 * (high - low)
    assert 2 <= len(marks) <= 8
    gaps = [b - a for a, b in pairwise(marks)]
    assert min(gaps) > 0 and math.isclose(min(gaps), max(gaps), rel_tol=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (2.31, 8.76, [2, 4, 6, 8, 10]),
        (0, 0.02, [0, 0.005, 0.01, 0.015, 0.02]),
        (5, 5, [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
    ],
)
def test_ticks_are_the_numbers_a_person_would_choose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(CURVES, st.integers(10, 600))
def test_thinning_keeps_the_ends_and_both_extremes(points: list[tuple[float, float]], limit: int) -> None:
    kept = thin(points, limit)
    values = [y for _, y in points]
    assert len(kept) <= limit or len(kept) == len(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {min(values), max(values)} <= {y for _, y in kept}
    assert list(kept) == sorted(set(kept)) and set(kept) <= set(points)


def test_smoothing_keeps_straight_lines_and_the_steep_start_and_ends_in_a_mean() -> None:
    line = [(float(x), 3.0 - x / 100) for x in range(600)]
    smooth = running_mean(line)
    assert smooth[:590] == [(x, pytest.approx(y)) for x, y in line[:590]]
    noisy = [(float(x), 1.0 + 0.5 * (-1) ** x) for x in range(600)]
    assert running_mean(noisy)[-1][1] == pytest.approx(1.0, abs=0.05)


@given(st.lists(CURVES, min_size=1, max_size=3))
def test_everything_drawn_lies_inside_the_plot_and_readouts_tile_it(curves: list[list[tuple[float, float]]]) -> None:
    chart = draw("Loss", [Curve("a", points, smooth=True) for points in curves])
    assert chart is not None
    drawn = [float(number) for line in chart.lines for number in line.path[1:].replace("L", " ").split()]
    marks = [x for x, _ in chart.x_ticks + chart.y_ticks]
    assert all(-0.01 <= number <= 100.01 for number in drawn + marks)
    assert 1 <= len(chart.readouts) <= MAX_READOUTS
    assert sum(readout.width for readout in chart.readouts) <= 100.5


def test_a_readout_tells_each_curve_where_it_has_a_point() -> None:
    every = [(float(x), x / 10) for x in range(11)]
    chart = draw("Loss", [Curve("training", every, 1), Curve("validation", every[::5], 2)])
    assert chart is not None
    told = {readout.step: [(label, value) for _, label, value, _ in readout.values] for readout in chart.readouts}
    assert told["5"] == [("training", "0.5"), ("validation", "0.5")]
    assert told["6"] == [("training", "0.6")]
    assert len(told) == 11


def test_steps_are_whole_and_start_at_0() -> None:
    chart = draw("Loss", [Curve("", [(1.0, 2.0), (2.0, 1.0)])])
    assert chart is not None
    assert chart.x_ticks == [(0.0, "0"), (50.0, "1"), (100.0, "2")]


def test_there_is_no_chart_of_nothing() -> None:
    assert draw("Loss", [Curve("", [])]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.31412, "2.314"), (12345.6, "12,346"), (4_915_200, "4.915M"), (0.00021, "0.00021"), (0, "0"), (2e-6, "2e-06")],
)
def test_numbers_have_four_digits_at_most_beside_their_unit(value: float, text: str) -> None:
    assert short(value) == text


def test_tick_labels_share_their_unit() -> None:
    chart = draw("Tokens per second", [Curve("", [(0.0, 6000.0), (25000.0, 18000.0)])], from_zero=True)
    assert chart is not None
    assert [label for _, label in chart.y_ticks] == ["0", "5k", "10k", "15k", "20k"]
    assert [label for _, label in chart.x_ticks] == ["0", "5k", "10k", "15k", "20k", "25k"]
