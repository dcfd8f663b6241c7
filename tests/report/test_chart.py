"""Thinning loses no extreme, smoothing keeps the level, numbers are short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.report.chart import LEAST_SMOOTHED, MAX_POINTS, Curve, draw, running_mean, short, thin

FIGURES = st.floats(-1e99, 1e99, allow_nan=False)
CURVES = st.lists(FIGURES, min_size=1, max_size=2000).map(lambda ys: [(float(x), y) for x, y in enumerate(ys)])


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


@given(CURVES)
def test_a_noisy_curve_is_drawn_as_it_is_and_smoothed(points: list[tuple[float, float]]) -> None:
    chart = draw("Loss", [Curve("a", points, smooth=True), Curve("b", points)])
    assert chart is not None
    noisy, calm = chart.series
    assert ("raw" in noisy) == (len(points) >= LEAST_SMOOTHED) and "raw" not in calm
    assert max(len(noisy["points"]), len(calm["points"])) <= MAX_POINTS
    assert noisy.get("raw", noisy["points"]) == calm["points"] == [(x, pytest.approx(y, 1e-5)) for x, y in thin(points)]


def test_a_chart_is_told_in_words() -> None:
    chart = draw("Loss", [Curve("training", [(1.0, 9.0), (8.0, 2.5)]), Curve("validation", [(8.0, 3.0)])])
    assert chart is not None
    assert chart.words == "Loss by step: training from 9 to 2.5; validation from 3 to 3"


def test_there_is_no_chart_of_nothing() -> None:
    assert draw("Loss", [Curve("", [])]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.31412, "2.314"), (12345.6, "12,346"), (4_915_200, "4.915M"), (0.00021, "0.00021"), (0, "0"), (2e-6, "2e-06")],
)
def test_numbers_have_four_digits_at_most_beside_their_unit(value: float, text: str) -> None:
    assert short(value) == text
