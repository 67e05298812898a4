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
    x = np.asarray(features)
    if x.dtype.kind in "cOSUMm":
        raise errors.DataError(f"{place} must be real numbers, got dtype {x.dtype}")
    if x.ndim != 2:
        raise errors.DataError(
            f"{place} must be (N, D), got shape {x.shape}: encode or flatten each sample first"
        )
    if x.shape[1] == 0:
        raise errors.DataError(f"{place} have no columns, shape {x.shape}: D must be >= 1")
    bad = np.concatenate(
        [
            start + np.flatnonzero(~np.isfinite(x[start : start + rows]).all(axis=1))
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
    y = np.asarray(labels)
    if y.shape != (n,) or y.dtype.kind not in "iub":
        raise errors.DataError(
            f"labels of {place} must be {n} integers, one a sample, got dtype {y.dtype} and "
            f"shape {y.shape}"
        )
    return y.astype(np.int64)


def check_probabilities(probabilities: ArrayLike, n: int, place: str) -> np.ndarray:
    """Class probabilities (n, C), or DataError unless rows are >= 0 and sum to 1 (to 1e-3)."""
    p = np.asarray(probabilities)
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
    mean, cov = np.asarray(mu), np.asarray(sigma)
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


def check_enough(sizes: dict[str, int], ks: dict[str, int]) -> None:
    """DataError unless every set has a k-th neighbour besides each sample itself."""
    name = max(ks, key=lambda key: ks[key])
    if min(sizes.values()) < ks[name] + 1:
        got = " and ".join(f"{n} {what}" for what, n in sizes.items())
        raise errors.DataError(
            f"{name}={ks[name]} needs at least {ks[name] + 1} samples, got {got}: "
            f"give more samples or a smaller {name}"
        )


def check_pair(
    real: ArrayLike, fake: ArrayLike, k: int, k_dc: int
) -> tuple[np.ndarray, np.ndarray]:
    """Real (N, D) and fake (M, D) features as they are, or the error of what is wrong."""
    check_settings({"k": k, "k_dc": k_dc})
    x, y = check_rows(real, "the real features"), check_rows(fake, "the fake features")
    if x.shape[1] != y.shape[1]:
        raise errors.DataError(
            f"real features have D={x.shape[1]} and fake features D={y.shape[1]}: "
            "both must come from the same encoder"
        )
    check_enough({"real": len(x), "fake": len(y)}, {"k": k, "k_dc": k_dc})
    return x, y
