"""Numbers -> the geometry of a line chart: ticks, thinned paths, smoothed lines, what to show under the pointer.

Everything is in percent of the plot's width and height, so that a page can stretch the curves to any screen while text
and strokes keep their size. Nothing here knows of runs or pages; `page.html` draws what this computes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

__all__ = ["Chart", "Curve", "Line", "Readout", "draw", "running_mean", "short", "thin", "ticks"]

Point = tuple[float, float]

# More points than a wide screen has columns of pixels for a line cost bytes and show nothing.
MAX_POINTS = 600
MAX_READOUTS = 60
MAX_DOTS = 40


@dataclass(frozen=True)
class Curve:
    """What to draw: points in the order of x.

    color:   1-8, a class of the page's style sheet
    smooth:  noisy enough that a running mean is drawn over the raw curve
    """

    label: str
    points: Sequence[Point]
    color: int = 1
    smooth: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A curve as SVG paths; `raw` is "" where nothing was smoothed, `dots` mark the points of a sparse curve."""

    label: str
    color: int
    dashed: bool
    path: str
    raw: str
    dots: list[Point]


@dataclass(frozen=True)
class Readout:
    """A band of the plot and what to show while the pointer is over it: (color, label, value, y) per curve."""

    left: float
    width: float
    x: float
    step: str
    values: list[tuple[int, str, str, float]]


@dataclass(frozen=True)
class Chart:
    """A chart ready for a template; ticks are (percent, label)."""

    title: str
    note: str
    summary: str
    lines: list[Line] = field(default_factory=list)
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    readouts: list[Readout] = field(default_factory=list)


def draw(title: str, curves: Sequence[Curve], *, note: str = "", from_zero: bool = False) -> Chart | None:
    """The chart of the curves that have points; None when none has.

    from_zero:  the y axis includes 0, for quantities whose size matters more than their change
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points] + ([0.0] if from_zero else [])
    y_marks = ticks(min(ys), max(ys))
    # From step 0, so that the charts of a run line up.
    frame = _Frame(min(0.0, *xs), max(xs), y_marks[0], y_marks[-1])
    # There are no steps between the whole ones, nor beyond the last.
    x_marks = [x for x in ticks(frame.left, frame.right) if frame.left <= x <= frame.right and x == round(x)]
    smoothed = [running_mean(curve.points) if curve.smooth else curve.points for curve in curves]
    return Chart(
        title=title,
        note=note,
        summary=_summary(title, curves),
        lines=[_line(curve, line, frame) for curve, line in zip(curves, smoothed, strict=True)],
        x_ticks=list(zip((frame.x(x) for x in x_marks), _tick_labels(x_marks), strict=True)),
        y_ticks=list(zip((frame.y(y) for y in y_marks), _tick_labels(y_marks), strict=True)),
        readouts=list(_readouts(curves, smoothed, frame)),
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, evenly spaced, the first at or below `low` and the last at or above `high`."""
    # A span below the resolution of the numbers themselves is a flat line with rounding on it.
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-100:
        pad = abs(low) / 10 if abs(low) > 1e-90 else 1.0
        low, high = low - pad, high + pad
    power = math.floor(math.log10((high - low) / count))
    size = next(size for size in (1, 2, 2.5, 5, 10) if size * 10.0**power * count >= (high - low) * 0.999)
    step = size * 10.0**power
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


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
    if abs(value) >= 1e5:
        return _scaled(value, abs(value), 4)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Frame:
    """The plotted part of the plane; turns values into percent."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        span = self.right - self.left
        return round(100 * (value - self.left) / span, 2) if span else 50.0

    def y(self, value: float) -> float:
        return round(100 * (self.top - value) / (self.top - self.bottom), 2)


def _line(curve: Curve, smoothed: Sequence[Point], frame: _Frame) -> Line:
    is_smoothed = smoothed is not curve.points and len(curve.points) >= 60
    is_sparse = len(curve.points) == 1 or (len(curve.points) <= MAX_DOTS and not curve.smooth)
    return Line(
        label=curve.label,
        color=curve.color,
        dashed=curve.dashed,
        path=_path(smoothed, frame),
        raw=_path(curve.points, frame) if is_smoothed else "",
        dots=[(frame.x(x), frame.y(y)) for x, y in curve.points] if is_sparse else [],
    )


def _path(points: Sequence[Point], frame: _Frame) -> str:
    return "M" + "L".join(f"{frame.x(x):g} {frame.y(y):g}" for x, y in thin(points))


def _readouts(curves: Sequence[Curve], lines: Sequence[Sequence[Point]], frame: _Frame) -> Iterator[Readout]:
    """Bands that tile the plot. Each tells the last point of each curve inside it, on the line the reader sees."""
    steps = sorted({x for line in lines for x, _ in line})
    if len(steps) > MAX_READOUTS:
        size = (frame.right - frame.left) / MAX_READOUTS
        edges = [frame.left + size * number for number in range(MAX_READOUTS)] + [frame.right]
    else:
        edges = [frame.left, *((a + b) / 2 for a, b in pairwise(steps)), frame.right]
    found: list[dict[int, Point]] = [{} for _ in edges[1:]]
    for number, line in enumerate(lines):
        band = 0
        for point in line:
            while band < len(found) - 1 and point[0] >= edges[band + 1]:
                band += 1
            found[band][number] = point
    for left, right, points in zip(edges[:-1], edges[1:], found, strict=True):
        if points:
            step = max(x for x, _ in points.values())
            shown = [(curves[n].color, curves[n].label, short(y), frame.y(y)) for n, (_, y) in points.items()]
            width = frame.x(right) - frame.x(left) if right > left else 100.0
            yield Readout(frame.x(left) if right > left else 0.0, round(width, 2), frame.x(step), f"{step:,.0f}", shown)


def _summary(title: str, curves: Sequence[Curve]) -> str:
    """The chart in words, for those who cannot see it."""
    parts = [f"{c.label} from {short(c.points[0][1])} to {short(c.points[-1][1])}" for c in curves]
    return f"{title} by step: {'; '.join(parts)}"


def _tick_labels(values: Sequence[float]) -> list[str]:
    largest = max(map(abs, values), default=0.0)
    return [_scaled(value, largest, 6) for value in values]


def _scaled(value: float, largest: float, digits: int) -> str:
    """A number in the unit that suits the largest of its neighbours: 1,500, 25k, 1.5M, 0.02, 2.5e-5."""
    if 0 < largest < 1e-4:
        power = math.floor(math.log10(largest))
        return f"{value / 10.0**power:.3g}e{power}" if value else "0"
    for least, size, unit in ((1e12, 1e12, "T"), (1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if largest >= least:
            return f"{value / size:.{digits}g}{unit}" if value else "0"
    return f"{value:,.{digits}g}" if abs(value) < 1e4 else f"{value:,.0f}"
