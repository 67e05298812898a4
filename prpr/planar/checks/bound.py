"""The error bound: a critic's error in its own divergence against the error of D_λ.

Notation: r = p/q the true ratio, g the divergence that a critic T maximises, r̂ = (g*)'(T),
f_λ(u) = max(λu, 1) − max(λ, 1), D̂_λ = E_q[f_λ(r̂)] with q exact.

    ε = D_g(P‖Q) − (E_p[T] − E_q[g*(T)]) >= E_q[g(r) − g(r̂) − g'(r̂)(r − r̂)] >= ½ μ E_q[(r − r̂)²]

if g is μ-strongly convex on the ratios that occur, and f_λ has the Lipschitz constant σ = λ, so

    |D_λ − D̂_λ| <= λ E_q|r − r̂| <= σ √(2ε/μ)         (Verine et al., arXiv:2305.18910)

For χ², g = (u − 1)², μ = 2 everywhere: λ√ε. For the GAN's g, g'' = 1/(u(u + 1)) falls with u, so it
is strongly convex on [0, R] only, with μ = 1/(R(R + 1)), R the largest of all r and r̂: a bound too,
which says little. The estimate must be E_q[f_λ(r̂)], and T in the domain of g*. The first of the
inequalities is an equality where T = g'(r̂): always if the output is log r̂; for χ² in its dual form
(T the output as it is, r̂ = max(T/2 + 1, 0)) except where T < −2.

Critics of both are trained against a flow that stays as it is initialised, close to a normal of the
data's moments. Of most laws its tails are the wider ones, and χ² is moderate; of `skewed` they are
not. (A flow of likelihood will not do: behind the outermost data q falls so steeply that the bound
says nothing.) At steps of their training both sides are sums over the cells of a grid, a pair of
distributions of its own (`grids.masses`), so that the inequality holds up to float64's rounding,
whatever the tails. The critics' losses are the divergences alone: outputs are not scaled, and there
are no penalties.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import build, config, divergences, plotting, train
from prpr.errors import unknown_name
from prpr.numerics import float64
from prpr.planar.checks import grids, runs
from prpr.planar.grid import advance, batches_of, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# name -> critic loss, parametrisation, divergence, title
KINDS = {
    "pearson, dual": ("pearson", "dual", "pearson", "$\\chi^2$, T as output"),
    "pearson, log": ("pearson", "log", "pearson", "$\\chi^2$, log r as output"),
    "gan": ("logistic", "log", "gan", "GAN (logistic)"),
}
# Divergence -> μ on ratios up to the one given.
CONVEXITY: dict[str, Callable[[float], float]] = {
    "pearson": lambda _: 2.0,
    "gan": lambda top: 1 / (top * (top + 1)),
}
SHOTS = 9  # of a critic's training
ROUNDING = 1e-9
SMALLEST = 1e-7  # error that is drawn


def settings() -> dict[str, Any]:
    """What the numbers rest on beside the configurations."""
    return {"kinds": {key: kind[:3] for key, kind in KINDS.items()}, "shots": SHOTS}


class Errors(NamedTuple):
    """Of one critic.

    Attributes:
      epsilon: its primal error ε.
      mu: of its divergence's strong convexity on the ratios that occur.
      error: |D_λ − D̂_λ|, (L,).
      bound: σ√(2ε/μ), (L,).
    """

    epsilon: float
    mu: float
    error: np.ndarray
    bound: np.ndarray


def errors(
    name: str, t: np.ndarray, p: np.ndarray, q: np.ndarray, lams: tuple[float, ...]
) -> Errors:
    """Both sides of the bound on a pair of discrete distributions.

    Args:
      name: of g, "pearson" or "gan".
      t: (N,) dual variable T at each cell, in g*'s domain.
      p, q: (N,) positive masses of sum 1.
      lams: λ, (L,).

    Raises:
      ConfigError: a divergence whose strong convexity is not known here.
    """
    if name not in CONVEXITY:
        raise unknown_name("divergence of the bound", name, CONVEXITY)
    g, f = divergences.get(name), divergences.get("pr")
    r = p / q
    with float64():
        conjugate = np.asarray(g.conjugate(t, None))
        own = np.asarray(g.ratio(t, None))
        primal = np.asarray(g.f(r, None))
        sides = [(np.asarray(f.f(r, lam)), np.asarray(f.f(own, lam))) for lam in lams]
    # No cell's term is negative. Of the sums, ε would be a difference, and might round to 0.
    epsilon = float(np.sum(q * np.maximum(primal - r * t + conjugate, 0.0)))
    mu = CONVEXITY[name](float(max(r.max(), own.max())))
    error = np.array([abs(np.sum(q * (a - b))) for a, b in sides])
    return Errors(epsilon, mu, error, np.asarray(lams) * np.sqrt(2 * epsilon / mu))


def dual_of(kind: str, v: np.ndarray) -> np.ndarray:
    """T of a critic's raw output v (N,), float64."""
    _, parametrisation, name, _ = KINDS[kind]
    g = divergences.get(name)
    with float64():
        if parametrisation == "log":
            return np.asarray(g.f_prime_log(v, None))
        return np.minimum(v, float(g.domain(None)[1]))


def counts_of(steps: int) -> tuple[int, ...]:
    """Critic updates at which a critic is looked at: 0, then SHOTS spread geometrically."""
    return (0, *(int(n) for n in np.unique(np.geomspace(1, steps, SHOTS).round())))


def _system(setting: runs.Setting, kind: str) -> tuple[config.Config, train.System]:
    """Of a critic whose loss is the divergence alone: what `dual_of` reads, ε is about."""
    loss, parametrisation, *_ = KINDS[kind]
    cfg = setting.flow.copy_and_resolve_references()
    cfg.critic.loss, cfg.critic.parametrisation = loss, parametrisation
    cfg.critic.scale = 1.0
    cfg.critic.r1 = cfg.critic.r2 = cfg.critic.ortho = 0.0
    cfg.route, cfg.log_ratio = "samples", "critic"
    return cfg, build.system(cfg, setting.points())._replace(critic_steps=1)


def _critics(setting: runs.Setting, kind: str, counts: tuple[int, ...]) -> Any:
    """The system, and nets (S, C, ...) after each of the counts of updates."""
    cfg, system = _system(setting, kind)
    bases = setting.fresh_flows
    critics = runs.fresh_critics(system, cfg)
    states = runs.starts(system, cfg, bases, critics, [{}])
    step = train.make_step(system, move_generator=False)
    points = jnp.asarray(setting.points().images)
    draw = batches_of(1, points, cfg.train.batch)
    pieces = jnp.diff(jnp.asarray(counts), prepend=0)

    def run(state: train.TrainState) -> tuple[train.Net, jax.Array]:
        def piece(state: train.TrainState, n: jax.Array) -> tuple[train.TrainState, train.Net]:
            state = jax.lax.fori_loop(0, n, lambda _, s: step(s, draw(s))[0], state)
            return state, state.critic

        state, nets = jax.lax.scan(piece, state, pieces)
        return nets, jnp.isfinite(grids.flat(state.critic.params)).all()

    nets = advance(run, states, setting.devices, lambda _: f"bound, {kind}")
    return system, nets


def compute(setting: runs.Setting) -> dict[str, Any]:
    """Both sides at every count of updates, λ, and kind of critic."""
    x = grids.midpoints(setting.cells)[0]
    counts = counts_of(setting.flow.train.steps)
    out: dict[str, Any] = {"lams": list(setting.coarse_lams), "updates": list(counts), "kinds": {}}
    pairs = []
    nets = setting.fresh_flows.ema
    log_p, every = grids.log_densities(setting.flow_system, setting.law, nets, setting.cells)
    for log_q in every:
        of = jnp.asarray(x[grids.seen(log_p, log_q, 0.0)])
        pairs.append((of, *grids.masses(log_p, log_q, 0.0)))
    for kind, (_, _, name, _) in KINDS.items():
        system, nets = _critics(setting, kind, counts)

        @jax.jit
        def output(net: train.Net, points: jax.Array, system: Any = system) -> jax.Array:
            y = jnp.zeros(len(points), jnp.int32)
            return train.apply_frozen(system.critic, net, points, y)

        found = []
        for i, (points, p, q) in enumerate(pairs):
            for j in range(len(counts)):
                v = np.asarray(output(take(take(nets, i), j), points), np.float64)
                found.append(errors(name, dual_of(kind, v), p, q, setting.coarse_lams))
        shape = (len(pairs), len(counts))
        error, bound = (np.array([one[k] for one in found]).reshape(*shape, -1) for k in (2, 3))
        out["kinds"][kind] = {
            "epsilon": np.array([one.epsilon for one in found]).reshape(shape).tolist(),
            "mu": np.array([one.mu for one in found]).reshape(shape).tolist(),
            "error": error.tolist(),
            "bound": bound.tolist(),
            "below": float(np.mean(error <= bound + ROUNDING)),
            "tightness": float(np.median(error / np.maximum(bound, 1e-300))),
            "tightest": float(np.max(error / np.maximum(bound, 1e-300))),
        }
    return out


@plotting.styled
def draw(name: str, numbers: dict[str, Any]) -> "Figure":
    """Error over bound, a panel a critic."""
    kinds = numbers["kinds"]
    size = (plotting.PAGE, 2.7)
    fig, axes = plotting.subplots(1, len(kinds), size, sharex=True, sharey=True)
    every = np.concatenate([np.ravel(one["bound"]) for one in kinds.values()])
    ends = np.array([every.min() / 2, every.max() * 2])
    for ax, (kind, one) in zip(axes, kinds.items(), strict=True):
        bound, error = (np.asarray(one[k], np.float64) for k in ("bound", "error"))
        for k, lam in enumerate(numbers["lams"]):
            ax.scatter(
                bound[..., k],
                np.maximum(error[..., k], SMALLEST),
                s=9,
                color=plotting.lam_color(lam),
                linewidths=0,
                label=f"λ = {lam:g}",
            )
        ax.plot(ends, ends, color=plotting.BLACK, linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlabel="bound  $\\sigma\\sqrt{2\\varepsilon/\\mu}$")
        ax.set_title(
            f"{KINDS[kind][3]}\n{one['below']:.0%} below, median ratio {one['tightness']:.2g}"
        )
    axes[0].set_ylabel(f"error  $|D_\\lambda - \\hat D_\\lambda|$, at least {SMALLEST:g}")
    axes[0].legend(loc="upper left", handletextpad=0.1, borderpad=0.1, labelspacing=0.2)
    fig.suptitle(f"{name}: critics against a fixed flow, as they are trained", fontsize=8.5)
    return fig


def table(numbers: dict[str, Any]) -> list[str]:
    """Rows of text."""
    lines = [f"{'critic':20}{'ε first':>10}{'ε last':>10}{'below':>8}{'median':>9}{'largest':>9}"]
    for kind, one in numbers["kinds"].items():
        first, last = np.mean(one["epsilon"], axis=0)[[0, -1]]
        lines.append(
            f"{kind:20}{first:10.3g}{last:10.3g}{one['below']:8.3f}{one['tightness']:9.2g}"
            f"{one['tightest']:9.2g}"
        )
    lines.append("below: share of points under the bound; median, largest: error/bound")
    return lines
