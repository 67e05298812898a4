"""α(λ) of two known densities. Notation as in `prpr.exact`."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from prpr.errors import ConfigError, DataError
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


def curve(
    log_p: LogDensity,
    log_q: LogDensity,
    lam: ArrayLike | None = None,
    box: Box = Box(),  # noqa: B008 (a tuple)
    *,
    tolerance: float = 1e-3,
    cells: int = 128,
    most: int = 2048,
    ends: tuple[float, float] = ENDS,
    share: float = SHARE,
    tile: int = 1 << 14,
) -> Exact:
    """α(λ) = ∫ min(λp, q) over the box, by midpoint sums.

    The step is halved, from box/cells on, until between two steps α(λ)/min(1, λ) moves by at most
    `tolerance` at every λ and so do the masses, or there are `most` cells in a row. The result
    is that of the finer step. Its `error` is

        |α_h − α_2h| + min(λ P_out, Q_out) + what P's and Q's masses exceed 1 by

    For densities without jumps the error falls as h² (kinks where r = 1/λ; smooth parts much
    faster), so the first term is about three times the finer step's own error; it falls as h, and
    the term equals it, where there are jumps. The second bounds what the box misses.
    A peak narrower than the step that falls between all points is not seen: its mass counts as
    outside. So give a narrower q a larger `cells`.

    Args:
      log_p: x (N, 2) -> (N,), with −inf where p = 0. Called with tiles of one shape; jit it.
      log_q: the same, or -> (M, N) for a stack of models.
      lam: λ, (L,); `frontier.lambda_grid()` if not given.
      box: of a size that holds nearly all of both.
      tolerance: see above.
      cells: in a row (and in a column) of the first grid; the first result has twice as many.
      most: of cells in a row.
      ends: λ_lo and λ_hi of `Exact.ends`.
      share: of P in A_p, of Q in A_q.
      tile: points in a call.

    Raises:
      ConfigError: a setting that is out of its range.
      DataError: log p or log q has a wrong shape, a NaN or +inf, or integrates to more than 1.1.
    """
    lams = Lams.of(lam, ends)
    box, share = check_box(box), check_share(share)
    at_least(1, cells=cells, tile=tile)
    at_least(2 * cells, most=most)
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ConfigError(f"tolerance={tolerance!r} must be positive and finite")
    coarse = integrate(log_p, log_q, box, cells, lams, tile)
    while True:
        cells *= 2
        fine = integrate(log_p, log_q, box, cells, lams, tile)
        change = np.abs(fine.alpha(lams) - coarse.alpha(lams))
        moved = [(change / np.minimum(1, lams.all)).max()]
        moved += [np.abs(b - a).max() for a, b in ((coarse.p, fine.p), (coarse.q, fine.q))]
        if max(moved) <= tolerance or 2 * cells > most:
            break
        coarse = fine
    for name, mass in (("log_p", fine.p), ("log_q", fine.q)):
        if mass.max() > 1 + OVER:
            raise DataError(
                f"{name} integrates to {mass.max():.4g} over {box}: it is no log-density, or "
                f"has peaks narrower than the step {step_of(box, cells):.2g} (give larger cells)"
            )
    excess = np.maximum(fine.p - 1, 0)[:, None] * lams.all + np.maximum(fine.q - 1, 0)[:, None]
    error = change + fine.outside(lams) + excess
    supports = fine.support(share), coarse.support(share)
    return result(lams, fine, fine.alpha(lams), error, supports, step_of(box, cells))


def integrate(
    log_p: LogDensity, log_q: LogDensity, box: Box, cells: int, lams: Lams, tile: int
) -> Sums:
    """Midpoint sums over cells × cells."""
    area = (box.x1 - box.x0) * (box.y1 - box.y0) / cells**2
    sums = None
    for x, used in _midpoints(box, cells, tile):
        log_one = evaluate("log_p", log_p, x, stacks=False)[:used]
        log_other = evaluate("log_q", log_q, x, stacks=True)[..., :used]
        stack = log_other if log_other.ndim == 2 else log_other[None]
        if sums is None:
            sums = Sums(len(stack) if log_other.ndim == 2 else None, lams)
        with np.errstate(over="ignore", under="ignore"):
            sums.add(log_one, stack, np.exp(log_one) * area, np.exp(stack) * area)
    assert sums is not None
    return sums


def _midpoints(box: Box, cells: int, tile: int) -> Iterator[tuple[np.ndarray, int]]:
    """Midpoints of cells × cells in tiles of one shape (tile, 2), and how many of each count."""
    tile = min(tile, cells**2)
    for start in range(0, cells**2, tile):
        i, j = np.divmod(np.minimum(np.arange(start, start + tile), cells**2 - 1), cells)
        x = box.x0 + (i + 0.5) * ((box.x1 - box.x0) / cells)
        y = box.y0 + (j + 0.5) * ((box.y1 - box.y0) / cells)
        yield np.stack([x, y], axis=1), min(tile, cells**2 - start)
