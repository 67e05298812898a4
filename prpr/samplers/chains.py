"""Metropolis-Hastings GAN (Turner et al. 2019, arXiv:1811.11357).

A chain's K proposals are independent samples of q; one is accepted with probability

    min(1, r̂(x')/r̂(x_k))

which leaves p invariant for the true r. A chain starts at a held-out real item of its class, which
is of p already, so that there is no burn-in; only its r̂ is needed. One that never moved would give
that real item back: it is run again from a sample of the generator, as in the paper. Chains go side
by side, one for each sample, and do not see each other.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr import train
from prpr.errors import DataError
from prpr.samplers import proposals
from prpr.samplers.proposals import Drawn, Held
from prpr.samplers.settings import Cost, Mh

Array = jax.Array

_START, _NOISE, _AGAIN = 2**30, 2**30 + 1, 2**30 + 2  # keys; the batches of chains count from 0


class _Chains(NamedTuple):
    """Where the chains of a batch are: z (N, dim_z), log r̂ (N,); moved, sound (N,) bool."""

    z: Array
    log_r: Array
    moved: Array
    sound: Array


@functools.partial(jax.jit, static_argnums=0)
def _advance(
    system: train.System, state: train.TrainState, key: Array, y: Array, chains: _Chains
) -> _Chains:
    z, log_r, u = proposals.propose(system, state, key, y)
    accept = jnp.log(u) < log_r - chains.log_r
    return _Chains(
        jnp.where(accept[:, None], z, chains.z),
        jnp.where(accept, log_r, chains.log_r),
        chains.moved | accept,
        chains.sound & jnp.isfinite(log_r),
    )


def mh(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: Array,
    settings: Mh,
    batch: int,
    held: Held | None,
) -> Drawn:
    """The ends of Metropolis-Hastings chains; see the module's head and `drawing.latents`.

    Args:
      held: real items to start from.

    Raises:
      DataError: no held-out items, or r̂ that is not finite.
    """
    if held is None or not len(held.images):
        raise DataError(
            "the sampler mh starts its chains at held-out real items, and there are none: give "
            "some, or take reject:budget=4"
        )
    k_noise = jax.random.fold_in(key, _NOISE)
    real = proposals.log_ratios_of_data(
        system,
        state,
        lambda rows: (held.images[rows], held.labels[rows]),
        len(held.images),
        k_noise,
        batch,
    ).astype(np.float32)
    u = np.asarray(jax.random.uniform(jax.random.fold_in(key, _START), (len(labels),)))
    begin = real[of_same_class(held.labels, labels, u)]
    z, moved = _run(system, state, labels, key, settings.steps, batch, begin)
    calls, notes = len(labels) * settings.steps, ()
    stuck = np.flatnonzero(~moved)
    if len(stuck):
        k = jax.random.fold_in(key, _AGAIN)
        z[stuck], _ = _run(system, state, labels[stuck], k, settings.steps, batch, None)
        calls += len(stuck) * (settings.steps + 1)
        notes = (
            f"{len(stuck)} of {len(labels)} chains never left their real item in {settings.steps} "
            "proposals, and were run again from a sample: more steps make them fewer",
        )
    return Drawn(z, Cost(len(labels), calls, calls, once_critic=len(real)), notes)


def of_same_class(known: np.ndarray, labels: np.ndarray, u: np.ndarray) -> np.ndarray:
    """For each label the row of an item of its class, by u in [0, 1); of any where it has none."""
    order = np.argsort(known, kind="stable")
    low = np.searchsorted(known[order], labels, side="left")
    count = np.searchsorted(known[order], labels, side="right") - low
    low, count = np.where(count, low, 0), np.where(count, count, len(known))
    return order[low + np.minimum((u * count).astype(int), count - 1)]


def _run(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: Array,
    steps: int,
    batch: int,
    begin: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(z, whether it moved) of chains from log r̂ (N,), or from a sample of the generator each."""
    z, moved = np.empty((len(labels), system.dim_z), np.float32), np.empty(len(labels), bool)
    for i, (rows, count) in enumerate(proposals.batches(len(labels), batch)):
        k, y = jax.random.fold_in(key, i), jnp.asarray(labels[rows])
        if begin is None:
            first, log_r, _ = proposals.propose(system, state, jax.random.fold_in(k, steps), y)
            chains = _Chains(first, log_r, jnp.ones(y.shape, bool), jnp.isfinite(log_r))
        else:
            none = jnp.zeros((len(rows), system.dim_z), jnp.float32)
            no, yes = jnp.zeros(y.shape, bool), jnp.ones(y.shape, bool)
            chains = _Chains(none, jnp.asarray(begin[rows]), no, yes)
        # Not a loop inside the program: on a CPU its convolutions would be ten times as slow.
        for step in range(steps):
            chains = _advance(system, state, jax.random.fold_in(k, step), y, chains)
        _sound(np.asarray(chains.sound)[:count])
        z[rows[:count]] = np.asarray(chains.z)[:count]
        moved[rows[:count]] = np.asarray(chains.moved)[:count]
    return z, moved


def _sound(sound: np.ndarray) -> None:
    proposals.checked(np.where(sound, 0.0, np.nan), "chains")
