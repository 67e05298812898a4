"""α(λ) of a model that samples a latent plane, with its density. Notation as in `prpr.exact`."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from prpr.errors import DataError
from prpr.exact.densities import integrate
from prpr.exact.sums import (
    ENDS,
    SHARE,
    Box,
    Exact,
    Lams,
    LogDensity,
    Sums,
    at_least,
    check_box,
    check_share,
    evaluate,
    result,
    step_of,
)

Sample = Callable[[jax.Array], Any]  # z (N, 2) -> x (N, 2) and log q(x) (N,), or (M, N, ...)

REACH = 6.0  # of the latent lattice: N(0, I) has 4e-9 outside
_GOLDEN = math.pi * (3 - math.sqrt(5))  # no lattice direction is parallel to an axis


def flow_curve(
    log_p: LogDensity,
    sample: Sample,
    log_q: LogDensity,
    lam: ArrayLike | None = None,
    box: Box = Box(),  # noqa: B008 (a tuple)
    *,
    latents: int = 512,
    cells: int = 256,
    ends: tuple[float, float] = ENDS,
    share: float = SHARE,
    tile: int = 1 << 14,
) -> Exact:
    """α(λ) = E_z[min(λ p(x)/q(x), 1)] with x = G(z), summed over a lattice of latents.

    Where q has folds far narrower than any grid over x, as flows do that were pushed to one end
    of the frontier, `curve` cannot see them; in z they are as wide as their mass. `error` is
    twice the difference of the sums over every other point, the largest of both halves'.
    Q(A_p) is read off the same sums; P(A_q) off a grid over x, where p lives.

    Args:
      log_p: x (N, 2) -> (N,), with −inf where p = 0; jit it, like the others.
      sample: z (N, 2) -> x (N, 2) and log q(x) (N,), or with a leading axis (M,) of models.
      log_q: x (N, 2) -> (N,) or (M, N).
      latents: in a row of the lattice.
      cells: in a row of the grid over x.
      lam, box, ends, share, tile: as in `curve`.

    Raises:
      ConfigError: a setting that is out of its range.
      DataError: a function that has a wrong shape, a NaN or +inf.
    """
    lams = Lams.of(lam, ends)
    box, share = check_box(box), check_share(share)
    at_least(2, latents=latents, cells=cells)
    at_least(1, tile=tile)
    grid = integrate(log_p, log_q, box, cells, lams, tile)
    halves = [
        _joined([one], grid, lams) for one in _lattice_sums(log_p, sample, lams, latents, tile)
    ]
    whole = _joined(halves, grid, lams)
    alpha = whole.alpha(lams)
    error = 2 * np.max([np.abs(half.alpha(lams) - alpha) for half in halves], axis=0)
    supports = whole.support(share), halves[0].support(share)
    found = result(lams, whole, alpha, error, supports, step_of(box, cells))
    return found._replace(p_mass=grid.p[0])


def _lattice_sums(
    log_p: LogDensity, sample: Sample, lams: Lams, latents: int, tile: int
) -> list[Sums]:
    """Of the two halves: Q's masses, and P's as r times those."""
    halves: list[Sums] = []
    for z, weight, half in lattice(latents, min(tile, latents**2)):
        x, log_q = (np.asarray(one) for one in sample(jnp.asarray(z, jnp.result_type(float))))
        if x.shape != (*log_q.shape, 2) or log_q.ndim not in (1, 2) or x.shape[-2] != len(z):
            raise DataError(
                f"sample must take (N, 2) to x (N, 2) and log q (N,), or (M, N, 2) and (M, N); "
                f"N = {len(z)} gave {x.shape} and {log_q.shape}"
            )
        bad = ~(np.isfinite(x).all(axis=-1) & np.isfinite(log_q))
        if bad.any():
            raise DataError(f"sample gave NaN or infinity at {bad.sum()} of {bad.size} points")
        stacked, log_q = log_q.ndim == 2, np.atleast_2d(log_q).astype(np.float64)
        flat = x.reshape(-1, 2)
        log_one = np.concatenate(
            [evaluate("log_p", log_p, part, stacks=False) for part in np.split(flat, len(log_q))]
        ).reshape(log_q.shape)
        if not halves:
            halves = [Sums(len(log_q) if stacked else None, lams) for _ in range(2)]
        for side, sums in enumerate(halves):
            q = np.broadcast_to(2 * weight * (half == side), log_q.shape)
            with np.errstate(over="ignore", under="ignore"):
                # Where r is large its mass is not read: min(λr, 1) is 1.
                p = q * np.exp(np.minimum(log_one - log_q, 80.0))
            sums.add(log_one, log_q, p, q)
    return halves


def _joined(parts: list[Sums], grid: Sums, lams: Lams) -> Sums:
    """The mean of sums over latents, with P's own masses from a grid over x."""
    out = Sums(len(grid.q) if grid.stacked else None, lams)
    out.by_ratio = np.mean([one.by_ratio for one in parts], axis=0)
    out.by_p = np.stack([grid.by_p[0], np.mean([one.by_p[1] for one in parts], axis=0)])
    out.by_q = np.stack([grid.by_q[0], np.mean([one.by_q[1] for one in parts], axis=0)])
    return out


def lattice(latents: int, tile: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """z (tile, 2), their share of N(0, I) (0 for what fills up a tile), and which half they are of.

    latents × latents points over [−REACH, REACH]², turned by an angle that keeps its rows from
    lying along the axes; a half is every other point.
    """
    side = (np.arange(latents) + 0.5) * (2 * REACH / latents) - REACH
    weight = np.exp(-0.5 * side**2)
    weight /= weight.sum()
    cos, sin = math.cos(_GOLDEN), math.sin(_GOLDEN)
    for start in range(0, latents**2, tile):
        index = np.arange(start, start + tile)
        used = index < latents**2
        i, j = np.divmod(np.minimum(index, latents**2 - 1), latents)
        z = np.stack([cos * side[i] - sin * side[j], sin * side[i] + cos * side[j]], axis=1)
        yield z, weight[i] * weight[j] * used, (i + j) % 2
