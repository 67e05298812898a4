"""What is summed over cells, and what is read off the sums. Notation as in `prpr.exact`.

α(λ) needs no sum of its own for each λ: with the masses of P and Q in the classes of log r that
the −log λ of a grid cut, λ P(r < 1/λ) and Q(r >= 1/λ) are cumulative sums, for all λ at once.
Likewise A_p and A_q are read off the masses in classes of log p and of log q.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from prpr import frontier
from prpr.errors import ConfigError, DataError
from prpr.numerics import check_lam

LogDensity = Callable[[jax.Array], Any]  # x (N, 2) -> (N,), or (M, N) for a stack of models

ENDS = (1 / 20, 20.0)  # λ_lo, λ_hi
SHARE = 0.99
OVER = 0.1  # mass above 1 that the sums may have before the function is no density
_LEVELS, _LOW, _WIDTH = 8192, -40.0, 1 / 128  # classes of log p and log q, from −40 to 24


class Box(NamedTuple):
    """[x0, x1] × [y0, y1]: the region that is integrated over."""

    x0: float = -4.0
    x1: float = 4.0
    y0: float = -4.0
    y1: float = 4.0


class Pair(NamedTuple):
    """A precision and a recall, and the larger of their estimated errors; scalars or (M,)."""

    precision: np.ndarray
    recall: np.ndarray
    error: np.ndarray


class Exact(NamedTuple):
    """A true frontier; numpy, float64. A stack of models has a leading axis (M,) where marked.

    Attributes:
      lam: λ, (L,).
      alpha, beta: α(λ) and α(λ)/λ, (M?, L).
      error: estimate of |alpha − α|, (M?, L): see the function that made this.
      p_mass: P of the box.
      q_mass: Q of the box, (M?,). 1 − mass is what lies outside, or between the points of the
        finest grid.
      ends: α(λ_hi), β(λ_lo), (M?,).
      support: Q(A_p), P(A_q), (M?,); NaN where the box holds less than the share.
      step: the longer side of the finest cells.
    """

    lam: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    error: np.ndarray
    p_mass: np.ndarray
    q_mass: np.ndarray
    ends: Pair
    support: Pair
    step: float

    def of(self, model: int) -> "Exact":
        """One model of a stack."""
        return self._replace(
            alpha=self.alpha[model],
            beta=self.beta[model],
            error=self.error[model],
            q_mass=self.q_mass[model],
            ends=Pair(*(x[model] for x in self.ends)),
            support=Pair(*(x[model] for x in self.support)),
        )

    @property
    def curve(self) -> frontier.Curve:
        """For `frontier.area_under`, `best_f`, ...; of one model."""
        return frontier.Curve(*(jnp.asarray(x) for x in (self.lam, self.alpha, self.beta)))


class Lams(NamedTuple):
    """The λ of a caller, and all that are integrated at, ascending: those and the two ends."""

    asked: np.ndarray
    all: np.ndarray
    where: np.ndarray  # of `asked` and then of the ends, in `all`

    @staticmethod
    def of(lam: ArrayLike | None, ends: tuple[float, float]) -> "Lams":
        asked = np.asarray(check_lam(frontier.lambda_grid() if lam is None else lam), np.float64)
        if asked.ndim != 1:
            raise ConfigError(f"lam has shape {asked.shape}: give a grid of λ, (L,)")
        pair = np.asarray(check_lam(ends), np.float64)
        if pair.shape != (2,) or pair[0] >= pair[1]:
            raise ConfigError(f"ends={ends!r} must be λ_lo < λ_hi")
        every, where = np.unique(np.concatenate([asked, pair]), return_inverse=True)
        return Lams(asked, every, where)


class Sums:
    """Masses of P and Q by classes of log r, between the −log λ, and of each log-density."""

    def __init__(self, models: int | None, lams: Lams):
        self.stacked = models is not None
        m, count = models or 1, len(lams.all)
        self.thresholds = -np.log(lams.all)[::-1]
        self.by_ratio = np.zeros((2, m, count + 1))
        self.by_p = np.zeros((2, m, _LEVELS))
        self.by_q = np.zeros((2, m, _LEVELS))
        self.out = np.zeros((2, m))  # known masses outside, as in binned pairs

    def add(self, log_p: np.ndarray, log_q: np.ndarray, p: np.ndarray, q: np.ndarray) -> None:
        """Points with log-densities (N,), (m, N), and masses p (N,), q (m, N).

        The points of a stack may be each model's own: log_p and p are (m, N) then.
        """
        levels, own = _level(log_p), log_p.ndim == 2
        for k, (log_one, one) in enumerate(zip(log_q, q, strict=True)):
            of_p, log_here, p_here = (x[k] if own else x for x in (levels, log_p, p))
            # NaN where −∞ meets −∞: it goes to the last class, with no mass.
            with np.errstate(invalid="ignore"):
                ratio = np.searchsorted(self.thresholds, log_here - log_one, side="right")
            of_q = _level(log_one)
            for side, mass in enumerate((p_here, one)):
                for table, at in ((self.by_ratio, ratio), (self.by_p, of_p), (self.by_q, of_q)):
                    table[side, k] += np.bincount(at, mass, minlength=table.shape[2])

    @property
    def p(self) -> np.ndarray:
        """P of the box, (m,)."""
        return self.by_ratio[0].sum(axis=1)

    @property
    def q(self) -> np.ndarray:
        """Q of the box, (m,)."""
        return self.by_ratio[1].sum(axis=1)

    def alpha(self, lams: Lams) -> np.ndarray:
        """λ P(r < 1/λ) + Q(r >= 1/λ) at every λ, (m, L'): equal to Σ min(λp, q)."""
        below = np.cumsum(self.by_ratio[0], axis=1)[:, -2::-1]
        above = np.cumsum(self.by_ratio[1][:, ::-1], axis=1)[:, :-1]
        p_out, q_out = self.out[:, :, None]
        alpha = lams.all * below + above + np.minimum(lams.all * p_out, q_out)
        return np.minimum(alpha, np.minimum(1, lams.all))

    def outside(self, lams: Lams) -> np.ndarray:
        """min(λ P_out, Q_out), (m, L')."""
        p_out, q_out = (np.maximum(1 - mass, 0)[:, None] for mass in (self.p, self.q))
        return np.minimum(lams.all * p_out, q_out)

    def support(self, share: float) -> np.ndarray:
        """Q(A_p), P(A_q), (2, m)."""
        m = len(self.q)
        precision = [_inside(self.by_p[0, k], self.by_p[1, k], share) for k in range(m)]
        recall = [_inside(self.by_q[1, k], self.by_q[0, k], share) for k in range(m)]
        return np.array([precision, recall])


def _level(log_density: np.ndarray) -> np.ndarray:
    at = (np.maximum(log_density, _LOW) - _LOW) / _WIDTH
    return np.minimum(at, _LEVELS - 1).astype(np.int64)


def _inside(own: np.ndarray, other: np.ndarray, share: float) -> float:
    """The mass of `other` in the smallest region with this share of `own`; by level, ascending."""
    held = np.cumsum(own[::-1])
    if held[-1] < share:
        return math.nan
    last = int(np.searchsorted(held, share))
    before = held[last] - own[::-1][last]
    part = (share - before) / own[::-1][last]
    return float(other[::-1][:last].sum() + part * other[::-1][last])


def result(
    lams: Lams,
    sums: Sums,
    alpha: np.ndarray,
    error: np.ndarray,
    supports: tuple[np.ndarray, np.ndarray],
    step: float,
) -> Exact:
    """From α and its error at all λ (m, L'), and the supports of the finer and coarser sums."""
    fine, coarse = supports
    low, high = lams.where[-2:]
    lo = lams.all[low]
    asked = lams.where[:-2]
    alphas, errors = alpha[:, asked], error[:, asked]
    ends = Pair(alpha[:, high], alpha[:, low] / lo, np.maximum(error[:, high], error[:, low] / lo))
    support = Pair(fine[0], fine[1], np.abs(fine - coarse).max(axis=0))
    out = Exact(
        lams.asked, alphas, alphas / lams.asked, errors, sums.p[0], sums.q, ends, support, step
    )
    return out if sums.stacked else out.of(0)


def evaluate(name: str, log_density: LogDensity, x: np.ndarray, *, stacks: bool) -> np.ndarray:
    """log_density at x, (N,) or, of a stack, (M, N), float64, after the checks."""
    values = np.asarray(log_density(jnp.asarray(x, jnp.result_type(float))), np.float64)
    if values.shape[-1:] != (len(x),) or values.ndim not in ((1, 2) if stacks else (1,)):
        want = "(N,) or (M, N)" if stacks else "(N,)"
        raise DataError(f"{name} must take (N, 2) to {want}; N = {len(x)} gave {values.shape}")
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        at = x[np.argwhere(bad)[0, -1]]
        raise DataError(f"{name} is {values[bad][0]} at {at}, and in {bad.sum()} points of a tile")
    return values


# --- checks -----------------------------------------------------------------------------


def check_box(box: Box) -> Box:
    """Of floats; ConfigError for one that is none."""
    try:
        x0, x1, y0, y1 = (float(side) for side in box)
    except (TypeError, ValueError):
        raise ConfigError(f"box={box!r} must be Box(x0, x1, y0, y1), four numbers") from None
    box = Box(x0, x1, y0, y1)
    if not all(map(math.isfinite, box)) or box.x0 >= box.x1 or box.y0 >= box.y1:
        raise ConfigError(f"box={box!r} must be finite, with x0 < x1 and y0 < y1")
    return box


def check_share(share: float) -> float:
    """As it came; ConfigError outside (0, 1)."""
    if not 0 < share < 1:
        raise ConfigError(f"share={share!r} must lie in (0, 1)")
    return share


def at_least(least: int, **values: int) -> None:
    """ConfigError for one that is no integer, or is smaller."""
    for name, value in values.items():
        if not (isinstance(value, (int, np.integer)) and value >= least):
            raise ConfigError(f"{name}={value!r} must be an integer of at least {least}")


def step_of(box: Box, cells: int) -> float:
    """The longer side of a cell."""
    return max(box.x1 - box.x0, box.y1 - box.y0) / cells
