"""Samples from a trained generator, in batches of one size (one compilation).

Notation: z (N, dim_z) latent, standard normal; with `truncation` t > 0 each coordinate is
normal conditioned on |z| ≤ t (Brock et al. 2019), which trades variety for quality. Others call
other things truncation: BigGAN-PyTorch scales z, and the BigGAN-deep of TensorFlow Hub takes t
times a normal conditioned on |z| ≤ 2.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
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
def draw(generator: nn.Module, net: train.Net, z: Array, y: Array) -> Array:
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
      batch: samples drawn at once, at most; the last batch is padded.

    Returns:
      (N, ...) float32.

    Raises:
      DataError: if a sample is NaN or infinite.
    """
    z = np.asarray(latents(key, len(labels), system.dim_z, truncation))
    return of_latents(system, net, z, labels, batch=batch)


def of_latents(
    system: train.System, net: train.Net, z: np.ndarray, labels: np.ndarray, *, batch: int = 256
) -> np.ndarray:
    """The samples (N, ...) of latents z (N, dim_z) and labels (N,); the rest is `sample`'s.

    Raises:
      DataError: if a sample is NaN or infinite.
    """
    n = len(labels)
    batch = min(batch, n)
    pad = -n % batch
    z = np.concatenate([z, np.zeros((pad, system.dim_z), z.dtype)])
    y = np.concatenate([labels, np.zeros(pad, labels.dtype)]).astype(np.int32)
    parts = [
        np.asarray(draw(system.generator, net, z[i : i + batch], y[i : i + batch]))
        for i in range(0, n + pad, batch)
    ]
    x = np.concatenate(parts)[:n]
    bad = int((~np.isfinite(x).reshape(n, -1).all(1)).sum())
    if bad:
        raise DataError(f"{bad} of {n} samples of the generator hold NaN or infinity.")
    return x


@functools.partial(jax.jit, static_argnums=0)
def _batch_moments(generator: nn.Module, net: train.Net, z: Array, y: Array) -> Any:
    """The means and variances that batch norm takes from one batch; nothing else moves."""
    variables = {"params": net.params, **net.extra}
    _, moved = generator.apply(variables, z, y, train=True, mutable=["moments"])
    return moved["moments"]  # pyright: ignore


def standing_statistics(
    system: train.System,
    net: train.Net,
    key: Array,
    *,
    batches: int = 16,
    batch: int = 256,
    truncation: float = 0.0,
) -> train.Net:
    """The generator with moments for sampling: means over batches of its own samples.

    Batch norm's running moments lag behind the weights, and behind an average of the weights all
    the more; and they belong to latents without truncation. Here they are replaced by the mean
    of the means, and the mean of the (biased) variances, of `batches` training passes with fixed
    weights and singular vectors (Brock et al. 2019, appendix B; `accumulate_standing_stats` of
    BigGAN-PyTorch). Classes are drawn uniformly.

    Args:
      system: whose generator it is.
      net: the generator, usually the moving average. One without batch norm comes back as it is.
      key: of latents and classes.
      batches: passes.
      batch: samples in a pass.
      truncation: bound on |z|; 0 for none.
    """
    if "batch_stats" not in net.extra:
        return net
    total = jax.tree.map(jnp.zeros_like, net.extra["batch_stats"])
    for i in range(batches):
        k_z, k_y = jax.random.split(jax.random.fold_in(key, i))
        z = latents(k_z, batch, system.dim_z, truncation)
        y = jax.random.randint(k_y, (batch,), 0, system.num_classes)
        total = jax.tree.map(jnp.add, total, _batch_moments(system.generator, net, z, y))
    means = jax.tree.map(lambda leaf: leaf / batches, total)
    return train.Net(net.params, {**net.extra, "batch_stats": means})
