"""What the checks' figures and tables have in common."""

from typing import TYPE_CHECKING, Any

import numpy as np

from prpr import plotting
from prpr.planar.checks.runs import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def frontier(ax: "Axes", grid: dict[str, Any], color: Any, label: str | None) -> None:
    """Points of `runs.numbers_of` in the order of λ, joined; small λ has small points."""
    order = np.argsort(grid["lams"])
    sizes = np.linspace(4, 22, len(order))
    for i, (precision, recall) in enumerate(zip(grid["precision"], grid["recall"], strict=True)):
        x, y = np.asarray(recall)[order], np.asarray(precision)[order]
        ax.plot(x, y, color=color, linewidth=0.8, label=None if i else label)
        ax.scatter(x, y, s=sizes, color=color, linewidths=0, zorder=3)


def label_frontier(ax: "Axes", title: str) -> None:
    """Axes and title."""
    ax.set(xlabel="true recall  $\\beta(1/20)$", ylabel="true precision  $\\alpha(20)$")
    ax.set_title(title)


def grid_head(first: str) -> str:
    """Titles of `grid_row`."""
    titles = ("ρ precision", "ρ recall", "hypervolume", "precision", "recall")
    return f"{first:20}" + "".join(f"{title:>14}" for title in titles)


def grid_row(key: str, grid: dict[str, Any]) -> str:
    """Means over seeds: rank correlations of λ, area, least and largest precision and recall."""
    columns = ("spearman_precision", "spearman_recall", "hypervolume")
    cells = [f"{mean(grid[column]):.3f}" for column in columns]
    for side in ("precision", "recall"):
        values = np.asarray(grid[side], np.float64)
        low, high = values.min(axis=1).mean(), values.max(axis=1).mean()
        cells.append(f"{low:.2f} to {high:.2f}")
    return f"{key:20}" + "".join(f"{cell:>14}" for cell in cells)


def error_row(errors: Any) -> str:
    """A line of text: the largest error of the integration."""
    largest = max(float(np.max(np.asarray(each, np.float64))) for each in errors)
    return f"largest error of the integration of precision and recall: {largest:.2g}"


def over(ax: "Axes", x: list[Any], grids: list[dict[str, Any]], log: bool = True) -> None:
    """Rank correlations with λ and hypervolume of a row of grids, means and seeds, over x."""
    columns = {
        "ρ of precision": ("spearman_precision", 1, plotting.LINES[0]),
        "−ρ of recall": ("spearman_recall", -1, plotting.LINES[1]),
        "hypervolume": ("hypervolume", 1, plotting.LINES[2]),
    }
    for label, (column, sign, line) in columns.items():
        values = sign * np.array([grid[column] for grid in grids], np.float64)
        ax.plot(x, [mean(row) for row in values], label=label, **line)
        for seed in values.T:
            ax.scatter(x, seed, s=7, color=line["color"], linewidths=0)
    ax.set_ylim(top=1.05)
    if log:
        ax.set_xscale("log")
    ax.legend(loc="best")
