"""Drawings of the page as inline SVG: precision against recall, and clouds of points.

Strings only. Letters, axes and grid take their colours from the page's style, so that they are
right in light and dark; the same input gives the same characters. Recall is the horizontal axis,
precision the vertical one. Lengths are in units of the drawing's own box.
"""

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from prpr.report_figures import Estimate

WIDTH, HEIGHT = 400, 350
POINTS = 500  # of a cloud

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 44
_LETTER, _LINE = 7.3, 13.0  # about the width and height of a letter of the labels

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Mark(NamedTuple):
    """A point of the plane.

    Attributes:
      label: what is written beside it.
      shape: "circle", "diamond", "square", "star" or "triangle".
      color: "#rrggbb".
      precision, recall: with their intervals and single seeds.
      joined: whether it is one of the path of λ.
      chosen: whether it is the one that was chosen.
    """

    label: str
    shape: str
    color: str
    precision: Estimate
    recall: Estimate
    joined: bool
    chosen: bool = False


class Bound(NamedTuple):
    """A wish's bound on "precision" or "recall"."""

    metric: str
    least: bool
    value: float


class Plane(NamedTuple):
    """A drawing, and where its marks are: (share of the width, share of the height) of each."""

    svg: str
    places: list[tuple[float, float]]


def plane(marks: Sequence[Mark], bounds: Sequence[Bound], alt: str) -> Plane:
    """Precision against recall: every mark with its intervals, λ joined in order.

    Args:
      marks: with finite values; at least one.
      bounds: drawn as lines, with the side that is asked for shaded.
      alt: what it shows, in words.
    """
    x = _Axis([m.recall for m in marks], _LEFT, WIDTH - _RIGHT)
    y = _Axis([m.precision for m in marks], HEIGHT - _BOTTOM, _TOP)
    centres = [(x.at(m.recall.value), y.at(m.precision.value)) for m in marks]
    drawn, ink, taken = _bounds(bounds, x, y)
    parts = [*_grid(x, y), *drawn]
    path = [centre for mark, centre in zip(marks, centres, strict=True) if mark.joined]
    if len(path) > 1:
        line = " ".join(f"{_n(a)},{_n(b)}" for a, b in path)
        parts.append(f'<polyline class="path" points="{line}"/>')
    ink += [_along(a, b) for a, b in itertools.pairwise(path)]
    for i, (mark, (cx, cy)) in enumerate(zip(marks, centres, strict=True)):
        spread, own = _spread(mark, x, y, (cx, cy))
        ink += own
        parts.append(f'<g class="mark mark-{i}">{spread}')
        if mark.chosen:
            parts.append(f'<circle class="chosen" cx="{_n(cx)}" cy="{_n(cy)}" r="12"/>')
        parts.append(f'<circle class="ring" cx="{_n(cx)}" cy="{_n(cy)}" r="15"/>')
        parts.append(shape(mark.shape, mark.color, cx, cy) + "</g>")
    parts += _labels(marks, centres, ink, taken)
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(alt)}">'
        f"{''.join(parts)}</svg>"
    )
    return Plane(svg, [(cx / WIDTH, cy / HEIGHT) for cx, cy in centres])


def shape(name: str, color: str, cx: float, cy: float, size: float = 7.0) -> str:
    """A mark's own form, so that no mark is known by its colour alone."""
    if name == "circle":
        return f'<circle class="dot" fill="{color}" cx="{_n(cx)}" cy="{_n(cy)}" r="{_n(size)}"/>'
    spikes = {"square": 4, "diamond": 4, "triangle": 3, "star": 10}[name]
    turn = math.pi / 4 if name == "square" else 0.0
    corners = []
    for i in range(spikes):
        radius = size * (1.5 if name == "star" else 1.25)
        if name == "star" and i % 2:
            radius *= 0.45
        angle = turn + 2 * math.pi * i / spikes
        corners.append((cx + radius * math.sin(angle), cy - radius * math.cos(angle)))
    points = " ".join(f"{_n(a)},{_n(b)}" for a, b in corners)
    return f'<polygon class="dot" fill="{color}" points="{points}"/>'


class _Axis:
    """From a metric to a length: around all values and intervals, about 0.1 wide at least."""

    def __init__(self, estimates: Iterable[Estimate], start: float, end: float):
        found = [v for e in estimates for v in (e.low, e.high, e.value, *e.seeds)]
        found = [v for v in found if math.isfinite(v)]
        low, high = min(found), max(found)
        pad = max(0.1 * (high - low), (0.1 - (high - low)) / 2)
        # Nothing is below 0 or above 1, but a mark there needs a little room.
        self.low = min(low, max(low - pad, -0.03))
        self.high = max(high, min(high + pad, 1.03))
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._start + min(max(share, 0.0), 1.0) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """At most seven round values."""
        width = self.high - self.low
        step = next(s for s in _steps() if width / s <= 6)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 6) for i in range(first, last + 1)]


def _steps() -> Iterable[float]:
    for power in range(-4, 8):
        for digit in (1, 2, 5):
            yield digit * 10.0**power


def _grid(x: _Axis, y: _Axis) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in x.ticks():
        at = _n(x.at(tick))
        parts.append(f'<path class="grid" d="M{at} {_TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{bottom + 17}">{tick:g}</text>')
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {_n(at)}H{right}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 7}" y="{_n(at + 4)}">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text class="name" x="{_n(middle)}" y="{HEIGHT - 8}">recall → more of the variety</text>'
    )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="name" transform="translate(14 {_n(middle)}) rotate(-90)">'
        "precision → more look real</text>"
    )
    return parts


def _bounds(
    bounds: Sequence[Bound], x: _Axis, y: _Axis
) -> tuple[list[str], list[np.ndarray], list[Box]]:
    """The side of each bound that is asked for, its line and words; where line and words are."""
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts, ink, taken = [], [], []
    for metric, least, value in bounds:
        sign = "≥" if least else "≤"
        text = f"wish: {metric} {sign} {value:g}"
        width = _LETTER * len(text)
        if metric == "precision":
            at = y.at(value)
            top, end = (_TOP, at) if least else (at, bottom)
            box, line = (_LEFT, top, right, end), ((_LEFT, at), (right, at))
            left, base = _LEFT + 4, max(at - 5, _TOP + 10)
        else:
            at = x.at(value)
            start, end = (at, right) if least else (_LEFT, at)
            box, line = (start, _TOP, end, bottom), ((at, _TOP), (at, bottom))
            left, base = at + 4 if at + width < right else at - 4 - width, bottom - 6
        (a, b), (c, d) = line
        parts.append(
            f'<rect class="asked" x="{_n(box[0])}" y="{_n(box[1])}" '
            f'width="{_n(box[2] - box[0])}" height="{_n(box[3] - box[1])}"/>'
            f'<path class="bound" d="M{_n(a)} {_n(b)}L{_n(c)} {_n(d)}"/>'
            f'<text class="wish" x="{_n(left)}" y="{_n(base)}">{text}</text>'
        )
        ink.append(_along(*line))
        taken.append((left, base - _LINE, left + width, base))
    return parts, ink, taken


def _spread(
    mark: Mark, x: _Axis, y: _Axis, centre: tuple[float, float]
) -> tuple[str, list[np.ndarray]]:
    """The intervals through a mark and the dots of its seeds; and where their ink is."""
    cx, cy = centre
    parts, ink = [], []
    p, r = mark.precision, mark.recall
    if math.isfinite(r.low) and math.isfinite(r.high):
        a, b = x.at(r.low), x.at(r.high)
        caps = "".join(f"M{_n(end)} {_n(cy - 3)}v6" for end in (a, b))
        parts.append(f"M{_n(a)} {_n(cy)}H{_n(b)}{caps}")
        ink.append(_along((a, cy), (b, cy)))
    if math.isfinite(p.low) and math.isfinite(p.high):
        a, b = y.at(p.low), y.at(p.high)
        caps = "".join(f"M{_n(cx - 3)} {_n(end)}h6" for end in (a, b))
        parts.append(f"M{_n(cx)} {_n(a)}V{_n(b)}{caps}")
        ink.append(_along((cx, a), (cx, b)))
    dots = ""
    if len(p.seeds) > 1:
        dots = "".join(
            f'<circle class="seed" cx="{_n(x.at(a))}" cy="{_n(y.at(b))}" r="2.2"/>'
            for a, b in zip(r.seeds, p.seeds, strict=True)
            if math.isfinite(a) and math.isfinite(b)
        )
    lines = f'<path class="interval" d="{"".join(parts)}"/>' if parts else ""
    return lines + dots, ink


def _along(a: tuple[float, float], b: tuple[float, float]) -> np.ndarray:
    """(40, 2) places of a line."""
    return np.linspace(a, b, 40)


def _labels(
    marks: Sequence[Mark],
    centres: Sequence[tuple[float, float]],
    ink: Sequence[np.ndarray],
    taken: Sequence[Box],
) -> list[str]:
    """Each label beside its mark, where it covers least of everything else."""
    dots = np.concatenate([*ink, np.zeros((0, 2))])
    taken, parts = list(taken), []
    for mark, (cx, cy) in zip(marks, centres, strict=True):
        text = f"{mark.label} ✓" if mark.chosen else mark.label
        width = _LETTER * len(text)
        best, chosen, far = math.inf, (0.0, 0.0, 0.0, 0.0), 0.0
        for radius in (11, 16, 24, 34, 46, 60, 76):
            for turn in range(16):
                dx = radius * math.cos(turn * math.pi / 8)
                dy = radius * math.sin(turn * math.pi / 8)
                # The box's near edge, not its middle, is (dx, dy) away from the mark.
                left = cx + dx - width * (1 - math.copysign(min(1, abs(dx) / 9), dx)) / 2
                top = cy + dy - _LINE * (1 - math.copysign(min(1, abs(dy) / 9), dy)) / 2
                box = (left, top, left + width, top + _LINE)
                cost = radius + _cost(box, (cx, cy), centres, dots, taken)
                if cost < best:
                    best, chosen, far = cost, box, radius
        left, _, _, bottom = chosen
        taken.append(chosen)
        if far > 16:
            a, b = _nearest(chosen, (cx, cy))
            parts.append(f'<path class="leader" d="M{_n(cx)} {_n(cy)}L{_n(a)} {_n(b)}"/>')
        weight = " strong" if mark.chosen else ""
        parts.append(
            f'<text class="label{weight}" x="{_n(left)}" y="{_n(bottom - 2.5)}">'
            f"{html.escape(text)}</text>"
        )
    return parts


def _cost(
    box: Box,
    own: tuple[float, float],
    centres: Sequence[tuple[float, float]],
    dots: np.ndarray,
    taken: Sequence[Box],
) -> float:
    left, top, right, bottom = box
    inside = (dots > (left - 2, top - 2)) & (dots < (right + 2, bottom + 2))
    cost = 1.2 * float(inside.all(1).sum())
    reach = [math.dist(centre, _nearest(box, centre)) for centre in centres]
    mine = math.dist(own, _nearest(box, own))
    cost += 200.0 * sum(r < 9 for r in reach)
    # A label next to another mark would be read as that one's.
    cost += 120.0 * sum(r < mine - 0.01 for r in reach)
    for other in taken:
        apart = right < other[0] or other[2] < left or bottom < other[1] or other[3] < top
        cost += 0.0 if apart else 500.0
    within = left >= _LEFT and right <= WIDTH - 4 and top >= 0 and bottom <= HEIGHT - _BOTTOM
    return cost if within else cost + 500.0


def _nearest(box: Box, place: tuple[float, float]) -> tuple[float, float]:
    """The place of a box that is nearest to another."""
    left, top, right, bottom = box
    return min(max(place[0], left), right), min(max(place[1], top), bottom)


# ---- points -------------------------------------------------------------------------------------

_SIDE = 200


class Window(NamedTuple):
    """A square of the plane of points: its middle, and half its side."""

    x: float
    y: float
    half: float


def window(points: np.ndarray) -> Window:
    """Around most of the points (N, 2): a stray one must not shrink the rest to a dot."""
    finite = points[np.isfinite(points).all(1)]
    if not len(finite):
        return Window(0.0, 0.0, 1.0)
    low, high = np.percentile(finite, [0.5, 99.5], axis=0)
    (x, y), half = (low + high) / 2, 0.7 * max(float((high - low).max()), 1e-6)
    return Window(float(x), float(y), half)


def cloud(points: np.ndarray, seen: Window) -> str:
    """The first points (N, 2) as one path of dots, of class "points"."""
    kept = np.asarray(points[:POINTS], np.float64)
    kept = kept[np.isfinite(kept).all(1)]
    placed = (kept - (seen.x, seen.y)) * (_SIDE / 2 / seen.half) * (1, -1) + _SIDE / 2
    placed = placed[((placed >= 0) & (placed <= _SIDE)).all(1)]
    dots = "".join(f"M{_n(a)} {_n(b)}h0" for a, b in placed.tolist())
    return f'<path class="points" d="{dots}"/>'


def scatter(points: np.ndarray, seen: Window, color: str, behind: str, alt: str) -> str:
    """Points (N, 2) in a colour, over `behind`, which is drawn in the same square."""
    front = cloud(points, seen).replace("<path ", f'<path stroke="{color}" ', 1)
    return (
        f'<svg class="cloud" viewBox="0 0 {_SIDE} {_SIDE}" role="img" '
        f'aria-label="{html.escape(alt)}">{behind}{front}</svg>'
    )


def _n(value: float) -> str:
    """A length to a tenth."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
