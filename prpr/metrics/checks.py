"""What a metric is given: settings and features, refused with the value, the place and the mend."""

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors


def is_whole(x: object) -> bool:
    """True for a Python or NumPy integer; False for True."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def check_settings(settings: dict[str, int]) -> None:
    """ConfigError unless all settings are whole and >= 1."""
    for name, value in settings.items():
        if not is_whole(value) or value < 1:
            raise errors.ConfigError(f"{name}={value!r} must be a whole number >= 1")


def check_rows(features: ArrayLike, place: str, rows: int = 8192) -> np.ndarray:
    """Features (N, D) as they are, not copied, or DataError; any real dtype is welcome."""
    x = _array(features, place)
    # Kind V is that of structures and raw bytes, but also of bfloat16.
    if x.dtype.kind in "cOSUTMm" or x.dtype.type is np.void:
        raise errors.DataError(f"{place} must be real numbers, got dtype {x.dtype}")
    if x.ndim != 2:
        raise errors.DataError(
            f"{place} must be (N, D), got shape {x.shape}: encode or flatten each sample first"
        )
    if x.shape[1] == 0:
        raise errors.DataError(f"{place} have no columns, shape {x.shape}: D must be >= 1")
    wide = x.dtype.itemsize > 8  # what is finite there may not be in float64

    def finite(block: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            found = np.isfinite(block.astype(np.float64) if wide else block)
        return np.logical_and.reduce(found, axis=1)

    bad = np.concatenate(
        [
            start + np.flatnonzero(~finite(x[start : start + rows]))
            for start in range(0, max(len(x), 1), rows)
        ]
    )
    if bad.size:
        raise errors.DataError(
            f"{place} have NaN or infinity in {bad.size} of {len(x)} rows, first in row "
            f"{bad[0]}: drop these samples, or look at the model that made them"
        )
    return x


def check_labels(labels: ArrayLike, n: int, place: str) -> np.ndarray:
    """Labels as int64 (n,), or DataError."""
    y = _array(labels, f"labels of {place}")
    if y.shape != (n,) or y.dtype.kind not in "iub":
        raise errors.DataError(
            f"labels of {place} must be {n} integers, one a sample, got dtype {y.dtype} and "
            f"shape {y.shape}"
        )
    return y.astype(np.int64)


def check_probabilities(probabilities: ArrayLike, n: int, place: str) -> np.ndarray:
    """Class probabilities (n, C), or DataError unless rows are >= 0 and sum to 1 (to 1e-3)."""
    p = _array(probabilities, f"probabilities of {place}")
    if p.ndim != 2 or len(p) != n or p.shape[1] < 2 or p.dtype.kind != "f":
        raise errors.DataError(
            f"probabilities of {place} must be ({n}, C) floats with C >= 2, got dtype {p.dtype} "
            f"and shape {p.shape}"
        )
    sums = p.sum(axis=1, dtype=np.float64)
    bad = np.flatnonzero(~((p >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-3)))
    if bad.size:
        raise errors.DataError(
            f"probabilities of {place} are none in {bad.size} rows, first in row {bad[0]}, whose "
            f"sum is {sums[bad[0]]:.4g}: give softmax outputs, not logits"
        )
    return p


def check_moments(mu: ArrayLike, sigma: ArrayLike, place: str) -> tuple[np.ndarray, np.ndarray]:
    """(μ (D,), Σ (D, D)) in float64, or DataError unless finite, of one D, and Σ symmetric."""
    mean, cov = (_array(x, f"mu and sigma of {place}") for x in (mu, sigma))
    d = mean.shape[0] if mean.ndim == 1 else 0
    if mean.dtype.kind not in "fiu" or cov.dtype.kind not in "fiu" or d == 0 or cov.shape != (d, d):
        raise errors.DataError(
            f"mu and sigma of {place} must be (D,) and (D, D) numbers, got {mean.dtype} "
            f"{mean.shape} and {cov.dtype} {cov.shape}"
        )
    mean, cov = mean.astype(np.float64), cov.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise errors.DataError(f"mu or sigma of {place} has NaN or infinity: make them again")
    if np.abs(cov - cov.T).max() > 1e-6 * max(np.abs(cov).max(), 1e-300):
        raise errors.DataError(f"sigma of {place} is not symmetric: it is no covariance")
    return mean, cov


def check_enough(what: str, n: int, ks: dict[str, int], spare: int = 1) -> None:
    """DataError unless a set of n has a k-th neighbour for each of the settings `ks`.

    Args:
      what: which samples, in a word or none.
      n: how many.
      ks: {setting: k}.
      spare: 1 where neighbours are in the sample's own set, itself excluded; 0 across.
    """
    few = {name: k for name, k in ks.items() if n < k + spare}
    if few:
        asked = ", ".join(f"{name}={k}" for name, k in few.items())
        need = "needs" if len(few) == 1 else "need"
        mend = f" or {' and '.join(few)} of at most {n - spare}" if n > spare else ""
        raise errors.DataError(
            f"{asked} {need} at least {max(few.values()) + spare} {what + ' ' if what else ''}"
            f"samples, got {n}: give more samples{mend}"
        )


def check_widths(real: int, fake: int) -> None:
    """DataError unless both sets have features of one width."""
    if real != fake:
        raise errors.DataError(
            f"real features have D={real} and fake features D={fake}: "
            "both must come from the same encoder"
        )


def check_pair(
    real: ArrayLike, fake: ArrayLike, ks: tuple[dict[str, int], dict[str, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Real (N, D) and fake (M, D) features as they are, or the error of what is wrong.

    Args:
      ks: for each side the neighbours that are asked for in its own set, {setting: k}.
    """
    check_settings(ks[0] | ks[1])
    x, y = check_rows(real, "the real features"), check_rows(fake, "the fake features")
    check_widths(x.shape[1], y.shape[1])
    check_enough("real", len(x), ks[0])
    check_enough("fake", len(y), ks[1])
    return x, y


def _array(x: ArrayLike, place: str) -> np.ndarray:
    """As an array, or DataError where it has no shape, such as rows of unequal length."""
    try:
        return np.asarray(x)
    except (ValueError, TypeError) as error:
        raise errors.DataError(f"{place} are no array: {error}") from None
