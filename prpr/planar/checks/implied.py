"""The trade-off that a divergence implies: trained with it, a flow lands where its weight is.

Notation: P data, Q = q_θ a flow, r = p/q the true ratio, a(log r) = −(f(r) − r f'(r)) the ascent
of a divergence D_f or of D_λ (`prpr.objectives`), w its mixture weight.

One family of flows, one start, one estimate of the gradient; only a differs between the runs:

    −∇D_f = E_q[a ∇log q] = E_m[(2/(1 + r)) (a − b) ∇log q],   m = (p + q)/2

from as many data as samples (`objectives.balanced_loss`; b the mean of a over the samples). From
weighted data alone, a/r, or from samples alone the gradient would be unbiased too, but for some
divergences of a weight without bound where q is large and p small, or the reverse. Neyman's χ² is
not among them: its E_q[1/r] is that of the few samples between the modes, beyond e^100.

What is compared: each divergence's `centre` (`prpr.planar.checks.centres`) on P and the start,
before anything is trained, with the true precision and recall of the flow it has trained; beside
them the flows trained for D_λ, over λ.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import objectives, plotting, train
from prpr.planar.checks import grids, parts, runs
from prpr.planar.checks.centres import centre
from prpr.planar.grid import oracle_of
from prpr.planar.truth import Measured, spearman

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "pearson": "Pearson $\\chi^2$",
    "kl": "KL",
    "jeffreys": "Jeffreys",
    "squared_hellinger": "Hellinger$^2$",
    "jensen_shannon": "Jensen-Shannon",
    "le_cam": "Le Cam",
    "reverse_kl": "reverse KL",
}
NAMES = tuple(LABELS)
LIMIT = 30.0  # |log r| that an ascent sees: e^30 squared is still finite


def _ascents(names: Sequence[str]) -> list[Callable[[jax.Array, Any], jax.Array]]:
    """(log_r, dials) -> a: of D_λ, smoothed, then of each divergence."""

    def of_name(name: str) -> Callable[[jax.Array, Any], jax.Array]:
        objective = objectives.get(name)
        return lambda log_r, dials: objective.ascent(log_r, log_r, dials)

    return [of_name("envelope"), *map(of_name, names)]


def _system(setting: runs.Setting, names: Sequence[str]) -> train.System:
    """The flow's with the true ratio; dials["which"] is 0 for D_λ, or 1 + the place in `names`."""
    ascents = _ascents(names)

    def ascent(_: jax.Array, log_r: jax.Array, dials: Any) -> jax.Array:
        clipped = jnp.clip(log_r, -LIMIT, LIMIT)
        return jax.lax.switch(dials["which"].astype(jnp.int32), ascents, clipped, dials)

    objective = objectives.Objective("any", ascent, ("lam", "tau", "which"))
    oracle = oracle_of(setting.flow_system, setting.name)
    return oracle._replace(objective=objective, route="balanced")


def compute(setting: runs.Setting, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """Trains a flow for every λ and every divergence, from every seed's start."""
    cfg, lams = setting.flow, setting.lams
    system, bases = _system(setting, names), setting.flow_bases
    dials = [{"lam": lam, "which": 0.0} for lam in lams]
    dials += [{"lam": 1.0, "which": 1.0 + i} for i in range(len(names))]
    states = runs.starts(system, cfg, bases, train.Net({}, {}), dials)
    states = runs.trained(
        lambda _: system, cfg, setting.points(), states, setting.devices, "implied"
    )
    states = runs.shaped(states, len(cfg.seeds), len(dials))
    count, blank = len(lams), tuple(1.0 for _ in names)
    found = runs.measured(
        setting, system, jax.tree.map(lambda leaf: leaf[:, None], states), (*lams, *blank)
    )
    grid = Measured(*(column[:, 0, :count] for column in found))
    own = Measured(*(column[:, 0, count:] for column in found))
    log_p, log_q = setting.densities
    centres = [[centre(name, *grids.masses(log_p, one)) for name in names] for one in log_q]
    at = np.array([[one.centre for one in row] for row in centres])
    return {
        "frontier": runs.numbers_of(grid, lams),
        "names": list(names),
        "precision": own.precision.tolist(),
        "recall": own.recall.tolist(),
        "centres": [[list(one) for one in row] for row in centres],
        # That the mixture is the divergence, of the pair's masses.
        "mixture_error": max(
            abs(one.mixture / one.divergence - 1) for row in centres for one in row
        ),
        "spearman_precision": _ranks(at, own.precision),
        "spearman_recall": _ranks(at, own.recall),
    }


def _ranks(centres: np.ndarray, values: np.ndarray) -> list[float]:
    """(S, K) each -> the rank correlation at each seed."""
    pairs = zip(centres, values, strict=True)
    return [float(spearman(tuple(one), other[None])[0]) for one, other in pairs]


@plotting.styled
def draw(name: str, numbers: dict[str, Any]) -> "Figure":
    """Divergences on the frontier of λ; their precision and recall over their centres."""
    fig, axes = plotting.subplots(1, 3, (plotting.PAGE, 3.2))
    parts.frontier(axes[0], numbers["frontier"], plotting.GREY, "$D_\\lambda$")
    parts.label_frontier(axes[0], "where they land")
    grid = numbers["frontier"]
    order = np.argsort(grid["lams"])
    for ax, side in zip(axes[1:], ("precision", "recall"), strict=True):
        for row in grid[side]:
            lams, values = np.asarray(grid["lams"])[order], np.asarray(row)[order]
            ax.plot(lams, values, color=plotting.GREY, linewidth=0.8)
        ranks = runs.mean(numbers[f"spearman_{side}"])
        ax.set(xscale="log", xlabel="λ, or centre of the weight", ylabel=f"true {side}")
        ax.set_title(f"{side}: ρ = {ranks:.2f}")
    centres = np.asarray(numbers["centres"])
    markers = dict(zip(NAMES, "osD^vP*", strict=True))
    for i, each in enumerate(numbers["names"]):
        color = plotting.PALETTE[i % len(plotting.PALETTE)]
        shape = {"color": color, "marker": markers.get(each, "X"), "s": 26, "linewidths": 0}
        precision, recall = (np.asarray(numbers[side])[:, i] for side in ("precision", "recall"))
        axes[0].scatter(recall, precision, label=LABELS.get(each, each), zorder=4, **shape)
        for ax, values in zip(axes[1:], (precision, recall), strict=True):
            ax.scatter(centres[:, i, 3], values, zorder=4, **shape)
            ax.hlines(values, centres[:, i, 2], centres[:, i, 4], color=color, linewidth=0.7)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    fig.suptitle(f"{name}: one flow trained for f-divergences, with the true ratio", fontsize=8.5)
    return fig


def table(numbers: dict[str, Any]) -> list[str]:
    """Rows of text."""
    lines = [f"{'divergence':20}{'centre λ':>12}{'precision':>11}{'recall':>9}"]
    centres = np.exp(np.log(np.asarray(numbers["centres"])[:, :, 3]).mean(axis=0))
    for i in np.argsort(centres):
        precision, recall = (np.asarray(numbers[k])[:, i].mean() for k in ("precision", "recall"))
        lines.append(f"{numbers['names'][i]:20}{centres[i]:12.3g}{precision:11.3f}{recall:9.3f}")
    ranks = (runs.mean(numbers[f"spearman_{side}"]) for side in ("precision", "recall"))
    lines.append("ρ of centre with precision {:.3f}, with recall {:.3f}".format(*ranks))
    lines += [parts.grid_head("frontier of λ"), parts.grid_row("flow", numbers["frontier"])]
    return lines
