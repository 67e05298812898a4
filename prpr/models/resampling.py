"""Convolutions next to a change of size, by exact algebra on fewer products.

Notation: x (N, H, W, C) activations, w (k, k, C, F) a kernel (k = 1 or 3), * a convolution of
stride 1 that keeps the size (zero padding), ↑ nearest-neighbour doubling, ↓ the mean over 2 x 2
cells. Per axis w = (w₀, w₁, w₂), Σ = w₀ + w₁ + w₂, and what lies outside x is 0.

Per axis two outputs (↑) or one mean of two outputs (↓) take three products instead of six:

    (w * ↑x)[2i]     = Σ x[i] + w₀ x[i−1] − w₀ x[i]
    (w * ↑x)[2i+1]   = Σ x[i] + w₂ x[i+1] − w₂ x[i]
    ↓(w * x)[i]      = ½ ( Σ (e[i] + o[i]) + w₀ (o[i−1] − o[i]) + w₂ (e[i+1] − e[i]) ),
                       e[i] = x[2i], o[i] = x[2i+1]

On two axes that is 9 products instead of 36 for each cell of 2 x 2 pixels, all in one matrix
product of (w₀, Σ, w₂) ⊗ (w₀, Σ, w₂): (C, 9F) before the sums (↑), or (9C, F) after them (↓). Each
is the other's transpose, and so are their gradients. Where k = 1 the convolution commutes with
↑ and ↓ and is done at the smaller size.

Kernels are summed before they are cast to x's type. In bfloat16 the sums round once more than
the plain composition does: 1 to 3 times its error (tests/test_resampling.py).
"""

from typing import Literal

import jax
import jax.numpy as jnp

Array = jax.Array
Resample = Literal["none", "up", "down"]


def upsample(x: Array) -> Array:
    """Nearest-neighbour doubling: (N, H, W, C) -> (N, 2H, 2W, C)."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def _cells(x: Array) -> Array:
    """(N, H, W, C) -> (N, H/2, 2, W/2, 2, C): the 2 x 2 cells."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def downsample(x: Array) -> Array:
    """Mean over 2 x 2 cells: (N, H, W, C) -> (N, H/2, W/2, C)."""
    return _cells(x).mean((2, 4))


def max_pool(x: Array) -> Array:
    """Maximum over 2 x 2 cells: (N, H, W, C) -> (N, H/2, W/2, C)."""
    return _cells(x).max((2, 4))


def _plain(x: Array, kernel: Array) -> Array:
    kernel = kernel.astype(x.dtype)
    if kernel.shape[0] == 1:
        return x @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _three(w: Array) -> Array:
    """(3, ...) -> (3, ...): (w₀, Σ, w₂)."""
    return jnp.stack([w[0], w.sum(0), w[2]])


def _nine(kernel: Array) -> Array:
    """(3, 3, C, F) -> (3, 3, C, F): the same on rows and columns."""
    return _three(_three(kernel).swapaxes(0, 1)).swapaxes(0, 1)


def _shift(x: Array, axis: int, by: int) -> Array:
    """x[i − by] along the axis, 0 from outside."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (by, -by, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), padding)


def _up_sums(first: Array, whole: Array, last: Array, axis: int) -> tuple[Array, Array]:
    """From w₀x, Σx and w₂x the even and the odd outputs along the axis."""
    even = whole + _shift(first, axis, 1) - first
    return even, whole + _shift(last, axis, -1) - last


def _down_sums(even: Array, odd: Array, axis: int) -> tuple[Array, Array, Array]:
    """What w₀, Σ and w₂ multiply."""
    return _shift(odd, axis, 1) - odd, even + odd, _shift(even, axis, -1) - even


def _up(x: Array, kernel: Array) -> Array:
    n, h, w, c = x.shape
    features = kernel.shape[-1]
    taps = _nine(kernel).transpose(2, 0, 1, 3).reshape(c, 9 * features)
    products = (x @ taps.astype(x.dtype)).reshape(n, h, w, 3, 3, features)
    rows = _up_sums(*(products[:, :, :, i] for i in range(3)), axis=1)
    cells = [_up_sums(*(row[:, :, :, i] for i in range(3)), axis=2) for row in rows]
    columns = [jnp.stack(pair, axis=3) for pair in cells]
    return jnp.stack(columns, axis=2).reshape(n, 2 * h, 2 * w, features)


def _down(x: Array, kernel: Array) -> Array:
    c, features = kernel.shape[2:]
    cells = _cells(x)
    rows = _down_sums(cells[:, :, 0], cells[:, :, 1], axis=1)
    sums = [s for row in rows for s in _down_sums(row[:, :, :, 0], row[:, :, :, 1], axis=2)]
    taps = 0.25 * _nine(kernel).reshape(9 * c, features)
    return jnp.concatenate(sums, axis=-1) @ taps.astype(x.dtype)


def convolution(
    x: Array, kernel: Array, resample: Resample = "none", *, fused: bool = True
) -> Array:
    """w * x, w * ↑x ("up") or ↓(w * x) ("down").

    Args:
      x: (N, H, W, C), H and W even for "down".
      kernel: (k, k, C, F), k = 1 or 3.
      resample: what is done before or after the convolution.
      fused: False composes the two operations instead, for comparison.

    Returns:
      (N, H', W', F) of x's type.
    """
    if resample == "none":
        return _plain(x, kernel)
    if not fused:
        up = resample == "up"
        return _plain(upsample(x), kernel) if up else downsample(_plain(x, kernel))
    if kernel.shape[0] == 1:
        up = resample == "up"
        return upsample(_plain(x, kernel)) if up else _plain(downsample(x), kernel)
    return _up(x, kernel) if resample == "up" else _down(x, kernel)
