"""The published plug-in against the envelope gradient.

Notation: r = p/q, frozen in both; τ the envelope's temperature.

    envelope   ascends E_q[σ((log r + log λ)/τ)], which tends to ∇α(λ) as τ → 0
    plug_in    ascends E_q[min(λr, 1)], α(λ) itself with r frozen (Verine et al.,
               arXiv:2305.18910); a mixture of D_μ over μ > λ (`prpr.objectives.plug_in`)

Trained over λ: the flow by the route of its configuration (reweighted data, or data and samples)
with the true ratio, so that only the objective differs, and the GAN through its samples with the
ratio that its critic learns; each at its configuration's τ. And at the flow's start the cosine of
either's expected gradient with ∇α(λ), by sums over a grid, at the flow's τ.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from prpr import build, objectives, plotting, train
from prpr.planar.checks import grids, parts, runs
from prpr.planar.grid import oracle_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OBJECTIVES = ("envelope", "plug_in")
MODELS = {"flow": "flow, true ratio", "gan": "GAN, learned ratio"}
COLORS = {"envelope": plotting.BLUE, "plug_in": plotting.RED}


def settings() -> dict[str, Any]:
    """What the numbers rest on beside the configurations."""
    return {"objectives": OBJECTIVES}


def ascents(log_r: np.ndarray, lam: float, tau: float) -> dict[str, np.ndarray]:
    """a at log r (N,) of each objective, and of ∇α(λ) itself ("true")."""
    x = np.clip(log_r + np.log(lam), -300, 300)
    return {
        "true": (x > 0).astype(np.float64),
        "envelope": expit(x / tau),
        "plug_in": np.exp(np.minimum(x, 0.0)),
    }


def cosines(setting: runs.Setting, tau: float) -> dict[str, Any]:
    """Objective -> cosine with ∇α(λ) at each seed's start, (S, L)."""
    log_p, log_q = setting.densities
    rows = [
        [
            ascents(log_p - one, lam, tau)[name]
            for name in ("true", *OBJECTIVES)
            for lam in setting.lams
        ]
        for one in log_q
    ]
    found = grids.gradients(
        setting.flow_system, setting.flow_bases.ema, np.array(rows), setting.cells
    )
    true, *others = np.split(found, 1 + len(OBJECTIVES), axis=1)
    pairs = zip(OBJECTIVES, others, strict=True)
    return {name: grids.cosine(one, true).tolist() for name, one in pairs}


def _either(system: train.System) -> train.System:
    """The system with either objective, by dials["plug_in"], 0 or 1: one program for both."""
    envelope, plug_in = (objectives.get(name).ascent for name in OBJECTIVES)

    def ascent(output: jax.Array, log_r: jax.Array, dials: Any) -> jax.Array:
        pair = (envelope(output, log_r, dials), plug_in(output, log_r, dials))
        return jnp.where(dials["plug_in"] > 0.5, pair[1], pair[0])

    both = objectives.Objective("envelope or plug_in", ascent, ("lam", "tau", "plug_in"))
    return system._replace(objective=both)


def compute(setting: runs.Setting) -> dict[str, Any]:
    """Both objectives over λ, of flow and GAN, and the cosines."""
    grids_of: dict[str, Any] = {}
    lams, seeds = setting.lams, len(setting.seeds)
    for key in MODELS:
        if key == "flow":
            cfg, bases = setting.flow, setting.flow_bases
            system = _either(oracle_of(setting.flow_system, setting.name))
            critics = train.Net({}, {})
        else:
            cfg, bases = setting.gan, setting.gan_bases
            system = _either(build.system(cfg, setting.points()))
            critics = bases.critic
        dials = [{"lam": lam, "plug_in": i} for i in range(len(OBJECTIVES)) for lam in lams]
        states = runs.starts(system, cfg, bases, critics, dials)
        states = runs.trained(
            lambda _, system=system: system,
            cfg,
            setting.points(),
            states,
            setting.devices,
            f"plug_in, {key}",
        )
        states = runs.shaped(states, seeds, len(OBJECTIVES), len(lams))
        found = runs.measured(setting, system, states, lams)
        for i, name in enumerate(OBJECTIVES):
            grids_of[f"{key}, {name}"] = runs.numbers_of(runs.one_of(found, i), lams)
    taus = {"flow": float(setting.flow.dials.tau), "gan": float(setting.gan.dials.tau)}
    return {"grids": grids_of, "taus": taus, "cosines": cosines(setting, taus["flow"])}


@plotting.styled
def draw(name: str, numbers: dict[str, Any]) -> "Figure":
    """Frontiers of flow and GAN under both objectives; cosines over λ."""
    fig, axes = plotting.subplots(1, 3, (plotting.PAGE, 2.6))
    for ax, (key, title) in zip(axes, MODELS.items(), strict=False):
        for objective in OBJECTIVES:
            parts.frontier(
                ax, numbers["grids"][f"{key}, {objective}"], COLORS[objective], objective
            )
        parts.label_frontier(ax, f"{title}; τ = {numbers['taus'][key]:g}")
    axes[0].legend(loc="lower left")
    lams = numbers["grids"]["flow, envelope"]["lams"]
    for objective, rows in numbers["cosines"].items():
        for row in rows:
            axes[2].plot(lams, row, "o-", color=COLORS[objective], markersize=3, linewidth=1)
    axes[2].axhline(0, color=plotting.GREY, linewidth=0.5)
    axes[2].set(xscale="log", ylim=(None, 1.05), xlabel="λ", ylabel="cosine with $\\nabla\\alpha$")
    axes[2].set_title(f"at the flow's start; τ = {numbers['taus']['flow']:g}")
    fig.suptitle(f"{name}: published plug-in and envelope gradient", fontsize=8.5)
    return fig


def table(numbers: dict[str, Any]) -> list[str]:
    """Rows of text."""
    lines = [parts.grid_head("model, objective")]
    lines += [parts.grid_row(key, grid) for key, grid in numbers["grids"].items()]
    lines.append(parts.error_row(grid["error"] for grid in numbers["grids"].values()))
    lines.append(
        "τ: flow {flow:g}, GAN {gan:g}; of the cosines, the flow's".format(**numbers["taus"])
    )
    for objective, rows in numbers["cosines"].items():
        every = np.mean(rows, axis=0)
        text = " ".join(f"{value:.2f}" for value in every)
        lines.append(f"cosine with ∇α(λ), λ rising: {objective:9} {text}")
    return lines
