"""The truth about a trained grid of λ, beside what its critics say of it.

Notation: S seeds, L values of λ; precision and recall are the true ones of `prpr.exact`:

  ends      α(20), β(1/20): the ends of each model's own frontier
  support   Q(A_p), P(A_q), of the regions that hold 99 % of P and of Q
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from prpr import data, exact, frontier, train
from prpr.planar.grid import Trained, take

SAMPLES = 10_000  # drawn from a model, where its critic is asked about α
CELLS = 512  # in a row of the finest grid
_LATENTS = 4  # rows of the lattice that a generator is pushed forward from, for a row of cells


class Measured(NamedTuple):
    """Arrays (S, L), NaN where a model cannot be asked.

    Attributes:
      precision, recall: true, the ends, and the `ends_error` of their integration.
      support_precision, support_recall: true, of the supports.
      alpha: true α(λ) at each run's own λ, and the `error` of its integration.
      estimated: α(λ) by the run's critic from samples of the model.
      bound: the held-out upper bound of α(λ), with its binomial interval (95 %).
    """

    precision: np.ndarray
    recall: np.ndarray
    support_precision: np.ndarray
    support_recall: np.ndarray
    alpha: np.ndarray
    error: np.ndarray
    estimated: np.ndarray
    bound: np.ndarray
    ends_error: np.ndarray


def measure(
    trained: Trained,
    name: str,
    lams: tuple[float, ...],
    held_out: np.ndarray,
    cells: int = CELLS,
    *,
    ask: bool = True,
) -> Measured:
    """Measures every run of a grid.

    Args:
      trained: from `train_grid`.
      name: of the data, a law of the plane.
      lams: (L,) what the runs were trained for.
      held_out: (N, 2) points of P that no critic has seen, for the bound.
      cells: in a row of the finest grid.
      ask: whether the critics are asked; else `estimated` and `bound` are NaN.
    """
    log_p = jax.jit(data.law(name).log_density)
    rows = [
        _one_seed(trained.system, take(trained.states, i), log_p, lams, held_out, cells, ask)
        for i in range(len(trained.states.step))
    ]
    return Measured(*(np.stack(column) for column in zip(*rows, strict=True)))


def _one_seed(
    system: train.System,
    states: train.TrainState,
    log_p: Any,
    lams: tuple[float, ...],
    held_out: np.ndarray,
    cells: int,
    ask: bool,
) -> Measured:
    """(L,) of each: `states` are stacked over λ."""
    order = np.argsort(lams)
    grid = np.asarray(lams)[order]
    if train.has_density(system.generator):
        log_q, sample = (jax.jit(f(system, states.ema)) for f in (densities, samplers))
        found = exact.flow_curve(log_p, sample, log_q, grid, latents=cells, cells=cells // 2)
    else:
        generate = jax.jit(generators(system, states.ema))
        latents = _LATENTS * cells
        found = exact.generator_curve(log_p, generate, grid, cells=cells, latents=latents)
    own = np.argsort(order)  # run -> where its λ stands on the grid
    runs = np.arange(len(lams))
    if ask and system.has_ratio:
        estimated, bound = _asked(system, states, lams, held_out)
    else:
        estimated, bound = np.full((2, len(lams)), np.nan)
    return Measured(
        found.ends.precision,
        found.ends.recall,
        found.support.precision,
        found.support.recall,
        found.alpha[runs, own],
        found.error[runs, own],
        estimated,
        bound,
        found.ends.error,
    )


def densities(system: train.System, nets: train.Net) -> Any:
    """x (N, 2) -> log q (L, N) of stacked nets."""

    def log_q(x: jax.Array) -> jax.Array:
        y = jnp.zeros(x.shape[0], jnp.int32)
        return jax.lax.map(lambda net: train.log_density(system, net, x, y), nets)

    return log_q


def samplers(system: train.System, nets: train.Net) -> Any:
    """z (N, 2) -> x (L, N, 2) and log q(x) (L, N) of stacked nets that have a density."""

    def sample(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jnp.zeros(z.shape[0], jnp.int32)
        return jax.lax.map(lambda net: train.sample_and_log_density(system, net, z, y), nets)

    return sample


def generators(system: train.System, nets: train.Net) -> Any:
    """z (N, 2) -> x (L, N, 2) of stacked nets."""

    def generate(z: jax.Array) -> jax.Array:
        y = jnp.zeros(z.shape[0], jnp.int32)
        return jax.lax.map(lambda net: train.apply_frozen(system.generator, net, z, y), nets)

    return generate


def _asked(
    system: train.System, states: train.TrainState, lams: tuple[float, ...], held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """α(λ) by the critics, and its held-out bound, (L,) each."""
    real = jnp.asarray(held_out)

    @jax.jit
    def log_ratios(state: train.TrainState, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = state.replace(generator=state.ema)
        y, y_real = (jnp.zeros(len(x), jnp.int32) for x in (z, real))
        fake = train.apply_frozen(system.generator, state.generator, z, y)
        return (
            train.log_ratio(system, state, real, y_real),
            train.log_ratio(system, state, fake, y),
        )

    z = jax.random.normal(jax.random.key(0), (SAMPLES, system.dim_z))
    estimated, bound = [], []
    for i, lam in enumerate(lams):
        log_r_real, log_r_fake = log_ratios(take(states, i), z)
        estimated.append(float(frontier.alpha(log_r_fake, lam)))
        found = frontier.upper_bound(log_r_real, log_r_fake, np.array([lam]))
        bound.append(float(found.upper[0]))
    return np.array(estimated), np.array(bound)


def hypervolume(points: Measured) -> np.ndarray:
    """(S,) area under each seed's (precision, recall) points, `prpr.exact.hypervolume`."""
    pairs = zip(points.precision, points.recall, strict=True)
    return np.array([exact.hypervolume(p, r) for p, r in pairs])


def spearman(lams: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    """(S,) rank correlation of λ (L,) with values (S, L); NaN where they are all equal."""
    ranks = stats.rankdata(lams)
    return np.array(
        [
            np.corrcoef(ranks, stats.rankdata(row))[0, 1] if np.ptp(row) > 0 else np.nan
            for row in values
        ]
    )


def summary(found: Measured, lams: tuple[float, ...], oracle: Measured | None) -> dict[str, Any]:
    """One data set and model in numbers: means over seeds, `_sd` beside them, and the points."""
    columns = {
        "spearman_precision": spearman(lams, found.precision),
        "spearman_recall": spearman(lams, found.recall),
        "spearman_support_precision": spearman(lams, found.support_precision),
        "spearman_support_recall": spearman(lams, found.support_recall),
        "hypervolume": hypervolume(found),
        # How far the critic's α(λ) is off the true one, and the share of runs whose bound holds.
        "alpha_error": np.abs(found.estimated - found.alpha).mean(axis=1),
        "bound_excess": (found.bound - found.alpha).mean(axis=1),
        "bound_holds": (found.bound >= found.alpha - found.error).mean(axis=1),
    }
    if oracle is not None:
        columns["hypervolume_ratio"] = columns["hypervolume"] / hypervolume(oracle)
    out: dict[str, Any] = {}
    for key, values in columns.items():
        out[key] = float(values.mean())
        out[f"{key}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    points = {key: np.asarray(value).tolist() for key, value in found._asdict().items()}
    return {**out, "lams": list(lams), "points": points}
