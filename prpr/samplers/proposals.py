"""What the samplers have in common: a batch of proposals with log r̂, padding, and checks."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import sampling, train
from prpr.errors import DataError
from prpr.samplers.settings import Cost

Array = jax.Array


class Held(NamedTuple):
    """Held-out real items: images (M, ...) float32 in the model's range, labels (M,)."""

    images: np.ndarray
    labels: np.ndarray


class Drawn(NamedTuple):
    """Latents (N, dim_z) float32 of the samples, a row for each label; their cost; what to know."""

    z: np.ndarray
    cost: Cost
    notes: tuple[str, ...] = ()


def lean(state: train.TrainState) -> train.TrainState:
    """A state of what the samplers read: they pass it to the device with every batch."""
    return state.replace(critic_opt=(), generator_opt=(), ema=state.generator)


@functools.partial(jax.jit, static_argnums=0)
def propose(
    system: train.System, state: train.TrainState, key: Array, y: Array
) -> tuple[Array, Array, Array]:
    """z (N, dim_z) of the prior, log r̂ (N,) of its items with classes y (N,), u (N,) uniform."""
    k_z, k_u = jax.random.split(key)
    z = sampling.latents(k_z, y.shape[0], system.dim_z)
    return z, log_ratio_of(system, state, z, y), jax.random.uniform(k_u, y.shape)


def log_ratio_of(system: train.System, state: train.TrainState, z: Array, y: Array) -> Array:
    """log r̂ (N,) at the items of latents z (N, dim_z)."""
    x = train.apply_frozen(system.generator, state.generator, z, y)
    return train.log_ratio(system, state, x, y)


def batches(n: int, batch: int) -> Iterator[tuple[np.ndarray, int]]:
    """(rows, how many of them count) of all n rows, each time `batch` of them, the last padded."""
    batch = min(batch, n)
    for at in range(0, n, batch):
        rows = np.arange(at, at + batch)
        yield np.minimum(rows, n - 1), min(batch, n - at)


def checked(log_r: np.ndarray, what: str = "samples of the generator") -> np.ndarray:
    """log r̂ in float64; DataError unless all are finite."""
    bad = int((~np.isfinite(log_r)).sum())
    if bad:
        raise DataError(
            f"log r̂ is NaN or infinite at {bad} of {len(log_r)} {what}: look at the run's losses, "
            "and take a checkpoint of before they diverged"
        )
    return np.asarray(log_r, np.float64)


def log_ratios(
    system: train.System, state: train.TrainState, y: np.ndarray, key: Array, batch: int
) -> np.ndarray:
    """log r̂ (N,) float64 at a new sample for each label."""
    found = np.empty(len(y))
    for i, (rows, count) in enumerate(batches(len(y), batch)):
        _, log_r, _ = propose(system, state, jax.random.fold_in(key, i), jnp.asarray(y[rows]))
        found[rows[:count]] = checked(np.asarray(log_r)[:count])
    return found


@functools.partial(jax.jit, static_argnums=0)
def _at(system: train.System, state: train.TrainState, x: Array, y: Array, noise: Array) -> Array:
    """log r̂ (N,) at data x (N, ...), with noise in (0, 1) between values on a grid."""
    if system.levels:
        x = x + 2.0 / (system.levels - 1) * (noise - 0.5)
    return train.log_ratio(system, state, x, y)


def log_ratios_of_data(
    system: train.System,
    state: train.TrainState,
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    n: int,
    key: Array,
    batch: int,
) -> np.ndarray:
    """log r̂ (n,) float64 at real items.

    Args:
      read: rows (k,) -> their images (k, ...) float32 and labels (k,); a batch at a time.
      n: how many there are.
      key: of the noise between values on a grid.
    """
    found = np.empty(n)
    for i, (rows, count) in enumerate(batches(n, batch)):
        images, labels = read(rows)
        x, y = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
        noise = jax.random.uniform(jax.random.fold_in(key, i), x.shape)
        found[rows[:count]] = np.asarray(_at(system, state, x, y, noise))[:count]
    return checked(found, "held-out items")


def normalisation(system: train.System, log_r: np.ndarray) -> str:
    """The note of E_q[r̂], from log r̂ at samples of q."""
    top = log_r.max()
    mean = np.exp(top + np.log(np.exp(log_r - top).mean()))
    done = (
        "after the run's running mean was divided out (config.normalise)"
        if system.normalise
        else "as the critic gives it"
    )
    return f"E_q[r̂] = {mean:.3g} over {len(log_r)} draws, {done}; 1 for a true ratio"
