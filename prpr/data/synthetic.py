"""Gaussian mixtures, and scikit-learn's digits.

`prpr.data.planar` makes data sets of the mixtures, and has further distributions in the plane.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import errors
from prpr.data.dataset import Dataset

POINTS = 10_000  # samples of a synthetic data set, all splits together


class Mixture(NamedTuple):
    """Σ_c w_c N(x; m_c, s² I): means (K, D), scale s, weights w (K,) that sum to 1."""

    means: np.ndarray
    scale: float
    weights: np.ndarray

    @property
    def classes(self) -> int:
        """K: a point's label is its component."""
        return len(self.weights)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n points (n, D) float32 and the component of each, (n,) int32."""
        edges = np.cumsum(self.weights)
        component = np.searchsorted(edges[:-1], rng.random(n), side="right")
        noise = rng.standard_normal((n, self.means.shape[1]))
        points = self.means[component] + self.scale * noise
        return points.astype(np.float32), component.astype(np.int32)

    def log_density(self, x: jax.Array) -> jax.Array:
        """log p(x) = log Σ_c w_c (2πs²)^(−D/2) exp(−|x − m_c|² / 2s²); x (..., D) -> (...)."""
        count, d = self.means.shape
        ones = (1,) * (x.ndim - 1)
        log_weights = jnp.asarray(np.log(self.weights), x.dtype).reshape(*ones, count)
        log_each = log_weights - float(d * (np.log(self.scale) + 0.5 * np.log(2 * np.pi)))
        # One coordinate after another: a sum over a short last axis takes 6 times as long.
        for k in range(d):
            means = jnp.asarray(self.means[:, k], x.dtype).reshape(*ones, count)
            z = (x[..., k : k + 1] - means) / self.scale
            log_each = log_each - 0.5 * z * z
        return jax.nn.logsumexp(log_each, axis=-1)


def _equal(means: np.ndarray, scale: float) -> Mixture:
    return Mixture(means, scale, np.full(len(means), 1 / len(means)))


def _ring(modes: int, radius: float, scale: float) -> Mixture:
    angle = 2 * np.pi * np.arange(modes) / modes
    return _equal(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), scale)


def _grid(side: int, spacing: float, scale: float) -> Mixture:
    line = spacing * (np.arange(side) - (side - 1) / 2)
    return _equal(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), scale)


MIXTURES: dict[str, Mixture] = {
    "ring8": _ring(8, radius=2.0, scale=0.1),
    "grid25": _grid(5, spacing=1.0, scale=0.05),
    # A mode of one sample in 101: what a model that trades recall away drops first.
    "skewed": Mixture(np.array([[-1.0, 0.0], [1.0, 0.0]]), 0.25, np.array([100.0, 1.0]) / 101),
}


def mixture(name: str) -> Mixture:
    """The mixture `name`; ConfigError for a name not in MIXTURES."""
    if name not in MIXTURES:
        raise errors.unknown_name("mixture", name, MIXTURES)
    return MIXTURES[name]


def digits(name: str, seed: int) -> Dataset:
    """scikit-learn's 1797 digits, (8, 8, 1)."""
    del seed  # the same 1797 images for every seed; only the split differs
    from sklearn.datasets import load_digits  # a second to import

    images, labels = load_digits(return_X_y=True)
    images = (np.asarray(images, np.float32) / 8 - 1).reshape(-1, 8, 8, 1)  # from 0..16
    return Dataset(images, np.asarray(labels, np.int32), 10, name, levels=17)
