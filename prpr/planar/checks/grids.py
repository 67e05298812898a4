"""Flows' densities and their gradients, by sums over a grid: no sampling noise.

Notation: x_i the N midpoints of cells × cells over [−4, 4]², A the area of a cell; p_i, q_i the
masses of P and of a flow there; S seeds, K functions a, θ a flow's parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import train
from prpr.exact import Box

TILE = 1 << 14
UNSEEN = 0.01  # share of (p + q)/2 of which a batch has a point or none


def midpoints(cells: int) -> tuple[np.ndarray, float]:
    """(cells², 2) float32, and the area of a cell."""
    box = Box()
    step = (box.x1 - box.x0) / cells
    line = box.x0 + (np.arange(cells) + 0.5) * step
    x = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return x.astype(np.float32), step * step


def log_densities(
    system: train.System, law: Any, nets: train.Net, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """log p (N,) and log q (S, N) of stacked flows at the midpoints, float64."""
    x, _ = midpoints(cells)

    @jax.jit
    def both(nets: train.Net, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jnp.zeros(x.shape[0], jnp.int32)
        log_q = jax.lax.map(lambda net: train.log_density(system, net, x, y), nets)
        return law.log_density(x), log_q

    tiles = [both(nets, jnp.asarray(x[i : i + TILE])) for i in range(0, len(x), TILE)]
    log_p, log_q = (
        np.concatenate([np.asarray(tile[k], np.float64) for tile in tiles], axis=-1) for k in (0, 1)
    )
    return log_p, log_q


def seen(log_p: np.ndarray, log_q: np.ndarray, unseen: float = UNSEEN) -> np.ndarray:
    """(N,) whether a cell is among the likeliest of (p + q)/2 that hold all but `unseen` of it.

    Cells where either log-density is below −600 are never among them, even with `unseen` = 0: their
    ratio is no number. Of a flow as it is initialised on grid25 that is .9 % of q.
    """
    m = np.exp(log_p) + np.exp(log_q)
    order = np.argsort(-m)
    kept = np.cumsum(m[order]) <= (1 - unseen) * m.sum()
    out = np.zeros(len(m), bool)
    out[order[kept]] = True
    return out & (np.minimum(log_p, log_q) > -600)


def masses(
    log_p: np.ndarray, log_q: np.ndarray, unseen: float = UNSEEN
) -> tuple[np.ndarray, np.ndarray]:
    """p, q of the cells that are `seen`, each of sum 1: a pair of distributions.

    It stands for P and Q as training sees them: a flow of likelihood falls off so steeply behind
    the outermost data that p/q is e^20 and more on a thousandth of P, and χ² is made of nothing
    else.
    """
    of = seen(log_p, log_q, unseen)
    p, q = np.exp(log_p[of]), np.exp(log_q[of])
    return p / p.sum(), q / q.sum()


def gradients(system: train.System, nets: train.Net, ascents: np.ndarray, cells: int) -> np.ndarray:
    """∇_θ Σ_i A a_i q_θ(x_i), a frozen: where ascending E_q[a] goes in expectation; (S, K, θ).

    For a = 1{λr > 1} it is the gradient of α(λ) = Σ_i A min(λp_i, q_i) itself.

    Args:
      system: of the flows.
      nets: stacked, (S, ...).
      ascents: (S, K, N) values of a at the midpoints.
      cells: in a row.
    """
    x, area = midpoints(cells)
    tile = min(TILE, len(x))
    # A tile at a time: a backward pass keeps every layer's activations at all of its points.
    rest = -len(x) % tile
    tiles = np.pad(x, ((0, rest), (0, 0))).reshape(-1, tile, 2)
    rows = np.pad(np.asarray(ascents, np.float32), ((0, 0), (0, 0), (0, rest)))
    rows = rows.reshape(*rows.shape[:2], -1, tile)
    y = jnp.zeros(tile, jnp.int32)

    @jax.jit
    def every(nets: train.Net, rows: jax.Array, tiles: jax.Array) -> jax.Array:
        def of_net(pair: tuple[train.Net, jax.Array]) -> jax.Array:
            net, rows = pair

            def part(params: Any, x: jax.Array, ascent: jax.Array) -> jax.Array:
                log_q = train.log_density(system, train.Net(params, net.extra), x, y)
                return area * jnp.sum(ascent * jnp.exp(log_q))

            def one(row: jax.Array) -> jax.Array:
                def add(total: Any, piece: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
                    gradient = jax.grad(part)(net.params, *piece)
                    return jax.tree.map(jnp.add, total, gradient), None

                zeros = jax.tree.map(jnp.zeros_like, net.params)
                return flat(jax.lax.scan(add, zeros, (tiles, row))[0])

            return jax.lax.map(one, rows)

        return jax.lax.map(of_net, (nets, rows))

    return np.asarray(every(nets, jnp.asarray(rows), jnp.asarray(tiles)), np.float64)


def flat(tree: Any) -> jax.Array:
    """All leaves as one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of vectors (..., θ) and (..., θ); (...). 0 where one of them is 0: it points nowhere."""
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.sum(a * b, axis=-1) / np.where(size > 0, size, 1.0)
