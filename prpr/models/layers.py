"""Layers that BigGAN is made of, in Flax (NHWC, float32 parameters).

Notation: W a kernel reshaped to (fan_in, out), u (out,) and v (fan_in,) its running singular
vectors, σ = vᵀ W u its largest singular value. Source: Miyato et al. 2018 (spectral norm, one
power iteration per training pass), Brock, Donahue & Simonyan 2019 (BigGAN), Zhang et al. 2019
(self-attention).

Every layer takes `train`: it decides whether the collections `spectral` (u) and
`batch_stats` (moments) move. They move only when the caller also makes them mutable.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

orthogonal = nn.initializers.orthogonal()


def _unit(x: Array, eps: float = 1e-12) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), eps)


class SpectralKernel(nn.Module):
    """A kernel divided by its largest singular value, followed by power iteration.

    Attributes:
      shape: the kernel's shape, output channels last.
      spectral_norm: False gives the plain kernel.
    """

    shape: tuple[int, ...]
    spectral_norm: bool = True
    kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(self, *, train: bool) -> Array:
        kernel = self.param("kernel", self.kernel_init, self.shape, jnp.float32)
        if not self.spectral_norm:
            return kernel
        u_var = self.variable(
            "spectral",
            "u",
            lambda: _unit(jax.random.normal(self.make_rng("params"), self.shape[-1:])),
        )
        # u and v are constants of the gradient, the kernel inside σ is not (Miyato et al., eq. 12).
        frozen = jax.lax.stop_gradient(kernel).reshape(-1, self.shape[-1])
        v = _unit(frozen @ u_var.value)
        u = _unit(v @ frozen)
        if train and not self.is_initializing() and self.is_mutable_collection("spectral"):
            u_var.value = u
        sigma = v @ (kernel.reshape(-1, self.shape[-1]) @ u)
        return kernel / sigma


class Dense(nn.Module):
    """y = x W / σ(W) + b: (..., fan_in) -> (..., features)."""

    features: int
    use_bias: bool = True
    spectral_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = (x.shape[-1], self.features)
        y = x @ SpectralKernel(shape, self.spectral_norm, name="w")(train=train)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + jnp.expand_dims(bias, tuple(range(y.ndim - 1)))
        return y


class Conv(nn.Module):
    """width x width convolution, stride 1, same padding: (N, H, W, C) -> (N, H, W, features)."""

    features: int
    width: int = 3
    use_bias: bool = True
    spectral_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = (self.width, self.width, x.shape[-1], self.features)
        kernel = SpectralKernel(shape, self.spectral_norm, name="w")(train=train)
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias[None, None, None, :]
        return y


class Embed(nn.Module):
    """A table (num, features), maybe spectrally normalised: (N,) int -> (N, features)."""

    num: int
    features: int
    spectral_norm: bool = False

    @nn.compact
    def __call__(self, y: Array, *, train: bool) -> Array:
        table = SpectralKernel((self.num, self.features), self.spectral_norm, name="w")(train=train)
        return table[y]


class BatchNorm(nn.Module):
    """Batch norm with gain and bias from outside: x (N, H, W, C), gain and bias (N, C) or (C,).

    y = (x − mean)/√(var + eps) · gain + bias. In training the moments are those of the batch;
    otherwise the running ones. `axis_name` names the mapped device axis over which the moments
    are averaged (cross-replica batch norm).
    """

    momentum: float = 0.9
    eps: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, gain: Array, bias: Array, *, train: bool) -> Array:
        channels = x.shape[-1]
        mean_var = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        if train:
            mean = x.mean((0, 1, 2))
            square = (x * x).mean((0, 1, 2))
            if self.axis_name is not None and not self.is_initializing():
                mean, square = jax.lax.pmean((mean, square), self.axis_name)
            var = jnp.maximum(square - mean * mean, 0.0)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                mean_var.value = self.momentum * mean_var.value + (1 - self.momentum) * mean
                var_var.value = self.momentum * var_var.value + (1 - self.momentum) * var
        else:
            mean, var = mean_var.value, var_var.value
        scale = jax.lax.rsqrt(var + self.eps)
        gain = gain[None, :] if gain.ndim == 1 else gain
        bias = bias[None, :] if bias.ndim == 1 else bias
        gain = gain * scale[None, :]
        bias = bias - mean[None, :] * gain
        return x * gain[:, None, None, :] + bias[:, None, None, :]


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain, 1 + W_g y, and bias, W_b y, are linear in a condition y (N, D)."""

    spectral_norm: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        def linear(name: str) -> Array:
            layer = Dense(x.shape[-1], use_bias=False, spectral_norm=self.spectral_norm, name=name)
            return layer(y, train=train)

        norm = BatchNorm(axis_name=self.axis_name, name="norm")
        return norm(x, 1.0 + linear("gain"), linear("bias"), train=train)


class PlainBatchNorm(nn.Module):
    """Batch norm with its own gain and bias."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = (x.shape[-1],)
        gain = self.param("gain", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return BatchNorm(axis_name=self.axis_name, name="norm")(x, gain, bias, train=train)


class Attention(nn.Module):
    """SAGAN's non-local block as in BigGAN: x + γ · o(softmax(θ φᵀ) g), φ and g pooled by 2."""

    spectral_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        n, h, w, c = x.shape

        def conv(features: int, name: str):
            return Conv(features, 1, use_bias=False, spectral_norm=self.spectral_norm, name=name)

        theta = conv(c // 8, "theta")(x, train=train).reshape(n, h * w, c // 8)
        phi = nn.max_pool(conv(c // 8, "phi")(x, train=train), (2, 2), (2, 2))
        g = nn.max_pool(conv(c // 2, "g")(x, train=train), (2, 2), (2, 2))
        phi = phi.reshape(n, h * w // 4, c // 8)
        g = g.reshape(n, h * w // 4, c // 2)
        attention = jax.nn.softmax(theta @ phi.transpose(0, 2, 1), axis=-1)
        out = conv(c, "o")((attention @ g).reshape(n, h, w, c // 2), train=train)
        gamma = self.param("gamma", nn.initializers.zeros, (), jnp.float32)
        return x + gamma * out


def upsample(x: Array) -> Array:
    """Nearest-neighbour doubling: (N, H, W, C) -> (N, 2H, 2W, C)."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Mean over 2 x 2 cells: (N, H, W, C) -> (N, H/2, W/2, C)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
