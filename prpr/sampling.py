"""Samples from a trained generator, in batches of one size (one compilation).

Notation: z (N, dim_z) latent, standard normal; with `truncation` t > 0 each coordinate is
normal conditioned on |z| ≤ t (Brock et al. 2019), which trades variety for quality.
"""

import functools

import flax.linen as nn
import jax
import numpy as np

from prpr import train
from prpr.errors import DataError

Array = jax.Array


def latents(key: Array, n: int, dim_z: int, truncation: float = 0.0) -> Array:
    """(n, dim_z) latents; the same key gives the same latents to every model."""
    if truncation:
        return jax.random.truncated_normal(key, -truncation, truncation, (n, dim_z))
    return jax.random.normal(key, (n, dim_z))


@functools.partial(jax.jit, static_argnums=0)
def _draw(generator: nn.Module, net: train.Net, z: Array, y: Array) -> Array:
    """The generator in evaluation mode; compiled once for equal generators."""
    return train.apply_frozen(generator, net, z, y)


def sample(
    system: train.System,
    net: train.Net,
    labels: np.ndarray,
    key: Array,
    *,
    truncation: float = 0.0,
    batch: int = 256,
) -> np.ndarray:
    """One sample for each label.

    Args:
      system: whose generator it is.
      net: the generator, usually the moving average.
      labels: (N,) int classes to draw.
      key: of the latents.
      truncation: bound on |z|; 0 for none.
      batch: samples drawn at once; the last batch is padded.

    Returns:
      (N, ...) float32.

    Raises:
      DataError: if a sample is NaN or infinite.
    """
    n = len(labels)
    z = np.asarray(latents(key, n, system.dim_z, truncation))
    pad = -n % batch
    z = np.concatenate([z, np.zeros((pad, system.dim_z), z.dtype)])
    y = np.concatenate([labels, np.zeros(pad, labels.dtype)]).astype(np.int32)
    parts = [
        np.asarray(_draw(system.generator, net, z[i : i + batch], y[i : i + batch]))
        for i in range(0, n + pad, batch)
    ]
    x = np.concatenate(parts)[:n]
    bad = int((~np.isfinite(x).reshape(n, -1).all(1)).sum())
    if bad:
        raise DataError(f"{bad} of {n} samples of the generator hold NaN or infinity.")
    return x
