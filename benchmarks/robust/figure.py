"""Heat maps, a panel a number: conditions by base, λ and controls; variants by conditions."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prpr import plotting

from .table import Effect, Line, index
from .variants import VARIANTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _mean(field: str) -> Callable[[Line], float]:
    return lambda line: line.cells[field].mean


def _odd(line: Line) -> float:
    """Of noise and outliers the larger share: no data have both."""
    return max(line.cells["noise_share"].mean, line.cells["outlier_share"].mean)


def _lost(line: Line) -> float:
    """Share of the runs that collapsed or failed."""
    return (line.collapsed + line.failed) / line.runs


# Title, value, whether more is better.
PANELS: tuple[tuple[str, Callable[[Line], float], bool], ...] = (
    ("precision", _mean("precision"), True),
    ("recall", _mean("recall"), True),
    ("recall of the rare class", _mean("rare_recall"), True),
    ("share of noise or outliers", _odd, False),
    ("share collapsed or failed", _lost, False),
)


def _column(line: Line) -> str:
    return line.label if line.lam is None else f"{line.lam:g}"


def _across(lines: Sequence[Line]) -> list[str]:
    """The columns: base, every λ, controls."""
    names = {_column(line) for line in lines}
    lams = sorted(names - {"base", "hinge", "logistic"}, key=float)
    return [name for name in ("base", *lams, "hinge", "logistic") if name in names]


@plotting.styled
def heat_map(lines: Sequence[Line], variant: str = "default") -> "Figure":
    """A figure of `table.lines`: λ of one variant, beside base and controls.

    Fields are empty where nothing was run. Conditions without the variant are left out.
    """
    conditions = {line.condition for line in lines if line.variant == variant}
    shown = [
        line
        for line in lines
        if line.condition in conditions and (line.lam is None or line.variant == variant)
    ]
    rows, columns = list(dict.fromkeys(line.condition for line in shown)), _across(shown)
    size = (plotting.PAGE, 3 * (0.6 + 0.16 * max(len(rows), 3)))
    fig, axes = plotting.subplots(3, 2, size=size)
    for place, (ax, (title, value, better)) in enumerate(zip(axes, PANELS, strict=False)):
        grid = np.full((len(rows), len(columns)), math.nan)
        for line in shown:
            grid[rows.index(line.condition), columns.index(_column(line))] = value(line)
        dark = grid if better else 1 - grid
        _panel(ax, title, rows, columns, labelled=place % 2 == 0)
        ax.imshow(dark, cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
        _numbers(ax, grid, lambda x: f"{x:.2f}" if x < 1 else f"{x:.0f}", white=dark > 0.55)
    for ax in axes[len(PANELS) :]:
        ax.axis("off")
        about = f"Numbers across are λ ({variant}).\nDark is good in every panel."
        ax.text(0, 0.9, about, va="top")
    return fig


# Field, title, whether more is better, and the change that has the full colour.
CHANGES: tuple[tuple[str, str, bool, float], ...] = (
    ("precision", "precision", True, 0.2),
    ("recall", "recall", True, 0.2),
    ("noise_share", "share of noise", False, 0.1),
    ("calibration_error", "calibration error", False, 0.1),
)


@plotting.styled
def changes(effects: Sequence[Effect]) -> "Figure":
    """A figure of `table.effects`: what each variant changes against the default."""
    rows = sorted({one.variant for one in effects}, key=lambda name: index(VARIANTS, name))
    columns = list(dict.fromkeys(one.condition for one in effects))
    size = (plotting.PAGE, 2 * (0.7 + 0.16 * max(len(rows), 3)))
    fig, axes = plotting.subplots(2, 2, size=size)
    for place, (ax, (field, title, better, full)) in enumerate(zip(axes, CHANGES, strict=True)):
        grid = np.full((len(rows), len(columns)), math.nan)
        for one in effects:
            grid[rows.index(one.variant), columns.index(one.condition)] = one.cells[field].mean
        good = grid if better else -grid
        _panel(ax, title, rows, columns, labelled=place % 2 == 0)
        ax.imshow(good, cmap="PuOr", vmin=-full, vmax=full, aspect="auto")
        _numbers(ax, grid, lambda x: f"{x:+.2f}", white=abs(grid) > 0.7 * full)
    fig.suptitle("What a variant changes against the default (purple is better)")
    return fig


def _panel(
    ax: "Axes", title: str, rows: Sequence[str], columns: Sequence[str], *, labelled: bool
) -> None:
    ax.set_title(title)
    ax.tick_params(length=0)
    ax.set_yticks(range(len(rows)), rows if labelled else [""] * len(rows))
    ax.set_xticks(range(len(columns)), columns)


def _numbers(ax: "Axes", grid: np.ndarray, text: Callable[[float], str], white: np.ndarray) -> None:
    """Writes what is there into its field, in white or in black."""
    for (i, j), number in np.ndenumerate(grid):
        if not math.isnan(number):
            said, color = text(number).replace("0.", ".", 1), "white" if white[i, j] else "black"
            ax.text(j, i, said, ha="center", va="center", color=color, fontsize=6.5)
