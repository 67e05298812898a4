"""Networks that give a map its parameters; all start at zero, so the map starts as the identity.

Notation: x (N, D) or (N, H, W, C) what the network sees, context (N, C') or None, F the numbers
that it gives for an entry or a pixel. Source: the residual network is that of RealNVP
(arXiv:1605.08803) without normalisation, which the zero at the end makes unnecessary.
"""

import flax.linen as nn
import jax
import numpy as np

from prpr.models.flows.bijector import Array

_ZERO = nn.initializers.zeros


class MLP(nn.Module):
    """x (N, D) -> (N, features), through `depth` hidden layers."""

    features: int
    width: int = 64
    depth: int = 2

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = nn.Dense(self.width, name="layer0")(x)
        if context is not None:
            h = h + nn.Dense(self.width, use_bias=False, name="context")(context)
        for i in range(1, self.depth):
            h = nn.Dense(self.width, name=f"layer{i}")(jax.nn.silu(h))
        return nn.Dense(self.features, kernel_init=_ZERO, name="out")(jax.nn.silu(h))


class ConvNet(nn.Module):
    """x (N, H, W, C) -> (N, H, W, features): 3 x 3 convolutions in `depth` residual blocks."""

    features: int
    width: int = 64
    depth: int = 2

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        def conv(name: str) -> nn.Conv:
            return nn.Conv(self.width, (3, 3), name=name)

        h = conv("first")(x)
        for i in range(self.depth):
            inner = conv(f"block{i}_a")(jax.nn.silu(h))
            if context is not None:
                dense = nn.Dense(self.width, use_bias=False, name=f"block{i}_context")
                inner = inner + dense(context)[:, None, None, :]
            h = h + conv(f"block{i}_b")(jax.nn.silu(inner))
        out = nn.Conv(self.features, (3, 3), kernel_init=_ZERO, name="out")
        return out(jax.nn.silu(h))


def conditioner(
    rank: int, features: int, width: int, depth: int, name: str | None = None
) -> nn.Module:
    """`MLP` for vectors (rank 1), `ConvNet` for images (rank 3)."""
    return (ConvNet if rank == 3 else MLP)(features, width, depth, name=name)


def parity(shape: tuple[int, ...], flip: bool) -> np.ndarray:
    """(1, *shape) bool, neighbours different along every axis; True first unless `flip`."""
    return (np.indices(shape).sum(axis=0) % 2 == int(flip))[None]
