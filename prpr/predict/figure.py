"""The frontier as it is, the room above it, and what can be done in the plane of both metrics."""

from typing import TYPE_CHECKING

import numpy as np

from prpr import plotting
from prpr.predict.options import BOTH, LEAVE, REJECT, TRUNCATE, TUNE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prpr.predict.result import Prediction

_LOOKS = {
    LEAVE: (plotting.BLACK, "s"),
    TRUNCATE: (plotting.ORANGE, "v"),
    REJECT: (plotting.BLUE, "o"),
    TUNE: (plotting.GREEN, "D"),
    BOTH: (plotting.PURPLE, "P"),
}


@plotting.styled
def draw(found: "Prediction") -> "Figure":
    """Two panels; what is measured is filled, what is guessed hollow, what was reached a star."""
    fig, (left, right) = plotting.subplots(1, 2, (plotting.PAGE, 3.4))
    f, top = found.frontier, np.minimum(1.0, found.frontier.lam)
    left.fill_between(f.lam, f.alpha / top, 1, color=plotting.GREEN, alpha=0.12, linewidth=0)
    left.fill_between(f.lam, f.low / top, f.high / top, color=plotting.BLUE, alpha=0.3, linewidth=0)
    left.plot(f.lam, f.alpha / top, color=plotting.BLUE, marker="o", markersize=3)
    left.plot(f.lam, found.upper / top, color=plotting.GREY, linestyle=":", label="at most")
    left.legend(loc="lower right")
    left.set(
        xscale="log",
        ylim=(0, 1.02),
        xlabel="λ",
        ylabel="α(λ) / min(1, λ)",
        title="as it is (blue), and the room above it (green)",
    )
    left.xaxis.set_major_formatter("{x:g}")
    level, seen = found.about["level"], set()
    for one in found.options:
        colour, marker = _LOOKS[one.action]
        shown = one.to_json(level)
        p, r = shown["precision"], shown["recall"]
        label = None if one.action in seen else one.action
        seen.add(one.action)
        right.errorbar(
            r["value"],
            p["value"],
            xerr=[[r["value"] - r["low"]], [r["high"] - r["value"]]],
            yerr=[[p["value"] - p["low"]], [p["high"] - p["value"]]],
            color=colour,
            marker=marker,
            markersize=4,
            markerfacecolor=colour if one.measured else "white",
            linestyle="none",
            elinewidth=0.5,
            alpha=1.0 if one.measured else 0.6,
            label=label,
        )
        if one.action == TUNE:
            at = (r["value"], p["value"])
            right.annotate(f"{one.lam:g}", at, (4, -8), textcoords="offset points", fontsize=6.5)
    real = found.at_most
    at = (real["recall"]["value"], real["precision"]["value"])
    right.plot(*at, marker="x", color=plotting.BLACK, linestyle="none", label="real data")
    for i, one in enumerate(found.reached.values()):
        label = None if i else "reached"
        right.plot(
            one["recall"], one["precision"], marker="*", markersize=7, linestyle="none",
            color=plotting.RED, label=label,
        )  # fmt: skip
    right.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="what can be done"
    )
    right.legend(loc="lower left", fontsize=6.5)
    return fig
