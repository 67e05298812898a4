"""The figures of the theory: functions f_λ, frontiers of known densities, mixture weights.

Notation: p data and q model density, r = p/q, u = r as the argument of f, t that of a conjugate;
λ the slope of a ray α = λβ: large, precision matters; small, recall matters.

    f_λ(u) = max(λu, 1) − max(λ, 1),     f_λ*(t) = max(t, 0)/λ + max(λ, 1) − 1 for t ≤ λ
    α(λ) = ∫ min(λp, q),                 β(λ) = α(λ)/λ
    D_f(P‖Q) = ∫ w(λ) D_λ(P‖Q) dλ,       w(λ) = f''(1/λ)/λ³

After Verine et al., NeurIPS 2023 (arXiv:2305.18910); rays as in Sajjadi et al. 2018. Everything
is computed from `prpr.divergences` and `prpr.frontier`; no experiment enters.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prpr import divergences, frontier, plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAMS = (0.25, 0.5, 1.0, 2.0, 4.0)
DASHED = {"linewidth": 1.0, "linestyle": (0, (3, 1.6))}


def lam_text(lam: float) -> str:
    """1/4, 1/2, 1, 2, ...: λ as it is written in a figure."""
    return f"{lam:g}" if lam >= 1 else f"1/{1 / lam:g}"


def lam_color(lam: float) -> tuple[float, float, float]:
    """The colour of λ, the whole scale being spent on LAMS."""
    return plotting.lam_color(lam, low=LAMS[0], high=LAMS[-1])


@plotting.styled
def pr_divergences() -> "Figure":
    """f_λ and f_λ* for five λ; dashed, the smoothed f_λ that has a gradient at every u."""
    fig, (left, right) = plotting.subplots(1, 2, size=(plotting.PAGE, 3.0))
    sharp, smooth = divergences.get("pr"), divergences.get("smoothed_pr")
    u = np.linspace(0, 6, 1201)
    for lam in LAMS:
        color = lam_color(lam)
        left.plot(u, sharp.f(u, lam), color=color, label=f"λ = {lam_text(lam)}")
        left.plot(u, smooth.f(u, lam), color=color, **DASHED)
        # f_λ* ends at t = λ, above which it is +∞.
        t = np.linspace(-1.5, lam, 400)
        values = np.asarray(sharp.conjugate(t, lam))
        right.plot(t, values, color=color)
        right.plot(t[-1:], values[-1:], "o", color=color, markersize=3.5)
        right.plot([lam, lam], [values[-1], 6], color=color, linewidth=0.7, linestyle=":")
        dual = np.asarray(smooth.conjugate(t, lam))
        seen = np.isfinite(dual)
        right.plot(t[seen], dual[seen], color=color, **DASHED)
    left.set(xlim=(0, 6), ylim=(-3.2, 4.6), xlabel="$u$", ylabel="$f_\\lambda(u)$")
    right.set(xlim=(-1.5, 4.3), ylim=(-0.2, 4.6), xlabel="$t$", ylabel="$f_\\lambda^*(t)$")
    left.set_title("(a)  the function: its slope jumps by λ at u = 1/λ")
    right.set_title("(b)  its conjugate: +∞ beyond t = λ (dotted)")
    for ax in (left, right):
        ax.axhline(0, color=plotting.GREY, linewidth=0.5, zorder=0)
    left.plot([], [], color=plotting.GREY, **DASHED, label="smoothed, τ = 1/4")
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return fig


def _mixture(*parts: tuple[float, float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """The density of Σ weight·N(mean, deviation²), from (weight, mean, deviation)."""

    def density(x: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for weight, mean, deviation in parts:
            bell = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
            total += weight * bell / (deviation * np.sqrt(2 * np.pi))
        return total

    return density


DATA = _mixture((0.5, -2, 0.5), (0.5, 2, 0.5))
MODELS = {
    "close to the data": _mixture((0.45, -1.9, 0.55), (0.55, 2.1, 0.55)),
    "drops a mode": _mixture((0.97, -2, 0.5), (0.03, 2, 0.5)),
    "too wide": _mixture((0.5, -2, 1.4), (0.5, 2, 1.4)),
    "misplaces a mode": _mixture((0.5, -2, 0.5), (0.5, 4.5, 0.5)),
}
GRID = np.linspace(-9, 9, 6001)
CELL = GRID[1] - GRID[0]


@plotting.styled
def frontiers() -> "Figure":
    """The frontiers of four models of one bimodal density, with the rays α = λβ."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(plotting.PAGE, 3.9), layout="constrained")
    halves = fig.add_gridspec(1, 2, width_ratios=(1.75, 1))
    main, side = fig.add_subfigure(halves[0]), fig.add_subfigure(halves[1])
    plane = main.subplots()
    small = side.subplots(len(MODELS), 1, sharex=True)
    plotting.frontier_axes(plane, limit=1.0)
    for lam in LAMS:
        _ray(plane, lam)
    p = DATA(GRID)
    # Far out for the ends of the frontiers, densest about λ = 1.
    sweep = np.exp(28 * np.linspace(-1, 1, 1201) ** 3)
    for (name, model), ax, line in zip(MODELS.items(), small, plotting.LINES, strict=False):
        q = model(GRID)
        alpha = np.asarray(frontier.exact(p, q, sweep, volume=CELL))
        plane.plot(alpha / sweep, alpha, **line, clip_on=False, zorder=3)
        for lam in LAMS:
            at = float(frontier.exact(p, q, lam, volume=CELL))
            plane.plot(
                at / lam, at, "o", color=lam_color(lam), markersize=4, zorder=4, clip_on=False
            )
        ax.fill_between(GRID, p, color="#D9D9D9", linewidth=0)
        ax.plot(GRID, q, **line)
        ax.set(xlim=(-6.5, 6.5), ylim=(0, None), yticks=[])
        ax.set_title(name, color=line["color"], pad=2)
        ax.spines["left"].set_visible(False)
    small[-1].set_xlabel("$x$")
    side.suptitle("data $p$ (grey) and model $q$", fontsize=8.5)
    return fig


def _ray(ax: "Axes", lam: float) -> None:
    """The ray α = λβ within the unit square, with its λ written outside."""
    color = lam_color(lam)
    end = (min(1, 1 / lam), min(1, lam))
    ax.plot([0, end[0]], [0, end[1]], color=color, linewidth=0.8, alpha=0.7, zorder=1)
    above = lam >= 1
    ax.annotate(
        f"λ = {lam_text(lam)}",
        end,
        xytext=(0, 4) if above else (4, 0),
        textcoords="offset points",
        ha="center" if above else "left",
        va="bottom" if above else "center",
        color=color,
        fontsize=7.5,
        annotation_clip=False,
    )


TICKS = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
SKEWED = {
    "kl": "KL (maximum likelihood)",
    "reverse_kl": "reverse KL",
    "pearson": "Pearson $\\chi^2$",
    "neyman": "Neyman $\\chi^2$",
}
EVEN = {
    "jensen_shannon": "Jensen-Shannon",
    "jeffreys": "Jeffreys",
    "squared_hellinger": "squared Hellinger",
    "le_cam": "Le Cam",
}


@plotting.styled
def mixture_weights() -> "Figure":
    """Which λ the usual f-divergences weigh, per d log λ.

    D_f = ∫ λ w(λ) min(1, λ) · D̄_λ d log λ with D̄_λ = D_λ/min(1, λ) in [0, 1]. The factor
    λ w(λ) min(1, λ) is drawn, over its value at λ = 1: on this scale a divergence that is
    symmetric in P and Q is an even function of log λ.
    """
    fig, axes = plotting.subplots(1, 2, size=(plotting.PAGE, 3.2), sharey=True)
    lam = np.geomspace(1 / 32, 32, 641)
    for ax, names in zip(axes, (SKEWED, EVEN), strict=True):
        for (name, label), line in zip(names.items(), plotting.LINES, strict=False):
            weight = divergences.get(name).weight
            scaled = lam * np.minimum(1, lam) * np.asarray(weight(lam, 1.0))
            ax.plot(lam, scaled / float(weight(1.0, 1.0)), label=label, **line)
        ax.set(xscale="log", yscale="log", xlim=(lam[0], lam[-1]), ylim=(1 / 40, 40))
        ax.set(xlabel="λ", xticks=TICKS, xticklabels=[lam_text(tick) for tick in TICKS])
        ax.minorticks_off()
        for x, side, text in ((0, "left", "← recall"), (1, "right", "precision →")):
            ax.annotate(
                text,
                (x, 0),
                xycoords="axes fraction",
                xytext=(0, -19),
                textcoords="offset points",
                ha=side,
                va="top",
            )
        ax.axvline(1, color=plotting.GREY, linewidth=0.5, zorder=0)
    skewed, even = axes
    even.annotate(
        "", (1, 30), (1, 1 / 40), arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.5}
    )
    even.plot([], [], "^", color="black", markersize=5, label="total variation (Dirac)")
    skewed.set_ylabel(
        "weight of $D_\\lambda\\,/\\min(1, \\lambda)$ per $d\\,\\log\\lambda$\nrelative to λ = 1",
        multialignment="center",
    )
    skewed.set_title("(a)  divergences that take a side")
    even.set_title("(b)  divergences that are symmetric in P and Q")
    for ax in axes:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return fig


FIGURES: dict[str, Callable[[], "Figure"]] = {
    "pr_divergences": pr_divergences,
    "frontiers": frontiers,
    "mixture_weights": mixture_weights,
}


def write_all(out: str | os.PathLike[str]) -> list[Path]:
    """Draws every figure into the folder `out`, as PNG and PDF; returns the paths.

    Raises:
      WorkdirError: the folder cannot be made or written to.
    """
    folder = Path(out)
    return [path for name, draw in FIGURES.items() for path in plotting.save(draw(), folder / name)]
