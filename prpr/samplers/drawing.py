"""Samples through a sampler: latents with their cost, or the items themselves."""

from typing import NamedTuple

import jax
import numpy as np

from prpr import sampling, train
from prpr.errors import ConfigError
from prpr.samplers import chains, langevin, proposals, rejection
from prpr.samplers.proposals import Drawn, Held
from prpr.samplers.settings import (
    Cost,
    Ddls,
    Drs,
    Mh,
    Reject,
    Sampler,
    Truncation,
    check_ratio,
    text,
)

__all__ = ["Drawn", "Held", "Samples", "latents", "sample"]


class Samples(NamedTuple):
    """Items (N, ...) float32, their labels (N,), what they cost, and what to know of them."""

    items: np.ndarray
    labels: np.ndarray
    cost: Cost
    notes: tuple[str, ...]


def latents(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: jax.Array,
    sampler: Sampler,
    *,
    held: Held | None = None,
    batch: int = 256,
) -> Drawn:
    """One latent for each label; its item is the generator's at it, in evaluation mode.

    A pure function: equal arguments give equal latents. Memory is a batch of items, and N latents.

    Args:
      system: whose generator and critic they are.
      state: `generator` is what is drawn, `critic` (and `log_norm`, `reference`) what judges it.
      labels: (N,) int classes, each of which gets a sample.
      key: of all that is random.
      sampler: which, from `samplers.parse`.
      held: held-out real items; mh needs them.
      batch: items computed at once.

    Raises:
      ConfigError: settings that cannot be used, no labels, or a model without a ratio.
      DataError: ratios that are not finite, or labels that were not filled.
    """
    sampler.check(f"sampler {text(sampler)}")
    loss = system.critic_loss
    named = loss.name if loss.identified else "hinge"
    check_ratio(sampler, "this model", loss=named, has_ratio=system.has_ratio)
    if not len(labels):
        raise ConfigError("there are no labels to draw samples for: give one for each sample")
    labels, state = np.asarray(labels, np.int32), proposals.lean(state)
    match sampler:
        case Truncation():
            z = sampling.latents(key, len(labels), system.dim_z, sampler.at)
            return Drawn(np.asarray(z), Cost(len(labels), len(labels)))
        case Reject():
            return rejection.reject(system, state, labels, key, sampler, batch)
        case Drs():
            return rejection.drs(system, state, labels, key, sampler, batch)
        case Mh():
            return chains.mh(system, state, labels, key, sampler, batch, held)
        case Ddls():
            return langevin.ddls(system, state, labels, key, sampler, batch)


def sample(
    system: train.System,
    state: train.TrainState,
    labels: np.ndarray,
    key: jax.Array,
    sampler: Sampler,
    *,
    held: Held | None = None,
    batch: int = 256,
) -> Samples:
    """One sample for each label; see `latents`, whose latents become items here.

    The cost is of a sampler that keeps the item of an accepted latent: what is computed again here
    is not counted.

    Raises:
      As `latents`; DataError also for items that are NaN or infinite.
    """
    drawn = latents(system, state, labels, key, sampler, held=held, batch=batch)
    items = sampling.of_latents(system, state.generator, drawn.z, labels, batch=batch)
    return Samples(items, labels, drawn.cost, drawn.notes)
