"""The figures of a run's report: from rows and curves to drawings, no files read or written.

A `Group` is a row of the report (real data, base, control, or one λ, over all its seeds); a `Run`
is one training run with its lines of metrics.jsonl. Each function returns a Figure, or None when
its records hold nothing to draw. Colours, fonts and files are those of `prpr.plotting`; recall is
the horizontal axis and precision the vertical one.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prpr import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 10  # of a sheet of samples
MAX_POINTS = 2000  # drawn of a 2-D sample

_STYLES = {
    "real": ("*", plotting.BLACK),
    "base": ("D", "#666666"),
    "control": ("s", plotting.RED),
}


class Estimate(NamedTuple):
    """A metric: its value and [low, high], which is the interval of one seed, or mean ± sd of many.

    `seeds` holds the values of the single seeds.
    """

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


class Group(NamedTuple):
    """The rows of one name: its λ (None without one), seeds, and {metric: Estimate}."""

    name: str
    lam: float | None
    seeds: tuple[int | None, ...]
    metrics: dict[str, Estimate]

    @property
    def label(self) -> str:
        """What a reader calls it: "λ = 0.2", "real data", or the name."""
        if self.lam is not None:
            return f"λ = {self.lam:g}"
        return "real data" if self.name == "real" else self.name


class Run(NamedTuple):
    """One training run: the group's name and λ, the seed, its lines of metrics.jsonl in order.

    `ratio` is False when its loss determines no log-ratio, so that checks of one mean nothing.
    """

    name: str
    lam: float | None
    seed: int
    lines: list[dict[str, Any]]
    ratio: bool

    @property
    def label(self) -> str:
        return self.name if self.lam is None else f"λ = {self.lam:g}"

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values (n,), (n,) of one scalar; what is not finite is left out."""
        found = [
            (line["step"], float(line[key]))
            for line in self.lines
            if isinstance(line.get(key), int | float) and math.isfinite(line[key])
        ]
        array = np.asarray(found, np.float64).reshape(-1, 2)
        return array[:, 0], array[:, 1]

    def last(self, key: str) -> Any:
        """The value of the last line that has it (not finite too), else None."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)


class Samples(NamedTuple):
    """Stored samples: images (N, H, W, C) uint8 or points (N, 2), and labels (N,)."""

    values: np.ndarray
    labels: np.ndarray


class Colors:
    """The colour of every group of a report: λ by its place among the report's own λ."""

    def __init__(self, lams: Sequence[float]):
        low, high = min(lams, default=1.0), max(lams, default=1.0)
        # Neighbours such as λ = 1 and 1.2 should not get opposite ends of the scale.
        widen = max(1.0, math.sqrt(10.0 * low / high))
        self._low, self._high = low / widen, high * widen

    def __call__(self, name: str, lam: float | None) -> Any:
        if lam is not None:
            return plotting.lam_color(lam, self._low, self._high)
        return _STYLES.get(name, ("o", plotting.PURPLE))[1]


# ---- precision and recall -----------------------------------------------------------------------


@plotting.styled
def precision_recall(groups: Sequence[Group], colors: Colors) -> "Figure | None":
    """The plane of recall and precision: every group with its intervals, λ joined in order."""
    shown = [
        g
        for g in groups
        if math.isfinite(g.metrics["precision"].value) and math.isfinite(g.metrics["recall"].value)
    ]
    if not shown:
        return None
    fig, (ax,) = plotting.subplots(size=(6.2, 4.6))
    path = [g for g in shown if g.lam is not None]
    line = np.array([(g.metrics["recall"].value, g.metrics["precision"].value) for g in path])
    if len(line) > 1:
        ax.plot(line[:, 0], line[:, 1], color="#BBBBBB", linewidth=1.2, zorder=1)
    for g in shown:
        recall, precision = g.metrics["recall"], g.metrics["precision"]
        marker = "o" if g.lam is not None else _STYLES.get(g.name, ("^", ""))[0]
        color = colors(g.name, g.lam)
        ax.plot(
            [recall.low, recall.high], [precision.value] * 2, color=color, linewidth=1.1, alpha=0.75
        )
        ax.plot(
            [recall.value] * 2,
            [precision.low, precision.high],
            color=color,
            linewidth=1.1,
            alpha=0.75,
        )
        if len(precision.seeds) > 1:
            ax.scatter(recall.seeds, precision.seeds, s=11, color=color, alpha=0.55, linewidths=0)
        ax.scatter(
            recall.value,
            precision.value,
            s=150 if marker == "*" else 62,
            marker=marker,
            color=color,
            edgecolors="white",
            linewidths=0.9,
            zorder=4,
        )
    for axis, metric in (("x", "recall"), ("y", "precision")):
        _zoom(ax, axis, [g.metrics[metric] for g in shown])
    ax.set_xlabel("recall: how much of the real data the generator can make")
    ax.set_ylabel("precision: how many samples look real")
    ax.grid(True)
    ax.set_axisbelow(True)
    _label_points(fig, ax, shown, line, colors)
    return fig


def _zoom(ax: "Axes", axis: str, estimates: Sequence[Estimate]) -> None:
    """Axis limits around all values and intervals, about 0.1 wide at least."""
    ends = [v for e in estimates for v in (e.low, e.high, e.value, *e.seeds) if math.isfinite(v)]
    low, high = min(ends), max(ends)
    pad = max(0.1 * (high - low), (0.1 - (high - low)) / 2)
    # Nothing is below 0 or above 1, but a marker there needs a little room.
    bottom, top = min(low, max(low - pad, -0.03)), max(high, min(high + pad, 1.03))
    (ax.set_xlim if axis == "x" else ax.set_ylim)(bottom, top)


def _label_points(
    fig: "Figure", ax: "Axes", groups: Sequence[Group], line: np.ndarray, colors: Colors
) -> None:
    """Writes each group's label beside its point, where it covers least of everything else."""
    from matplotlib.patheffects import withStroke

    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # the layout is final: pixels measured below stay true
    unit = fig.dpi / 72  # pixels of a point
    t = np.linspace(0, 1, 60)[:, None]

    def pixels(points: Any) -> np.ndarray:
        return ax.transData.transform(np.asarray(points, np.float64).reshape(-1, 2))

    def along(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + t * (b - a)

    centres = pixels([(g.metrics["recall"].value, g.metrics["precision"].value) for g in groups])
    ink = [along(a, b) for a, b in zip(pixels(line)[:-1], pixels(line)[1:], strict=True)]
    for g in groups:
        r, p = g.metrics["recall"], g.metrics["precision"]
        ink.append(along(*pixels([(r.low, p.value), (r.high, p.value)])))
        ink.append(along(*pixels([(r.value, p.low), (r.value, p.high)])))
        ink.append(pixels(list(zip(r.seeds, p.seeds, strict=True))))
    dots = np.concatenate(ink)
    frame, taken = ax.get_window_extent(), []
    offsets = [
        (radius * math.cos(angle), radius * math.sin(angle))
        for radius in (8, 12, 18, 26, 36)
        for angle in np.arange(16) * math.pi / 8 + math.pi / 8
    ]
    for g, (x, y) in zip(groups, centres, strict=True):
        size = fig.text(0, 0, g.label, fontsize=8.5)
        box = size.get_window_extent()
        size.remove()
        best, place, far, chosen = math.inf, (0.0, 0.0), False, None
        for dx, dy in offsets:
            # The box's near edge, not its middle, is (dx, dy) away from the point.
            left = x + dx * unit - box.width * (1 - math.copysign(min(1, abs(dx) / 6), dx)) / 2
            low = y + dy * unit - box.height * (1 - math.copysign(min(1, abs(dy) / 6), dy)) / 2
            corners = np.array([[left, low], [left + box.width, low + box.height]])
            reach = _distance(centres, corners)
            own = _distance(np.array([[x, y]]), corners)[0]
            cost = 1.2 * math.hypot(dx, dy)
            cost += 1.5 * _inside(dots, corners, 1.5 * unit)
            cost += 200 * int((reach < 6 * unit).sum())
            # A label next to another point would be read as that one's.
            cost += 120 * int((reach < own - 0.01).sum())
            cost += 500 * sum(_overlap(corners, other, 2 * unit) for other in taken)
            cost += 500 * bool(
                (corners[0] < (frame.x0, frame.y0)).any()
                or (corners[1] > (frame.x1, frame.y1)).any()
            )
            if cost < best:
                best, far, chosen = cost, own > 13 * unit, corners
                place = ((left - x) / unit, (low - y) / unit)
        color = _darker(colors(g.name, g.lam))
        ax.annotate(
            g.label,
            (g.metrics["recall"].value, g.metrics["precision"].value),
            xytext=place,
            textcoords="offset points",
            color=color,
            fontsize=8.5,
            zorder=5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5, "shrinkB": 5}
            if far
            else None,
        )
        taken.append(chosen)


def _distance(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """From points (n, 2) to the nearest place of a box: (n,)."""
    return np.linalg.norm(points - np.clip(points, corners[0], corners[1]), axis=1)


def _inside(points: np.ndarray, corners: np.ndarray, margin: float) -> int:
    return int(((points > corners[0] - margin) & (points < corners[1] + margin)).all(1).sum())


def _overlap(a: np.ndarray, b: np.ndarray, margin: float) -> bool:
    return bool(((a[0] < b[1] + margin) & (b[0] < a[1] + margin)).all())


def _darker(color: Any) -> tuple[float, float, float]:
    """The colour for text: light markers are legible on white, letters of that colour are not."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.72 * channel for channel in to_rgb(color))
    return red, green, blue


# ---- samples ------------------------------------------------------------------------------------


@plotting.styled
def samples(groups: Sequence[Group], stored: dict[str, Samples], colors: Colors) -> "Figure | None":
    """A sheet with one block for each group that has samples: images by class, or point clouds."""
    shown = [g for g in groups if g.name in stored and len(stored[g.name].values)]
    if not shown:
        return None
    points = stored[shown[0].name].values.ndim == 2
    across = min(len(shown), 3 if points else 2)
    down = math.ceil(len(shown) / across)
    sheets = [] if points else [sheet(stored[g.name]) for g in shown]
    ratio = max((one.shape[0] / one.shape[1] for one in sheets), default=1.0)
    height = ratio * plotting.PAGE / across + 0.3
    fig, axes = plotting.subplots(down, across, size=(plotting.PAGE, down * height))
    _roomy(fig)
    for ax in axes[len(shown) :]:
        ax.remove()
    real = stored["real"].values if "real" in stored else None
    for i, (ax, g) in enumerate(zip(axes, shown, strict=False)):
        p, r = g.metrics["precision"].value, g.metrics["recall"].value
        color = colors(g.name, g.lam)
        between = "\n" if points else ": "  # three titles side by side are too long for one line
        ax.set_title(f"{g.label}{between}precision {p:.3f}, recall {r:.3f}", color=_darker(color))
        ax.set(xticks=[], yticks=[])
        if not points:
            ax.imshow(sheets[i], interpolation="nearest")
            ax.spines[:].set_visible(False)
            continue
        ax.spines[:].set(visible=True, color="#CCCCCC")
        if real is not None and g.name != "real":
            _scatter(ax, real, "#D5D5D5")
        _scatter(ax, stored[g.name].values, color)
        _frame(ax, real if real is not None else stored[shown[0].name].values)
    return fig


def _frame(ax: "Axes", points: np.ndarray) -> None:
    """A square around most of the points: a stray one must not shrink the rest to a dot."""
    low, high = np.nanpercentile(points, [0.5, 99.5], axis=0)
    middle, half = (low + high) / 2, 0.7 * max(float((high - low).max()), 1e-6)
    ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    ax.set_aspect("equal")


def _roomy(fig: "Figure") -> None:
    """Room above the titles, which the layout would set at the very edge."""
    engine = fig.get_layout_engine()
    if engine is not None:
        engine.set(h_pad=0.07, w_pad=0.05)  # pyright: ignore[reportCallIssue]


def _scatter(ax: "Axes", points: np.ndarray, color: Any) -> None:
    kept = points[:MAX_POINTS]
    ax.scatter(kept[:, 0], kept[:, 1], s=2.5, color=color, alpha=0.6, linewidths=0)


def sheet(stored: Samples, *, short: bool = False) -> np.ndarray:
    """Images (N, H, W, C) in one picture (rows, columns, 3); a class is a column.

    Where an image stands depends on the labels alone: runs of the same labels have the same input
    in the same place. `short` takes half of the rows of large images.
    """
    images, labels = stored
    _, height, width, _ = images.shape
    large = max(height, width) >= 64
    columns, rows = (6, 2) if large else (COLUMNS, 4)
    rows = rows // 2 if short and large else rows
    classes = np.unique(labels)
    if 1 < len(classes) <= columns:
        # Several columns a class when there are few of them.
        each = columns // len(classes)
        columns = each * len(classes)
        cells = [
            index
            for row in range(rows)
            for label in classes
            for index in _exactly(
                np.flatnonzero(labels == label)[row * each : (row + 1) * each], each
            )
        ]
    else:
        rows = min(rows, math.ceil(len(images) / columns))
        cells = _exactly(np.arange(len(images))[: rows * columns], rows * columns)
    gap = max(1, round(max(height, width) / 16))
    # White beneath what is missing and in the gaps.
    made = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for cell, index in enumerate(cells):
        if index >= 0:
            top, left = cell // columns * (height + gap), cell % columns * (width + gap)
            made[top : top + height, left : left + width] = images[index]  # grey becomes RGB
    return made


def _exactly(indices: np.ndarray, n: int) -> list[int]:
    """The first n indices, -1 where there are fewer."""
    return [*indices[:n].tolist(), *[-1] * (n - len(indices))]


# ---- training -----------------------------------------------------------------------------------

# title, keys (solid, dashed), is of a log-ratio, where the right answer is, log axis
_PANELS: tuple[tuple[str, tuple[str, ...], bool, float | None, bool], ...] = (
    ("critic's loss", ("critic_loss",), False, None, False),
    ("generator's loss", ("generator_loss",), False, None, False),
    ("mean log r̂: data solid, samples dashed", ("log_r_data", "log_r_samples"), True, 0.0, False),
    ("normalisation E$_q$[r̂]: should be 1", ("normalisation",), True, 1.0, True),
    ("held-out calibration error: best is 0", ("heldout_calibration_error",), True, 0.0, False),
    ("held-out calibration slope: should be 1", ("heldout_calibration_slope",), True, 1.0, False),
    ("held-out AUC: ½ = samples pass for data", ("heldout_auc",), False, 0.5, False),
    ("α$_λ$, estimated on samples", ("alpha",), True, None, False),
)


# What `prpr.health` watches, likewise.
_HEALTH: tuple[tuple[str, tuple[str, ...], bool, float | None, bool], ...] = (
    ("precision of a held-out batch", ("precision_proxy",), False, None, False),
    ("recall of a held-out batch", ("recall_proxy",), False, None, False),
    ("AUC: held-out solid, training dashed", ("heldout_auc", "train_auc"), False, 0.5, False),
    ("share of samples that λ moves", ("moved_share",), True, None, False),
    ("share of samples beside another one", ("duplicates",), False, 0.0, False),
    ("share with |log r̂| above 20", ("heldout_saturation",), True, 0.0, False),
    (
        "top singular value: critic dashed",
        ("generator_spectral_norm", "critic_spectral_norm"),
        False,
        None,
        True,
    ),
    (
        "gradient's norm: critic dashed",
        ("generator_grad_norm", "critic_grad_norm"),
        False,
        None,
        True,
    ),
)


@plotting.styled
def training(runs: Sequence[Run], colors: Colors) -> "Figure | None":
    """The course of training, a curve a run: losses, the log-ratio and its held-out checks."""
    return _courses(runs, colors, _PANELS)


@plotting.styled
def health(runs: Sequence[Run], colors: Colors) -> "Figure | None":
    """What is watched while training; a cross marks the step that a run went back to."""
    fig = _courses(runs, colors, _HEALTH)
    if fig is None:
        return None
    for run in runs:
        steps, _ = run.series("rollback")
        for ax in fig.axes:
            (mark,) = ax.plot(
                steps,
                np.zeros(len(steps)),
                "x",
                transform=ax.get_xaxis_transform(),
                color=colors(run.name, run.lam),
                markeredgewidth=2.0,
                clip_on=False,
                zorder=5,
            )
            mark.set_in_layout(False)
    return fig


def _courses(
    runs: Sequence[Run],
    colors: Colors,
    panels: Sequence[tuple[str, tuple[str, ...], bool, float | None, bool]],
) -> "Figure | None":
    """Curves of the runs in 4 x 2 panels; None where nothing of them is recorded."""
    keys = [key for _, names, *_ in panels for key in names]
    runs = [run for run in runs if any(len(run.series(key)[0]) for key in keys)]
    if not runs:
        return None
    fig, axes = plotting.subplots(4, 2, size=(plotting.PAGE, 7.8), sharex=True)
    for ax, (title, names, of_ratio, target, log) in zip(axes, panels, strict=True):
        drawn = False
        for run in runs:
            if of_ratio and not run.ratio:
                continue
            for key, dash in zip(names, ("-", (0, (4, 1.5))), strict=False):
                steps, values = run.series(key)
                if log:
                    steps, values = steps[values > 0], values[values > 0]
                drawn |= _curve(ax, steps, values, colors(run.name, run.lam), dash)
        ax.set_title(title)
        ax.grid(True)
        if log and drawn:
            _log_axis(ax)
        if target is not None and drawn:
            ax.axhline(target, color="#444444", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        tops = [np.max(line.get_ydata()) for line in ax.lines]
        if target == 0.0 and tops and max(tops) < 0.02:  # 1e-17 is no number to read an axis by
            ax.set_ylim(-0.001, 0.02)
        if not drawn:
            ax.text(0.5, 0.5, "not recorded", color="#777777", ha="center", transform=ax.transAxes)
            ax.set_yticks([])
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    for ax in axes[-2:]:
        ax.set_xlabel("training step")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    unique = {run.label: run for run in runs}
    fig.legend(
        [Line2D([], [], color=colors(r.name, r.lam), linewidth=2.4) for r in unique.values()],
        list(unique),
        loc="outside upper center",
        ncols=min(len(unique), 8),
    )
    return fig


def _curve(ax: "Axes", steps: np.ndarray, values: np.ndarray, color: Any, dash: Any) -> bool:
    """One curve; a long noisy one faint, with its moving average on top. Whether it has points."""
    if not len(steps):
        return False
    thin = max(1, len(steps) // 1000)
    if len(steps) < 60:
        marker = "o" if len(steps) < 3 else None  # a line through one point is invisible
        ax.plot(
            steps, values, color=color, linestyle=dash, linewidth=1.2, marker=marker, markersize=3
        )
        return True
    ax.plot(steps[::thin], values[::thin], color=color, linewidth=0.6, alpha=0.22)
    width = max(3, len(steps) // 25)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    left, right = (
        np.maximum(centre - width // 2, 0),
        np.minimum(centre + width // 2 + 1, len(values)),
    )
    smooth = (sums[right] - sums[left]) / (right - left)
    ax.plot(steps[::thin], smooth[::thin], color=color, linestyle=dash, linewidth=1.3)
    return True


def _log_axis(ax: "Axes") -> None:
    """A log axis around 1, with plain labels, and not stretched over an outlier at e^±80."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    low, high = max(min(low, 0.3), 1e-4), min(max(high, 3.0), 1e4)
    ax.set_ylim(low, high)
    wide = high / low > 300
    ticks = [m * 10.0**e for e in range(-4, 5) for m in ((1,) if wide else (1, 3))]
    ax.yaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


# ---- calibration --------------------------------------------------------------------------------


@plotting.styled
def calibration(runs: Sequence[Run], colors: Colors) -> "Figure | None":
    """Reliability curves at the last check, a panel for each name and a curve for each seed."""
    panels: dict[str, list[tuple[Run, np.ndarray]]] = {}
    for run in runs:
        curve = reliability(run)
        if curve is not None:
            panels.setdefault(run.label, []).append((run, curve))
    if not panels:
        return None
    across = min(len(panels), 4)
    down = math.ceil(len(panels) / across)
    size = min(plotting.PAGE / across, 2.6)
    fig, axes = plotting.subplots(
        down, across, size=(size * across, (size + 0.45) * down), sharex=True, sharey=True
    )
    _roomy(fig)
    for ax in axes[len(panels) :]:
        ax.remove()
    for i, (ax, (label, curves)) in enumerate(zip(axes, panels.items(), strict=False)):
        ax.plot([0, 1], [0, 1], color="#444444", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        for run, (predicted, observed, mass) in curves:
            color = colors(run.name, run.lam)
            ax.plot(predicted, observed, color=color, linewidth=1.2, zorder=3)
            ax.scatter(predicted, observed, s=6 + 90 * mass, color=color, linewidths=0, zorder=4)
        ax.set_title(label, color=_darker(colors(curves[0][0].name, curves[0][0].lam)))
        ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        ax.set_aspect("equal")
        ax.grid(True)
        if i + across >= len(panels):
            ax.set_xlabel("critic says: real")
            ax.tick_params(labelbottom=True)
        if i % across == 0:
            ax.set_ylabel("is real")
    return fig


def reliability(run: Run) -> np.ndarray | None:
    """The last reliability curve, (3, bins that hold something): predicted, observed, mass."""
    if not run.ratio:
        return None
    lists = [run.last(f"reliability_{part}") for part in ("predicted", "observed", "mass")]
    if any(not isinstance(part, list) for part in lists) or len({len(p) for p in lists}) != 1:
        return None
    curve = np.asarray(lists, np.float64)
    curve = curve[:, np.isfinite(curve).all(0) & (curve[2] > 0)]
    return curve if curve.size else None
