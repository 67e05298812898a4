"""Fréchet distance of two normal distributions, and the coordinates in which it is differentiated.

Notation
  μ, Σ       mean (D,) and covariance (D, D) of a set; r and f of the real and the generated one
  C          factor of Σ: C Cᵀ = Σ
  s          singular values of C_rᵀ C_f = U diag(s) Vᵀ, the roots of the eigenvalues of Σ_r Σ_f

  d² = |μ_r − μ_f|² + tr Σ_r + tr Σ_f − 2 Σ_k s_k        Dowson & Landau 1982

s² are the eigenvalues of C_iᵀ Σ_o C_i, where one set (inner) is factored and the other (outer) is
not. That is symmetric, so there is no imaginary part to drop as with a matrix root, and costs one
Cholesky factor, one product with it from both sides and a tridiagonal reduction. Up to D samples
the factor is the centred sample itself, C = X_cᵀ/√(N−1), so nothing larger than N × M is
decomposed.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from scipy import linalg

from prpr import errors
from prpr.metrics.statistics import Statistics

TOLERANCE = 1e-9  # of |μ_r − μ_f|² + tr Σ_r + tr Σ_f: the error that is let pass, and 0 below it
NEGATIVE = 1e-6  # of the largest eigenvalue: a negative one beyond this is no rounding
_EPS = float(np.finfo(np.float64).eps)


@dataclasses.dataclass(eq=False)
class Sampled:
    """A set of N <= D samples: mean (D,), tr Σ, the rank at most, X_cᵀ/√(N−1) (D, N).

    `place` is "real" or "fake", for errors.
    """

    place: str
    mean: np.ndarray
    trace: float
    rank: int
    factor: np.ndarray

    def times(self, x: np.ndarray) -> np.ndarray:
        """Σ x."""
        return self.factor @ (self.factor.T @ x)

    def within(self, inner: "Normal") -> np.ndarray:
        """C_iᵀ Σ C_i (R, R)."""
        product = self.factor.T @ inner.factor
        return product.T @ product


@dataclasses.dataclass(eq=False)
class Known:
    """A set of which Σ is known: mean (D,), tr Σ, the rank at most, Σ (D, D)."""

    place: str
    mean: np.ndarray
    trace: float
    rank: int
    cov: np.ndarray

    @functools.cached_property
    def lower(self) -> np.ndarray | None:
        """A lower triangular factor, which halves the cost of a product; None for a singular Σ."""
        (potrf,) = linalg.get_lapack_funcs(("potrf",), (self.cov,))
        lower, failed = potrf(self.cov.T, lower=1, clean=1)
        floor = len(self.cov) * _EPS * np.diag(self.cov).max()
        return None if failed or np.diag(lower).min() ** 2 <= floor else lower

    @functools.cached_property
    def factor(self) -> np.ndarray:
        """C (D, R) with C Cᵀ = Σ, up to NEGATIVE of Σ; DataError for a negative eigenvalue."""
        if self.lower is not None:
            return self.lower
        largest = float(np.abs(self.cov).max())
        if largest == 0:
            return np.zeros((len(self.cov), 0))
        (pstrf,) = linalg.get_lapack_funcs(("pstrf",), (self.cov,))
        lower, pivots, rank, _ = pstrf(self.cov, lower=1)
        out = np.empty((len(self.cov), int(rank)))
        out[pivots - 1] = np.tril(lower[:, : int(rank)])
        # Pivoting stops where the rest has no positive diagonal: of an indefinite Σ it leaves more.
        if np.abs(np.tril(self.cov - out @ out.T)).max() <= NEGATIVE * largest:
            return out
        values, vectors = linalg.eigh(self.cov, check_finite=False)
        if values[0] < -NEGATIVE * values[-1]:
            raise _no_covariance(self.place)
        return vectors * np.sqrt(np.maximum(values, 0))

    def times(self, x: np.ndarray) -> np.ndarray:
        """Σ x."""
        return self.cov @ x

    def within(self, inner: "Normal") -> np.ndarray:
        """C_iᵀ Σ C_i (R, R), its lower triangle at least."""
        if isinstance(inner, Sampled) or inner.lower is None:
            return inner.factor.T @ self.times(inner.factor)
        (sygst,) = linalg.get_lapack_funcs(("sygst",), (inner.lower,))
        return sygst(self.cov.T, inner.lower, itype=2, lower=1)[0]


Normal = Sampled | Known


def _no_covariance(place: str) -> errors.DataError:
    return errors.DataError(
        f"sigma of the {place} set has negative eigenvalues: it is no covariance; compute it in "
        "float64 from the features"
    )


def of(stats: Statistics, place: str) -> Normal:
    """The normal distribution of a set; `place` is "real" or "fake".

    Raises:
      DataError: a set of one sample, which has no covariance.
    """
    if stats.features is None or stats.n > stats.width:
        return of_moments(*stats.moments, place)
    if stats.n < 2:
        raise errors.DataError(
            f"the {place} set has {stats.n} sample, and a covariance needs at least 2: give more"
        )
    x = stats.features.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    x /= np.sqrt(stats.n - 1)
    return Sampled(place, mean, float(np.vdot(x, x)), stats.n - 1, x.T)


def of_moments(mean: np.ndarray, cov: np.ndarray, place: str) -> Normal:
    """The normal distribution of a known mean (D,) and covariance (D, D), in float64."""
    return Known(place, mean, float(np.trace(cov)), len(cov), cov)


def distance(real: Normal, fake: Normal) -> float:
    """d², never below 0, and 0 where it is below TOLERANCE of its terms.

    Raises:
      DataError: a known covariance with a negative eigenvalue.
    """
    outer, inner = _ordered(real, fake)
    squares = np.zeros(0)
    if inner.factor.shape[1]:
        squares = linalg.eigh(
            outer.within(inner),
            eigvals_only=True,
            overwrite_a=True,
            check_finite=False,
            driver="evr",
        )
    return _value(squares[::-1], outer, inner)


def _ordered(real: Normal, fake: Normal) -> tuple[Normal, Normal]:
    """(outer, inner): the factor of the inner one has the fewer columns."""
    outer, inner = (real, fake) if fake.rank <= real.rank else (fake, real)
    if isinstance(outer, Known) and (isinstance(inner, Sampled) or inner.lower is None):
        # C_iᵀ Σ_o C_i does not show what is negative of Σ_o where C_i has no part; its factor does.
        _ = outer.factor
    return outer, inner


def _value(squares: np.ndarray, outer: Normal, inner: Normal) -> float:
    """d² of the eigenvalues of C_iᵀ Σ_o C_i, from the largest down.

    They carry an error of eps·s_0², so a small s one of eps·s_0²/2s; these are of either sign
    and add up as squares. Where that is too much, s comes from C_oᵀ C_i itself.
    """
    scale = float(np.sum((outer.mean - inner.mean) ** 2)) + outer.trace + inner.trace
    rank = min(outer.rank, inner.rank, len(squares))
    if rank and squares[-1] < -NEGATIVE * abs(squares[0]):
        raise _no_covariance(outer.place)
    s = np.sqrt(np.maximum(squares[:rank], 0))
    noise = _EPS * float(s[0] ** 2) if rank else 0.0
    if noise:
        error = noise / np.maximum(2 * s, np.sqrt(noise))
        if 2 * np.linalg.norm(error) > TOLERANCE * scale:
            s = np.asarray(linalg.svdvals(outer.factor.T @ inner.factor, check_finite=False))[:rank]
    found = scale - 2 * float(s.sum())
    return found if found > TOLERANCE * scale else 0.0


class Directions(NamedTuple):
    """Coordinates that make C_rᵀ C_f diagonal: x_c @ real, x_c @ fake have covariance I.

    s: (R,) from the largest down;  real, fake: (D, R), for samples of each set, centred
    """

    s: np.ndarray
    real: np.ndarray
    fake: np.ndarray


def directions(real: Normal, fake: Normal) -> tuple[float, Directions]:
    """d² and its coordinates, those left out whose s is below 3e-7 of the largest.

    Raises: as `distance`.
    """
    outer, inner = _ordered(real, fake)
    if not inner.factor.shape[1]:
        none = np.zeros((len(real.mean), 0))
        return _value(np.zeros(0), outer, inner), Directions(np.zeros(0), none, none)
    squares, v = linalg.eigh(
        outer.within(inner), overwrite_a=True, check_finite=False, driver="evd"
    )
    squares, v = squares[::-1], v[:, ::-1]
    value = _value(squares, outer, inner)
    # Smaller ones are lost in the squares' rounding, and add next to nothing to a derivative.
    kept = squares > 1e-13 * max(squares[0], 0.0)
    s = np.sqrt(squares[kept])
    # With C_oᵀ C_i = U diag(s) Vᵀ: C_i V/s, and C_o U/s = Σ_o C_i V/s².
    of_outer = inner.factor @ (v[:, kept] / s)
    of_inner = outer.times(of_outer / s)
    pair = (of_outer, of_inner) if outer is real else (of_inner, of_outer)
    return value, Directions(s, *pair)
