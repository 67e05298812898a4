"""Penalties on a critic, each a pure function of how to apply it and of what to apply it to.

Notation: T the critic's log-ratio, x an image, y its class. Source: Mescheder, Geiger &
Nowozin 2018 (R1); Huang, Gokaslan, Kuleshov & Tompkin 2024 (R1 and R2 together, R3GAN).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def gradient_penalty(apply: Callable[[Array], Array], x: Array) -> Array:
    """½ E‖∇_x T(x)‖², zero-centred: R1 at data, R2 at samples; (N, ...) -> ().

    Args:
      apply: x (N, ...) -> (N,), each output a function of its own row only.
      x: where the gradient is taken.
    """
    gradient = jax.grad(lambda inputs: apply(inputs).sum())(x)
    return 0.5 * jnp.square(gradient).reshape(x.shape[0], -1).sum(-1).mean()
