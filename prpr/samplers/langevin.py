"""Langevin steps in the latent (DDLS; Che et al. 2020, arXiv:2003.06060).

With the generator as it is, p is near the samples of latents of density ∝ exp(−E),

    E(z) = −log p₀(z) − log r̂(G(z)),        p₀ the standard normal,

and T steps z ← z − ε/2 ∇E(z) + √ε n, n normal, from the prior lead towards it. No step is
rejected, so the limit is off by O(ε), and steps that are too few stop on the way.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prpr import sampling, train
from prpr.samplers import proposals
from prpr.samplers.proposals import Drawn
from prpr.samplers.settings import Cost, Ddls

Array = jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _step(
    system: train.System,
    state: train.TrainState,
    key: Array,
    y: Array,
    z: Array,
    sound: Array,
    size: Array,
) -> tuple[Array, Array]:
    """(z after one step, whether all was finite so far): (N, dim_z), (N,)."""

    def energy(z: Array) -> tuple[Array, Array]:
        log_r = proposals.log_ratio_of(system, state, z, y)
        # Items do not see each other in evaluation mode: the sum's gradient is each one's own.
        return 0.5 * jnp.square(z).sum() - log_r.sum(), log_r

    gradient, log_r = jax.grad(energy, has_aux=True)(z)
    moved = z - size / 2 * gradient + jnp.sqrt(size) * jax.random.normal(key, z.shape)
    return moved, sound & jnp.isfinite(moved).all(axis=1) & jnp.isfinite(log_r)


def ddls(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: Array,
    settings: Ddls,
    batch: int,
) -> Drawn:
    """The ends of Langevin walks; see the module's head and `drawing.latents`."""
    z = np.empty((len(labels), system.dim_z), np.float32)
    size = jnp.float32(settings.size)
    for i, (rows, count) in enumerate(proposals.batches(len(labels), batch)):
        k, y = jax.random.fold_in(key, i), jnp.asarray(labels[rows])
        at = sampling.latents(jax.random.fold_in(k, settings.steps), len(rows), system.dim_z)
        sound = jnp.ones(y.shape, bool)
        # Not a loop inside the program: on a CPU its convolutions would be ten times as slow.
        for step in range(settings.steps):
            at, sound = _step(system, state, jax.random.fold_in(k, step), y, at, sound, size)
        ended = np.where(np.asarray(sound)[:count], 0.0, np.nan)
        proposals.checked(ended, "walks (or its gradient is; a smaller size may mend it)")
        z[rows[:count]] = np.asarray(at)[:count]
    steps = len(labels) * settings.steps
    # The item itself is one more call of the generator.
    return Drawn(z, Cost(len(labels), steps + len(labels), steps, steps))
