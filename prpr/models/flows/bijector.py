"""The contract of an invertible map, and how such maps are chained.

Notation
  x          (N, ...) on the side of the data
  z          (N, ...) on the side of the latent, which ends as a standard normal (N, dim_z)
  context    (N, C) float32 that every map may look at (an embedding of the class), or None
  log_det    (N,) float32, log |det ∂out/∂in| of the direction that was taken

A map is a Flax module, so its parameters live outside of it: `apply` with one of its two methods
is a pure function. Forward is from data to latent, the direction of a likelihood; inverse is
that of sampling. For all x the two are inverse to each other, and their log_det add up to 0.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Mapped = tuple[Array, Array]  # (out, log_det)


class Bijector(nn.Module):
    """An invertible map of items of one shape; subclasses give both directions."""

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Of z's item, where it is not that of x's; None where it is."""
        return None

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        """x (N, ...) -> z (N, ...), log |det ∂z/∂x| (N,)."""
        raise NotImplementedError

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        """z (N, ...) -> x (N, ...), log |det ∂x/∂z| (N,)."""
        raise NotImplementedError


class Chain(Bijector):
    """Maps one after another, the first next to the data.

    Attributes:
      maps: at least one.
    """

    maps: Sequence[Bijector]

    def __post_init__(self) -> None:
        self.maps = tuple(self.maps)  # of which there is a hash, as jit's static arguments need
        super().__post_init__()

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        changed = [one.latent_shape for one in self.maps]
        return next((shape for shape in reversed(changed) if shape is not None), None)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        total = jnp.zeros(x.shape[0], jnp.float32)
        for one in self.maps:
            x, log_det = one.forward_and_log_det(x, context)
            total = total + log_det
        return x, total

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        total = jnp.zeros(z.shape[0], jnp.float32)
        for one in reversed(self.maps):
            z, log_det = one.inverse_and_log_det(z, context)
            total = total + log_det
        return z, total


def sum_items(x: Array) -> Array:
    """(N, ...) -> (N,): the sum over everything but the batch, in float32."""
    return x.astype(jnp.float32).reshape(x.shape[0], -1).sum(axis=1)
