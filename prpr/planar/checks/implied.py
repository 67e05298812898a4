"""The trade-off that a divergence implies: trained with it, a flow lands where its weight is.

Notation: P data, Q = q_θ a flow, r = p/q the true ratio, a(log r) = −(f(r) − r f'(r)) the ascent
of a divergence D_f or of D_λ (`prpr.objectives`), w its mixture weight.

One family of flows, one start, one estimate of the gradient; only a differs between the runs:

    −∇D_f = E_q[a ∇log q] = E_m[(2/(1 + r)) (a − b) ∇log q],   m = (p + q)/2

from as many data as samples (`objectives.balanced_loss`; b its baseline). From weighted data alone,
a/r, or from samples alone the gradient would be of the same expectation, but its weights grow
faster. These are bounded for D_λ and where a grows no faster than r and is finite at r = 0 (KL's
a = r); they are not for Pearson (a/(1 + r) = r − 1), nor for reverse KL and Jeffreys (log r as
r → 0). And a sees log r cut to ±LIMIT, its denominator does not: where |log r| > LIMIT this is not
D_f's gradient. The share of (p + q)/2 there is recorded, at the start and of each flow that was
trained (`beyond`). Neyman's χ² is not among them: its E_q[1/r] is that of the few samples between
the modes, beyond e^100.

What is compared: each divergence's `centre` (`prpr.planar.checks.centres`), before anything is
trained, with the true precision and recall of the flow it has trained; beside them the flows
trained for D_λ, over λ. The centre is not that of P and the start themselves but of both cut to the
cells that hold 99 % of (p + q)/2 (`grids.masses`): Pearson's is made mostly of what is cut. It
depends on the pair, then, but the order of the centres is mostly fixed by the weights alone; ρ is
given with another share cut, OTHER, too.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import objectives, plotting, train
from prpr.errors import PrprError
from prpr.planar.checks import grids, parts, runs
from prpr.planar.checks.centres import NODES, Centre, centre
from prpr.planar.grid import oracle_of
from prpr.planar.truth import Measured

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
OTHER = 0.001  # unseen share of (p + q)/2, beside grids.UNSEEN
LARGEST = 1e-2  # relative error of a divergence as a mixture


def settings() -> dict[str, Any]:
    """What the numbers rest on beside the configurations."""
    return {
        "names": NAMES,
        "limit": LIMIT,
        "unseen": (grids.UNSEEN, OTHER),
        "nodes": NODES,
    }


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
    centres, others = (
        [[_centre(name, log_p, one, unseen) for name in names] for one in log_q]
        for unseen in (grids.UNSEEN, OTHER)
    )
    nets = jax.tree.map(lambda leaf: leaf[:, count:].reshape(-1, *leaf.shape[2:]), states.ema)
    _, log_trained = grids.log_densities(system, setting.law, nets, setting.cells)
    beyond = np.array([_beyond(log_p, one) for one in log_trained])
    return {
        "frontier": runs.numbers_of(grid, lams),
        "names": list(names),
        "precision": own.precision.tolist(),
        "recall": own.recall.tolist(),
        "error": own.ends_error.tolist(),
        "beyond": {
            "start": [_beyond(log_p, one) for one in log_q],
            "trained": beyond.reshape(len(cfg.seeds), -1).tolist(),
        },
        "centres": [[list(one) for one in row] for row in centres],
        # That the mixture is the divergence, of the pair's masses.
        "mixture_error": max(
            abs(one.mixture / one.divergence - 1) for row in centres for one in row
        ),
        **_ranks(centres, own),
        "other": {"unseen": OTHER, **_ranks(others, own)},
    }


def _centre(name: str, log_p: np.ndarray, log_q: np.ndarray, unseen: float) -> Centre:
    found = centre(name, *grids.masses(log_p, log_q, unseen))
    error = abs(found.mixture / found.divergence - 1)
    if not error < LARGEST:
        raise PrprError(
            f"{name} as a mixture is {error:.2g} off the divergence itself, with {unseen:g} of "
            f"(p + q)/2 cut; raise NODES = {NODES} of prpr/planar/checks/centres.py."
        )
    return found


def _beyond(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """The share of (p + q)/2 where |log r| > LIMIT."""
    m = np.exp(log_p) + np.exp(log_q)
    return float(m[np.abs(log_p - log_q) > LIMIT].sum() / m.sum())


def _ranks(centres: list[list[Centre]], own: Measured) -> dict[str, list[float]]:
    """The rank correlations of the centres with precision and recall at each seed, (S,)."""
    at = [tuple(one.centre for one in row) for row in centres]

    def of(values: np.ndarray) -> list[float]:
        return [float(runs.ranks(a, b[None])[0]) for a, b in zip(at, values, strict=True)]

    return {"spearman_precision": of(own.precision), "spearman_recall": of(own.recall)}


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
        ax.set(xscale="log", xlabel="λ, or quartiles of $w D_\\lambda$", ylabel=f"true {side}")
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
    titles = f"{'centre λ':>12}{'precision':>11}{'recall':>9}{'beyond':>9}"
    lines = [f"{'divergence':20}{titles}"]
    beyond = np.mean(numbers["beyond"]["trained"], axis=0)
    centres = np.exp(np.log(np.asarray(numbers["centres"])[:, :, 3]).mean(axis=0))
    for i in np.argsort(centres):
        precision, recall = (np.asarray(numbers[k])[:, i].mean() for k in ("precision", "recall"))
        lines.append(
            f"{numbers['names'][i]:20}{centres[i]:12.3g}{precision:11.3f}{recall:9.3f}"
            f"{beyond[i]:9.2g}"
        )
    start = np.max(numbers["beyond"]["start"])
    lines.append(
        f"centre: half of w·D_λ is below; beyond: share of (p + q)/2 where |log r| > {LIMIT:g} "
        f"(at the start {start:.2g})"
    )
    for unseen, of in ((grids.UNSEEN, numbers), (OTHER, numbers["other"])):
        ranks = (runs.mean(of[f"spearman_{side}"]) for side in ("precision", "recall"))
        text = "ρ of centre with precision {:.3f}, with recall {:.3f}".format(*ranks)
        lines.append(f"{text}, {unseen:.1%} of (p + q)/2 cut")
    lines.append(f"largest error of a divergence as a mixture: {numbers['mixture_error']:.2g}")
    lines += [parts.grid_head("frontier of λ"), parts.grid_row("flow", numbers["frontier"])]
    lines.append(parts.error_row((numbers["error"], numbers["frontier"]["error"])))
    return lines
