"""A Lipschitz limit on the critic: how steep log r̂ may be, and what is left of λ.

Notation: T_φ the critic's network, log r̂ = L·T_φ(x). Each layer's kernel is divided by its largest
singular value and leaky ReLU is 1-Lipschitz, so

    |log r̂(x) − log r̂(y)| <= L ‖x − y‖

up to the power iteration's error (one pass a critic update); L is `critic.scale` with
`model.critic_spectral_norm`. "none" is the same network without spectral norm, scale 1; no critic
here has Fourier features, which have no such bound. At the edge of a mode of standard deviation s,
t deviations out, log p has the slope t/s, so data as narrow as ring8's (s = .1) ask for L of ten
and more. The objective of λ acts where log r̂ is near −log λ: if that lies outside of log r̂'s
range, what acts is the tail of a logistic, in the same direction for all such λ.

The GAN is trained over L × λ, each from the base and a fresh critic. `slope` is the largest
|∇ log r̂| at held-out data and SAMPLES samples; `low`, `high` the 1 % and 99 % quantiles of log r̂
at the data and at as many of the samples; α̂ is of all samples.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, frontier, plotting, ratio, train
from prpr.planar.checks import parts, runs
from prpr.planar.truth import SAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMITS = (1.0, 3.0, 10.0, 30.0)
NONE = "none"


def settings() -> dict[str, Any]:
    """What the numbers rest on beside the configurations."""
    return {"limits": LIMITS, "samples": SAMPLES}


def limited(system: train.System, scale: Any) -> train.System:
    """The system with log r̂ = scale · output; the scale may be traced."""
    loss = ratio.get("logistic", scale=scale)
    return system._replace(critic_loss=loss)


class Looked(NamedTuple):
    """Of runs (...): quantiles 1 % and 99 % of log r̂, largest |∇ log r̂|, and α̂(λ) by samples."""

    low: Any
    high: Any
    slope: Any
    estimated: Any


def look(system: train.System, states: train.TrainState, real: np.ndarray) -> Looked:
    """At data (N, 2) and samples of the averaged generators of stacked states (R, ...)."""
    n = len(real)
    z = jax.random.normal(jax.random.key(3), (max(SAMPLES, n), system.dim_z))
    classes = jnp.zeros(n + len(z), jnp.int32)

    @jax.jit
    def every(states: train.TrainState, real: jax.Array) -> Looked:
        def one(state: train.TrainState) -> Looked:
            own = limited(system, state.dials["limit"])
            fake = train.apply_frozen(system.generator, state.ema, z, classes[n:])
            x = jnp.concatenate([real, fake])

            def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
                log_r = train.log_ratio(own, state, x, classes)
                return log_r.sum(), log_r

            slope, log_r = jax.grad(total, has_aux=True)(x)
            low, high = jnp.quantile(log_r[: 2 * n], jnp.array([0.01, 0.99]))
            alpha = frontier.alpha(log_r[n:], state.dials["lam"])
            return Looked(low, high, jnp.linalg.norm(slope, axis=-1).max(), alpha)

        return jax.lax.map(one, states)

    return Looked(*(np.asarray(x, np.float64) for x in every(states, jnp.asarray(real))))


def compute(setting: runs.Setting) -> dict[str, Any]:
    """The GAN over L × λ."""
    lams, points, seeds = setting.coarse_lams, setting.points(), setting.seeds
    real = setting.points("test").images
    found = []
    for limits in (LIMITS, (None,)):
        cfg = setting.gan.copy_and_resolve_references()
        cfg.critic.loss, cfg.critic.parametrisation, cfg.critic.scale = "logistic", "log", 1.0
        cfg.model.fourier, cfg.model.critic_spectral_norm = 0.0, limits is LIMITS
        system = build.system(cfg, points)
        dials = [{"lam": lam, "limit": limit or 1.0} for limit in limits for lam in lams]
        critics = runs.fresh_critics(system, cfg)
        states = runs.starts(system, cfg, setting.gan_bases, critics, dials)
        states = runs.trained(
            lambda state, system=system: limited(system, state.dials["limit"]),
            cfg,
            points,
            states,
            setting.devices,
            "lipschitz",
        )
        shape = (len(seeds), len(limits), len(lams))
        seen = Looked(*(x.reshape(shape) for x in look(system, states, real)))
        at = runs.measured(setting, system, runs.shaped(states, *shape), lams)
        for k in range(len(limits)):
            own = runs.one_of(at, k)
            found.append(
                {
                    **runs.numbers_of(own, lams),
                    "alpha_error": np.abs(seen.estimated[:, k] - own.alpha).tolist(),
                    "low": seen.low[:, k].tolist(),
                    "high": seen.high[:, k].tolist(),
                    "slope": seen.slope[:, k].tolist(),
                }
            )
    return {"limits": [*LIMITS, NONE], "grids": found}


def _name(limit: float | str) -> str:
    return limit if isinstance(limit, str) else f"{limit:g}"


@plotting.styled
def draw(name: str, numbers: dict[str, Any]) -> "Figure":
    """Frontiers a limit; ranks and hypervolume; range of log r̂, and the error of α̂."""
    fig, axes = plotting.subplots(2, 2, (plotting.PAGE, 4.8))
    plane, ranks, span, error = axes
    limits, every = numbers["limits"], numbers["grids"]
    places = list(range(len(limits)))
    for limit, grid, color in zip(limits, every, plotting.PALETTE, strict=False):
        parts.frontier(plane, grid, color, f"L = {_name(limit)}")
    parts.label_frontier(plane, "GAN; larger points: larger λ")
    plane.legend(loc="best")
    parts.over(ranks, places, every, log=False)
    ranks.set_title("order of λ, area")
    lams = every[0]["lams"]
    for j, lam in enumerate(lams):
        shift = 0.12 * (j - (len(lams) - 1) / 2)
        color = plotting.lam_color(lam)
        low, high = (np.array([np.mean(g[k], axis=0)[j] for g in every]) for k in ("low", "high"))
        x = np.array(places) + shift
        span.vlines(x, low, high, color=color, linewidth=2.2, label=f"λ = {lam:g}")
        span.scatter(x, np.full(len(x), -np.log(lam)), marker="_", s=30, color=plotting.RED)
        error.scatter(x, [np.mean(g["alpha_error"], axis=0)[j] for g in every], s=12, color=color)
    span.scatter([], [], marker="_", s=30, color=plotting.RED, label="−log λ")
    span.set(ylabel="$\\log \\hat r$, 1 % to 99 %", yscale="symlog")
    span.set_title("range of the critic at data and samples")
    error.set(ylabel="$|\\hat\\alpha - \\alpha|$ at own λ", ylim=(0, None))
    error.set_title("error of the critic's estimate")
    for ax in (ranks, span, error):
        ax.set_xticks(places, [_name(limit) for limit in limits])
        ax.set_xlabel("Lipschitz limit L of log r̂")
    fig.legend(*span.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    fig.suptitle(f"{name}: a limit on the critic's slope", fontsize=8.5)
    return fig


def table(numbers: dict[str, Any]) -> list[str]:
    """Rows of text."""
    lines = [parts.grid_head("GAN") + f"{'|α̂ - α|':>10}{'log r̂':>17}{'slope':>8}"]
    for limit, grid in zip(numbers["limits"], numbers["grids"], strict=True):
        low, high = runs.mean(grid["low"]), runs.mean(grid["high"])
        lines.append(
            parts.grid_row(f"L = {_name(limit)}", grid)
            + f"{runs.mean(grid['alpha_error']):10.3f}"
            + f"{low:8.2f} to {high:5.2f}{np.max(grid['slope']):8.1f}"
        )
    lines.append(parts.error_row(grid["error"] for grid in numbers["grids"]))
    lines.append("log r̂: means over λ of the 1 % and 99 % quantiles; slope: the largest |∇ log r̂|")
    return lines
