"""Numbers -> what a chart shows: smoothed and thinned curves, and the chart in words. The page's own script draws them
(`serve/web/chart.js`), in a report as in the server's page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

__all__ = ["Chart", "Curve", "draw", "running_mean", "short", "thin"]

Point = tuple[float, float]

# More points than a wide screen has columns of pixels for a line cost bytes and show nothing.
MAX_POINTS = 600
# Fewer are shown as they are.
LEAST_SMOOTHED = 60


@dataclass(frozen=True)
class Curve:
    """What to draw: points in the order of x.

    color:   0-7, a class of the style sheet
    smooth:  noisy enough that a running mean is drawn over the raw curve
    """

    label: str
    points: Sequence[Point]
    color: int = 0
    smooth: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart in words, and as JSON for the script that draws it."""

    title: str
    note: str
    words: str
    series: list[dict[str, Any]]
    from_zero: bool = False

    @property
    def data(self) -> dict[str, Any]:
        texts = {"title": self.title, "note": self.note, "words": self.words}
        return texts | {"series": self.series, "fromZero": self.from_zero}


def draw(title: str, curves: Sequence[Curve], *, note: str = "", from_zero: bool = False) -> Chart | None:
    """The chart of the curves that have points; None when none has.

    from_zero:  the y axis includes 0, for quantities whose size matters more than their change
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    ends = [f"{c.label} from {short(c.points[0][1])} to {short(c.points[-1][1])}".strip() for c in curves]
    return Chart(title, note, f"{title} by step: {'; '.join(ends)}", [_series(curve) for curve in curves], from_zero)


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> Sequence[Point]:
    """At most `limit` of the points, with the ends and the least and greatest y of each slice, so no spike is lost."""
    if len(points) <= limit:
        return points
    slices = (limit - 2) // 2
    kept = {0, len(points) - 1}
    for number in range(slices):
        part = range(number * len(points) // slices, (number + 1) * len(points) // slices)
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Each point's mean over its neighbours, 1/60 of the curve on either side.

    Near the start the window shrinks evenly, so that a steep fall is not flattened; near the end only its right half
    does, so that the last value is a mean and no accident.
    """
    totals = [0.0, *accumulate(y for _, y in points)]
    means = []
    for i, (x, _) in enumerate(points):
        left = min(len(points) // 60, i)
        right = min(left, len(points) - 1 - i)
        means.append((x, (totals[i + right + 1] - totals[i - left]) / (left + right + 1)))
    return means


def short(value: float) -> str:
    """Four significant digits, as people write them: 2.314, 0.00021, 12,345, 1.23M."""
    size = abs(value)
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= max(unit, 1e5):
            return f"{value / unit:.4g}{letter}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 0 < size < 1e-4 else f"{value:.4g}"


def _series(curve: Curve) -> dict[str, Any]:
    series = {"name": curve.label, "color": f"s{curve.color}", "dashed": curve.dashed}
    if not curve.smooth or len(curve.points) < LEAST_SMOOTHED:
        return series | {"points": _rounded(curve.points)}
    return series | {"points": _rounded(running_mean(curve.points)), "raw": _rounded(curve.points)}


def _rounded(points: Sequence[Point]) -> list[Point]:
    """As many digits as a screen can show."""
    return [(x, float(f"{y:.6g}")) for x, y in thin(points)]
