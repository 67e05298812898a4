"""What a critic sees in training: data and samples, augmented where the system says so.

Notation and formulas: `prpr.augment`; pieces and devices: `prpr.pieces`. Without a policy there are
no draws, and items are what they are.
"""

import jax.numpy as jnp

from prpr import augment, pieces
from prpr.systems import Array, System, TrainState


def sigma(system: System, state: TrainState) -> Array | float:
    """σ of the noise that augments: linear from the first generator step on, to 0."""
    a = system.augment
    if not a.sigma_steps:
        return a.sigma
    share = (state.step - system.warmup).astype(jnp.float32) / a.sigma_steps
    return a.sigma * jnp.clip(1.0 - share, 0.0, 1.0)


def draws(
    system: System, key: Array, shape: tuple[int, ...], *sides: str
) -> dict[str, augment.Draws]:
    """What augments this device's items of that shape, by side: of "data", "samples" or both."""
    if not system.augment.policy:
        return {}
    return {
        side: pieces.augmentation(
            system, key, system.augment.policy, shape, samples, samples=bool(samples)
        )
        for samples, side in enumerate(("data", "samples"))
        if side in sides
    }


def as_seen(
    system: System, state: TrainState, drawn: dict[str, augment.Draws], side: str, x: Array
) -> Array:
    """Items (n, ...) as the critic sees them: augmented, where `drawn` has what it takes."""
    a = system.augment
    if side not in drawn:
        return x
    p = a.p if state.augment_p is None else state.augment_p
    return augment.apply(drawn[side], x, a.policy, p, sigma(system, state))


def draws_again(system: System, key: Array, shape: tuple[int, ...]) -> tuple[augment.Draws, ...]:
    """What changes data and samples, of that shape each, a second time; () without a penalty."""
    if not system.consistency:
        return ()
    policy = system.consistency_policy
    return tuple(
        pieces.augmentation(system, key, policy, shape, 2 + samples, samples=bool(samples))
        for samples in (0, 1)
    )


def changed_again(
    system: System, state: TrainState, draws: tuple[augment.Draws, ...], *sides: Array
) -> Array:
    """Data and samples, one after the other, by the policy of the consistency penalty."""
    policy, now = system.consistency_policy, sigma(system, state)
    each = zip(draws, sides, strict=True)
    return jnp.concatenate([augment.apply(draw, x, policy, 1.0, now) for draw, x in each])
