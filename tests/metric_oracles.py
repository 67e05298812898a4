"""Slow metrics by their definition: all N² distances, no tolerance, no tiles."""

import numpy as np


def squared(a, b):
    """Squared distances from differences: exact for small integers, float64 otherwise."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind != "i":
        a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array([((x - b) ** 2).sum(axis=1) for x in a])


def distances(a, b):
    """|a − b| of all pairs (N, M)."""
    return np.sqrt(squared(a, b))


def radii_squared(x, k):
    out = []
    for i, row in enumerate(squared(x, x)):
        others = sorted(d for j, d in enumerate(row) if j != i)
        out.append(others[k - 1])
    return np.array(out)


def prdc(real, fake, k, k_dc):
    """{metric: value} with closed balls, d <= radius."""
    d = squared(real, fake)
    in_real = d <= radii_squared(real, k)[:, None]
    in_fake = d <= radii_squared(fake, k)[None, :]
    in_real_dc = d <= radii_squared(real, k_dc)[:, None]
    return {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_fake.any(axis=1).mean(),
        "density": in_real_dc.sum(axis=0).mean() / k_dc,
        "coverage": in_real_dc.any(axis=1).mean(),
    }
