"""α(λ) of a generator, or of samples, by the masses of cells. Notation as in `prpr.exact`.

Masses of cells × cells cells, row by row, have one more place at their end, for what lies outside.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from prpr.errors import ConfigError, DataError
from prpr.exact.latent import lattice
from prpr.exact.sums import (
    ENDS,
    OVER,
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

Generate = Callable[[jax.Array], Any]  # z (N, 2) -> (N, 2), or (M, N, 2)


def generator_curve(
    log_p: LogDensity,
    generate: Generate,
    lam: ArrayLike | None = None,
    box: Box = Box(),  # noqa: B008 (a tuple)
    *,
    cells: int = 512,
    latents: int = 4096,
    ends: tuple[float, float] = ENDS,
    share: float = SHARE,
    tile: int = 1 << 16,
) -> Exact:
    """Σ_c min(λP_c, Q_c) + min(λP_out, Q_out) >= α(λ) of x = G(z), z ~ N(0, I) in the plane.

    Q_c is the normal's mass of the z that G takes to c, summed over a lattice of
    latents × latents points over [−6, 6]², turned by an angle that keeps its rows from
    lying along the cells. P_c is a Gauss-Legendre product in each cell. `error` is

        |α_c − α_2c| + max over halves of |α_half − α| + min(λ P_out, Q_out)

    the change from cells of twice the side, that from every other point of the lattice (which
    makes Q_c ragged, and α too low, where G stretches z to more than a cell), and what
    lies outside of the box. The first holds for cells whose side is at most about half the scale of
    p's finest features; with the default cells and box that is 1/64, for `grid25`'s 1/20.

    Args:
      log_p: x (N, 2) -> (N,); jit it.
      generate: G, z (N, 2) -> x (N, 2), or -> (M, N, 2) for a stack of models; jit it.
      cells: in a row of the finer grid, even.
      latents: in a row of the lattice.
      lam, box, ends, share, tile: as in `curve`.

    Raises:
      ConfigError: a setting that is out of its range.
      DataError: log p or G(z) has a wrong shape, a NaN or +inf, or log p integrates to more
        than 1.1.
    """
    lams = Lams.of(lam, ends)
    box, share = check_box(box), check_share(share)
    _check_cells(cells)
    at_least(2, latents=latents)
    at_least(1, tile=tile)
    halves = _push_forward(generate, box, cells, latents, tile)
    q = halves.sum(axis=0)
    p = _cell_masses(log_p, box, cells)
    each = [
        _of_cells(p, half / half.sum(axis=-1, keepdims=True), box, cells, lams).alpha(lams)
        for half in halves
    ]
    ragged = np.stack(each)
    return _binned(p, q, box, cells, lams, share, lambda alpha: np.abs(ragged - alpha).max(axis=0))


def sample_curve(
    log_p: LogDensity,
    samples: ArrayLike,
    lam: ArrayLike | None = None,
    box: Box = Box(),  # noqa: B008 (a tuple)
    *,
    cells: int = 256,
    ends: tuple[float, float] = ENDS,
    share: float = SHARE,
) -> Exact:
    """Σ_c min(λP_c, Q_c) + min(λP_out, Q_out) with the shares Q_c of n samples of Q in the cells.

    Cells bias it upwards. The samples' noise biases it downwards, as min is concave: with σ_c the
    standard deviation of a share and Δ_c = |λP_c − E Q_c|, by at most (Scarf 1958)

        Σ_c ½ (√(σ_c² + Δ_c²) − Δ_c)  <=  ½ √(number of cells / n)

    It is worst for P = Q at λ = 1, and larger for smaller cells. `error` is the sum of

        |α_c − α_2c|, for the first bias
        the bound for the second, with σ_c² = Q_c (1 − Q_c)/n and a Δ_c that is 2σ_c smaller than
          measured, over cells with a sample; for the others, min(λ Σ P_c, the share of samples that
          are alone in their cell), an estimate of their Q (Good & Turing)
        2 √(s (1 − s)/n), s = Q{λP_c > Q_c}: two standard deviations
        min(λ P_out, Q_out)

    Of the support, Q(A_p) is unbiased; P(A_q) is too low, by cells of A_q that have no sample.

    Args:
      log_p: x (N, 2) -> (N,); jit it.
      samples: (n, 2), or (M, n, 2) for a stack of models.
      cells: in a row of the finer grid, even.
      lam, box, ends, share: as in `curve`.

    Raises:
      ConfigError, DataError: as `generator_curve`, for the samples.
    """
    lams = Lams.of(lam, ends)
    box, share = check_box(box), check_share(share)
    _check_cells(cells)
    x = np.asarray(samples)
    if x.ndim not in (2, 3) or x.shape[-1] != 2 or x.shape[-2] == 0:
        raise DataError(f"samples need the shape (n, 2) or (M, n, 2), n >= 1, not {x.shape}")
    n = x.shape[-2]
    at = _cell_of("samples", x, box, cells)
    counts = [np.bincount(row, minlength=cells**2 + 1) for row in at.reshape(-1, n)]
    q = np.reshape(np.stack(counts) / n, (*x.shape[:-2], cells**2 + 1))
    p = _cell_masses(log_p, box, cells)
    noise = np.stack([_noise(p, one, n, lams) for one in np.atleast_2d(q)])
    return _binned(p, q, box, cells, lams, share, lambda _: noise)


def _binned(
    p: np.ndarray,
    q: np.ndarray,
    box: Box,
    cells: int,
    lams: Lams,
    share: float,
    noise: Callable[[np.ndarray], np.ndarray],
) -> Exact:
    """From the masses (cells² + 1,), (M?, cells² + 1), the last of which is outside."""
    fine = _of_cells(p, q, box, cells, lams)
    coarse = _of_cells(_merged(p, cells), _merged(q, cells), box, cells // 2, lams)
    alpha = fine.alpha(lams)
    error = np.abs(coarse.alpha(lams) - alpha) + noise(alpha) + fine.outside(lams)
    supports = fine.support(share), coarse.support(share)
    return result(lams, fine, alpha, error, supports, step_of(box, cells))


def _noise(p: np.ndarray, q: np.ndarray, n: int, lams: Lams) -> np.ndarray:
    """What n samples with these shares leave open at every λ, (L',): see `sample_curve`."""
    seen = q > 0
    p_unseen, alone = p[~seen].sum(), np.sum(np.rint(q * n) == 1) / n
    p, q = p[seen], q[seen]
    variance = q * (1 - q) / n
    out = []
    for lam in lams.all:
        gap = np.maximum(np.abs(lam * p - q) - 2 * np.sqrt(variance), 0)
        bias = 0.5 * np.sum(np.sqrt(variance + gap * gap) - gap)
        above = q[lam * p > q].sum()
        spread = 2 * math.sqrt(max(above * (1 - above), 0.0) / n)
        out.append(bias + min(lam * p_unseen, alone) + spread)
    return np.array(out)


def _of_cells(p: np.ndarray, q: np.ndarray, box: Box, cells: int, lams: Lams) -> Sums:
    area = (box.x1 - box.x0) * (box.y1 - box.y0) / cells**2
    sums = Sums(len(q) if q.ndim == 2 else None, lams)
    stack = q if q.ndim == 2 else q[None]
    with np.errstate(divide="ignore"):
        log_p, log_q = np.log(p[:-1] / area), np.log(stack[:, :-1] / area)
    sums.add(log_p, log_q, p[:-1], stack[:, :-1])
    sums.out = np.stack([np.full(len(stack), p[-1]), stack[:, -1]])
    return sums


def _merged(mass: np.ndarray, cells: int) -> np.ndarray:
    """(..., cells² + 1) -> (..., cells²/4 + 1): cells of twice the side."""
    half, lead = cells // 2, mass.shape[:-1]
    inner = mass[..., :-1].reshape(*lead, half, 2, half, 2).sum(axis=(-3, -1))
    return np.concatenate([inner.reshape(*lead, -1), mass[..., -1:]], axis=-1)


def _cell_masses(log_p: LogDensity, box: Box, cells: int) -> np.ndarray:
    """P_c of cells × cells, and P_out: (cells² + 1,).

    At least 1024 nodes in a row. With two a cell the error is (side/scale of p)⁴/4320 of p, and
    more nodes for larger cells keep it below that.
    """
    order = max(2, -(-1024 // cells))
    node, weight = np.polynomial.legendre.leggauss(order)
    dx, dy = (box.x1 - box.x0) / cells, (box.y1 - box.y0) / cells
    weight = 0.25 * dx * dy * np.multiply.outer(weight, weight)  # (a, b) of x and y
    y = box.y0 + (np.arange(cells)[:, None] + 0.5 * (node + 1)).ravel() * dy
    mass = np.empty((cells, cells))
    for i in range(cells):
        x = box.x0 + (i + 0.5 * (node + 1)) * dx
        points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
        values = evaluate("log_p", log_p, points, stacks=False).reshape(order, cells, order)
        mass[i] = np.einsum("acb,ab->c", np.exp(values), weight)
    total = mass.sum()
    if total > 1 + OVER:
        raise DataError(f"log_p integrates to {total:.4g} over {box}: it is no log-density")
    return np.append(mass.ravel(), max(1 - total, 0.0))


def _push_forward(generate: Generate, box: Box, cells: int, latents: int, tile: int) -> np.ndarray:
    """Masses of the cells and outside, (2, M?, cells² + 1), from every other lattice point."""
    bins, tile = cells**2 + 1, min(tile, latents**2)
    total, lead = np.zeros(0), ()
    for z, mass, half in lattice(latents, tile):
        x = np.asarray(generate(jnp.asarray(z, jnp.result_type(float))))
        if x.ndim not in (2, 3) or x.shape[-2:] != (tile, 2):
            raise DataError(
                f"generate must take (N, 2) to (N, 2) or (M, N, 2); N = {tile} gave {x.shape}"
            )
        lead = x.shape[:-2]
        at = _cell_of("generate", x, box, cells) + bins * half
        rows = [np.bincount(row, mass, minlength=2 * bins) for row in at.reshape(-1, tile)]
        total = np.stack(rows) if not total.size else total + np.stack(rows)
    return np.moveaxis(total.reshape(*lead, 2, bins), -2, 0)


def _cell_of(name: str, x: np.ndarray, box: Box, cells: int) -> np.ndarray:
    """(..., 2) -> (...): the cell of each, cells² for those outside."""
    bad = ~np.isfinite(x)
    if bad.any():
        raise DataError(f"{name} gave {x[bad][0]} in {bad.sum()} of {bad.size} coordinates")
    first = (x[..., 0].astype(np.float64) - box.x0) * (cells / (box.x1 - box.x0))
    second = (x[..., 1].astype(np.float64) - box.y0) * (cells / (box.y1 - box.y0))
    inside = (first >= 0) & (first < cells) & (second >= 0) & (second < cells)
    cell = np.where(inside, np.floor(first) * cells + np.floor(second), cells**2)
    return cell.astype(np.int64)


def _check_cells(cells: int) -> None:
    at_least(2, cells=cells)
    if cells % 2:
        raise ConfigError(f"cells={cells!r} must be even: two sizes are compared")
