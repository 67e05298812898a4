"""The effect of τ: bias against signal.

Notation: τ the temperature of the envelope σ((log r + log λ)/τ); r = p/q.

Its ascent descends the mixture of D_μ with log μ logistic around log λ with scale τ: a larger τ
blurs λ (bias), and a smaller one leaves a gradient to ever fewer samples, those with
|log λr| within a few τ (noise). Three measurements:

  * the GAN over τ × λ, one program, with the ratio that its critics learn: true precision and
    recall;
  * the cosine of the expected gradient with ∇α(λ) at the flow's start, by sums over a grid: bias;
  * the same of the gradient through one batch of samples with the true ratio, averaged over
    BATCHES batches: bias and noise together.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, objectives, plotting, train
from prpr.planar.checks import grids, parts, runs
from prpr.planar.checks.plug_in import ascents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAUS = (0.05, 0.25, 1.0, 3.0)
FINE = (0.03, 0.1, 0.25, 0.5, 1.0, 3.0)  # for the cosines
BATCHES = 24


def settings() -> dict[str, Any]:
    """What the numbers rest on beside the configurations."""
    return {"taus": TAUS, "fine": FINE, "batches": BATCHES}


def batch_gradients(
    setting: runs.Setting, lams: tuple[float, ...], taus: tuple[float, ...]
) -> np.ndarray:
    """∇_θ of the envelope's mean over a batch of samples, true ratio; (S, T, L, BATCHES, θ)."""
    system, batch = setting.flow_system, setting.flow.train.batch
    y = jnp.zeros(batch, jnp.int32)

    @jax.jit
    def every(nets: train.Net, pairs: jax.Array, z: jax.Array) -> jax.Array:
        def one(net: train.Net, pair: jax.Array, z: jax.Array) -> jax.Array:
            def mean(params: Any) -> jax.Array:
                moving = train.Net(params, net.extra)
                x, _ = train.sample_and_log_density(system, moving, z, y)
                log_r = setting.law.log_density(x) - train.log_density(system, net, x, y)
                return objectives.envelope(log_r, pair[0], pair[1]).mean()

            return grids.flat(jax.grad(mean)(net.params))

        def of_net(net: train.Net) -> jax.Array:
            return jax.lax.map(lambda pair: jax.lax.map(lambda zs: one(net, pair, zs), z), pairs)

        return jax.lax.map(of_net, nets)

    pairs = jnp.asarray([(lam, tau) for tau in taus for lam in lams], jnp.float32)
    z = jax.random.normal(jax.random.key(2), (BATCHES, batch, 2))
    found = np.asarray(every(setting.flow_bases.ema, pairs, z), np.float64)
    return found.reshape(len(setting.seeds), len(taus), len(lams), BATCHES, -1)


def cosines(setting: runs.Setting) -> dict[str, Any]:
    """ "exact" and "batch": cosines with ∇α(λ) at each seed's start, (S, T, L)."""
    lams, (log_p, log_q) = setting.coarse_lams, setting.densities
    rows = []
    for one in log_p - log_q:
        true = [ascents(one, lam, 1.0)["true"] for lam in lams]
        rows.append(true + [ascents(one, lam, tau)["envelope"] for tau in FINE for lam in lams])
    nets = setting.flow_bases.ema
    found = grids.gradients(setting.flow_system, nets, np.array(rows), setting.cells)
    found = found.reshape(len(rows), 1 + len(FINE), len(lams), -1)
    wanted, exact = found[:, :1], grids.cosine(found[:, 1:], found[:, :1])
    noisy = batch_gradients(setting, lams, FINE)
    batch = grids.cosine(noisy, wanted[:, :, :, None]).mean(axis=-1)
    return {"taus": list(FINE), "exact": exact.tolist(), "batch": batch.tolist()}


def compute(setting: runs.Setting) -> dict[str, Any]:
    """The GAN over τ × λ, and the cosines."""
    cfg, lams, seeds = setting.gan, setting.coarse_lams, len(setting.seeds)
    points = setting.points()
    system, bases = build.system(cfg, points), setting.gan_bases
    dials = [{"lam": lam, "tau": tau} for tau in TAUS for lam in lams]
    states = runs.starts(system, cfg, bases, bases.critic, dials)
    states = runs.trained(lambda _: system, cfg, points, states, setting.devices, "tau")
    states = runs.shaped(states, seeds, len(TAUS), len(lams))
    found = runs.measured(setting, system, states, lams)
    each = [runs.numbers_of(runs.one_of(found, k), lams) for k in range(len(TAUS))]
    return {"taus": list(TAUS), "grids": each, "cosines": cosines(setting)}


@plotting.styled
def draw(name: str, numbers: dict[str, Any]) -> "Figure":
    """Frontiers a τ; ranks and hypervolume over τ; cosines over τ."""
    fig, (plane, ranks, cosine) = plotting.subplots(1, 3, (plotting.PAGE, 2.6))
    taus = numbers["taus"]
    for tau, grid, color in zip(taus, numbers["grids"], plotting.PALETTE, strict=False):
        parts.frontier(plane, grid, color, f"τ = {tau:g}")
    parts.label_frontier(plane, "GAN; larger points: larger λ")
    plane.legend(loc="lower left")
    parts.over(ranks, taus, numbers["grids"])
    ranks.set_xlabel("τ")
    ranks.set_title("order of λ, area")
    kept = numbers["cosines"]
    for key, label, line in (
        ("exact", "expected gradient", plotting.LINES[0]),
        ("batch", "of one batch", plotting.LINES[1]),
    ):
        values = np.asarray(kept[key])
        cosine.plot(kept["taus"], np.mean(values, axis=(0, 2)), label=label, **line)
        low, high = (f(values, axis=(0, 2)) for f in (np.min, np.max))
        cosine.fill_between(kept["taus"], low, high, color=line["color"], alpha=0.12, linewidth=0)
    cosine.set(xscale="log", xlabel="τ", ylabel="cosine with $\\nabla\\alpha(\\lambda)$")
    cosine.set_title("flow's start: all λ, seeds")
    cosine.legend(loc="best")
    fig.suptitle(f"{name}: the temperature of the envelope", fontsize=8.5)
    return fig


def table(numbers: dict[str, Any]) -> list[str]:
    """Rows of text."""
    lines = [parts.grid_head("GAN")]
    pairs = zip(numbers["taus"], numbers["grids"], strict=True)
    lines += [parts.grid_row(f"τ = {tau:g}", grid) for tau, grid in pairs]
    lines.append(parts.error_row(grid["error"] for grid in numbers["grids"]))
    kept = numbers["cosines"]
    for i, tau in enumerate(kept["taus"]):
        exact, batch = (runs.mean(np.asarray(kept[key])[:, i]) for key in ("exact", "batch"))
        lines.append(
            f"cosine with ∇α, τ = {tau:<5g} expected {exact:.3f}, of one batch {batch:.3f}"
        )
    return lines
