"""What a metric is given: settings and features, refused with the value, the place and the mend."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from prpr import errors


def is_whole(x: object) -> bool:
    """True for a Python or NumPy integer; False for True."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def check_settings(settings: dict[str, int], dtype: DTypeLike) -> None:
    """ConfigError unless all settings are whole and >= 1 and dtype is float32 or float64."""
    for name, value in settings.items():
        if not is_whole(value) or value < 1:
            raise errors.ConfigError(f"{name}={value!r} must be a whole number >= 1")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise errors.ConfigError(f"dtype={dtype!r} of the products must be float32 or float64")


def check_features(features: ArrayLike, place: str) -> np.ndarray:
    """Features as float64 (n, D), or DataError; float16, bfloat16 and integers are welcome."""
    x = np.asarray(features)
    if x.dtype.kind in "cOSUMm":
        raise errors.DataError(f"{place} must be real numbers, got dtype {x.dtype}")
    if x.ndim != 2:
        raise errors.DataError(
            f"{place} must be (N, D), got shape {x.shape}: encode or flatten each sample first"
        )
    x = x.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise errors.DataError(
            f"{place} have NaN or infinity in {bad.size} of {len(x)} rows, first in row "
            f"{bad[0]}: drop these samples, or look at the model that made them"
        )
    if x.shape[1] == 0:
        raise errors.DataError(f"{place} have no columns, shape {x.shape}: D must be >= 1")
    return x


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
    real: ArrayLike, fake: ArrayLike, k: int, k_dc: int, tile: int, dtype: DTypeLike
) -> tuple[np.ndarray, np.ndarray]:
    """Real and fake features as float64 (N, D) and (M, D), or the error of what is wrong."""
    check_settings({"k": k, "k_dc": k_dc, "tile": tile}, dtype)
    x, y = check_features(real, "the real features"), check_features(fake, "the fake features")
    if x.shape[1] != y.shape[1]:
        raise errors.DataError(
            f"real features have D={x.shape[1]} and fake features D={y.shape[1]}: "
            "both must come from the same encoder"
        )
    check_enough({"real": len(x), "fake": len(y)}, {"k": k, "k_dc": k_dc})
    return x, y
