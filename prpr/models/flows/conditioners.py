"""Networks that give a map its parameters; all start at zero, so the map starts as the identity.

Notation: x (N, D) or (N, H, W, C) what the network sees, context (N, C') or None, F the numbers
that it gives for an entry or a pixel. Source: the residual network is that of RealNVP
(arXiv:1605.08803) without normalisation, which the zero at the end makes unnecessary.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.custom_derivatives import SymbolicZero

from prpr.models.flows.bijector import Array

_ZERO = nn.initializers.zeros


@jax.custom_jvp
def product(x: Array, kernel: Array) -> Array:
    """x (N, D) times kernel (D, F) -> (N, F); the kernel's gradient is the product of a held xᵀ.

    As autodiff would have it, that gradient is a product over the rows of both factors, for which
    XLA on a CPU is slower where the layers are wide: with `x @ kernel` instead, a whole training
    step of benchmarks/flows.py on two cores takes 1.15 times as long at realnvp-2-1024, 1.03 at
    spline-16-256, .99 at spline-2-1024 and .94 at realnvp-2-128.
    """
    return x @ kernel


@functools.partial(product.defjvp, symbolic_zeros=True)
def _product_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = []  # of the factors that are differentiated: of the first layer, the kernel alone
    if not isinstance(dx, SymbolicZero):
        parts.append(product(dx, kernel))
    if not isinstance(dkernel, SymbolicZero):
        # Without the barrier XLA would fold the transpose into the product again.
        held = jax.lax.optimization_barrier(x.T) if jax.default_backend() == "cpu" else x.T
        parts.append(jax.lax.dot_general(held, dkernel, (((0,), (0,)), ((), ()))))
    return product(x, kernel), sum(parts[1:], parts[0])


class Dense(nn.Module):
    """x (N, D) -> (N, features), an affine map: Flax's own with `product`."""

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", _ZERO, shape[-1:], jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=None)
        return product(x, kernel) + bias[None]


class MLP(nn.Module):
    """x (N, D) -> (N, features), through `depth` hidden layers."""

    features: int
    width: int = 64
    depth: int = 2

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        h = Dense(self.width, name="layer0")(x)
        if context is not None:
            h = h + nn.Dense(self.width, use_bias=False, name="context")(context)
        for i in range(1, self.depth):
            h = Dense(self.width, name=f"layer{i}")(jax.nn.silu(h))
        return Dense(self.features, _ZERO, name="out")(jax.nn.silu(h))


class Conv(nn.Module):
    """3 x 3 convolution with zeros around: x (N, H, W, C) -> (N, H, W, features).

    Of an image of at most 2 x 2 pixels every output sees every input, so it is one product,
    (N, H·W·C) times (H·W·C, H·W·features): on a CPU XLA's convolution takes 20 times as long.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, height, width, c = x.shape
        shape = (3, 3, c, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", _ZERO, shape[-1:], jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=None)
        if max(height, width) <= 2:
            outputs = [(i, j) for i in range(height) for j in range(width)]
            seen = [kernel[1 - i : 1 - i + height, 1 - j : 1 - j + width] for i, j in outputs]
            matrix = jnp.stack(seen, axis=3).reshape(height * width * c, -1)
            y = (x.reshape(n, -1) @ matrix).reshape(n, height, width, -1)
        else:
            layout = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return y + bias[None, None, None]


class ConvNet(nn.Module):
    """x (N, H, W, C) -> (N, H, W, features): 3 x 3 convolutions in `depth` residual blocks."""

    features: int
    width: int = 64
    depth: int = 2

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        def conv(name: str) -> Conv:
            return Conv(self.width, name=name)

        h = conv("first")(x)
        for i in range(self.depth):
            inner = conv(f"block{i}_a")(jax.nn.silu(h))
            if context is not None:
                dense = nn.Dense(self.width, use_bias=False, name=f"block{i}_context")
                inner = inner + dense(context)[:, None, None, :]
            h = h + conv(f"block{i}_b")(jax.nn.silu(inner))
        return Conv(self.features, _ZERO, name="out")(jax.nn.silu(h))


def conditioner(
    rank: int, features: int, width: int, depth: int, name: str | None = None
) -> nn.Module:
    """`MLP` for vectors (rank 1), `ConvNet` for images (rank 3)."""
    return (ConvNet if rank == 3 else MLP)(features, width, depth, name=name)


def parity(shape: tuple[int, ...], flip: bool) -> np.ndarray:
    """(1, *shape) bool, neighbours different along every axis; True first unless `flip`."""
    return (np.indices(shape).sum(axis=0) % 2 == int(flip))[None]
