"""Layers that BigGAN is made of, in Flax (NHWC, float32 parameters).

Notation: W a kernel reshaped to (fan_in, out), u (out,) and v (fan_in,) its running singular
vectors, σ = vᵀ W u its largest singular value. Source: Miyato et al. 2018 (spectral norm, one
power iteration per training pass), Brock, Donahue & Simonyan 2019 (BigGAN), Zhang et al. 2019
(self-attention); details that papers leave open are those of github.com/ajbrock/BigGAN-PyTorch.

Every layer takes `train`: it decides whether the collections `spectral` (u, and σ for the
record) and `batch_stats` (moments) move. They move only when the caller also makes them
mutable. `Style.dtype` is the type of activations and products; parameters, moments, u and σ
are float32 always.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.models import resampling
from prpr.models.resampling import Resample

Array = jax.Array

INITS: dict[str, Any] = {
    "orthogonal": nn.initializers.orthogonal(),
    "normal": nn.initializers.normal(0.02),
    "xavier": nn.initializers.xavier_uniform(),
}


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of a network share.

    Attributes:
      spectral_norm: whether kernels are divided by σ.
      sn_eps: lower bound of a norm when u and v are normalised.
      bn_eps: added to a variance by every batch norm. (The original's last batch norm has 1e-5
        whatever the others have.)
      init: of kernels and tables, a key of `INITS`.
      dtype: of activations and products, "float32" or "bfloat16" ("float64" for proofs, with
        parameters of that type and `jax_enable_x64`).
      axis_name: of the devices over which batch norm's moments are taken; None for one.
      fused: whether convolutions next to a change of size are `prpr.models.resampling`'s.
    """

    spectral_norm: bool = True
    sn_eps: float = 1e-12
    bn_eps: float = 1e-5
    init: str = "orthogonal"
    dtype: str = "float32"
    axis_name: str | None = None
    fused: bool = True

    @property
    def wide(self) -> "Style":
        """The same with activations of float32 at least."""
        return self if self.dtype == "float64" else dataclasses.replace(self, dtype="float32")

    @property
    def plain(self) -> "Style":
        """The same without spectral norm."""
        return dataclasses.replace(self, spectral_norm=False)


def _unit(x: Array, eps: float) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), eps)


def _product(a: Array, b: Array) -> Array:
    """Full float32 precision: TPUs and GPUs would round the factors, and σ divides everything."""
    return jnp.matmul(a, b, precision="highest")


class SpectralKernel(nn.Module):
    """A kernel divided by its largest singular value, after one power iteration.

        v = Wu/‖Wu‖, u' = Wᵀv/‖Wᵀv‖, σ = vᵀWu';  W/σ, with u and v constants of the gradient

    (Miyato et al., eq. 12). In training u' replaces u and σ is stored beside it, as a record
    only. In evaluation the iteration is done too, and nothing is stored, as in the original.

    Attributes:
      shape: the kernel's shape, output channels last.
      table: the kernel is a table (num, features) of `Embed`, and u has a number a row, as in
        the original; otherwise u has a number an output channel.
    """

    shape: tuple[int, ...]
    style: Style = Style()
    table: bool = False

    @nn.compact
    def __call__(self, *, train: bool) -> Array:
        style = self.style
        kernel = self.param("kernel", INITS[style.init], self.shape, jnp.float32)
        if not style.spectral_norm:
            return kernel
        flat = kernel.T if self.table else kernel.reshape(-1, self.shape[-1])

        def start() -> Array:
            return _unit(jax.random.normal(self.make_rng("params"), flat.shape[1:]), style.sn_eps)

        u_var = self.variable("spectral", "u", start)
        sigma_var = self.variable("spectral", "sigma", jnp.ones, (), jnp.float32)
        frozen = jax.lax.stop_gradient(flat)
        v = _unit(_product(frozen, u_var.value), style.sn_eps)
        u = _unit(_product(v, frozen), style.sn_eps)
        sigma = _product(v, _product(flat, u))
        if train and not self.is_initializing() and self.is_mutable_collection("spectral"):
            u_var.value = u
            sigma_var.value = jax.lax.stop_gradient(sigma)
        return kernel / sigma


class Dense(nn.Module):
    """y = x W / σ(W) + b: (..., fan_in) -> (..., features)."""

    features: int
    use_bias: bool = True
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        kernel = SpectralKernel((x.shape[-1], self.features), self.style, name="w")(train=train)
        y = x.astype(self.style.dtype) @ kernel.astype(self.style.dtype)
        return _biased(self, y) if self.use_bias else y


class Conv(nn.Module):
    """width x width convolution, stride 1, same padding: (N, H, W, C) -> (N, H', W', features).

    `resample` doubles the size before it ("up") or halves it after ("down").
    """

    features: int
    width: int = 3
    resample: Resample = "none"
    use_bias: bool = True
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = (self.width, self.width, x.shape[-1], self.features)
        kernel = SpectralKernel(shape, self.style, name="w")(train=train)
        y = resampling.convolution(
            x.astype(self.style.dtype), kernel, self.resample, fused=self.style.fused
        )
        return _biased(self, y) if self.use_bias else y


def _biased(layer: Dense | Conv, y: Array) -> Array:
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,), jnp.float32)
    return y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))


class Embed(nn.Module):
    """A table (num, features), maybe spectrally normalised: (N,) int -> (N, features) float32."""

    num: int
    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, y: Array, *, train: bool) -> Array:
        table = SpectralKernel((self.num, self.features), self.style, table=True, name="w")
        return table(train=train)[y]


class BatchNorm(nn.Module):
    """Batch norm with gain and bias from outside: x (N, H, W, C), gain and bias (N, C) or (1, C).

    y = (x − mean)/√(var + eps) · gain + bias. In training the moments are those of the batch,
    over all devices of the axis `Style.axis_name` (cross-replica batch norm); otherwise the
    running ones, which keep .9 of what they were in every training pass. The variance that
    normalises is the biased one (divided by n), the one that is kept unbiased (n − 1), as in
    the published ImageNet runs of the original (torch's batch_norm; its synchronised one does
    the same, its manual one, `--mybn`, keeps the biased one).

    var = E[(x − s)²] − (E[x] − s)² with s the running mean: one pass over x, one exchange
    between devices, and no cancellation once s is near the mean. s changes nothing else.

    If the collection `moments` is mutable, the batch's mean and biased variance are put there.
    """

    style: Style = Style()
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Array, gain: Array, bias: Array, *, train: bool) -> Array:
        channels = x.shape[-1]
        mean_var = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        wide = x.astype(self.style.wide.dtype)
        if train:
            mean, var, n = self._moments(wide, mean_var.value)
            if not self.is_initializing() and self.is_mutable_collection("moments"):
                self.put_variable("moments", "mean", mean)
                self.put_variable("moments", "var", var)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                kept, unbiased = self.momentum, var * (n / max(n - 1, 1))
                mean_var.value = kept * mean_var.value + (1 - kept) * mean
                var_var.value = kept * var_var.value + (1 - kept) * unbiased
        else:
            mean, var = mean_var.value, var_var.value
        gain = gain * jax.lax.rsqrt(var + self.style.bn_eps)[None, :]
        y = (wide - mean[None, None, None, :]) * gain[:, None, None, :] + bias[:, None, None, :]
        return y.astype(x.dtype)

    def _moments(self, x: Array, shift: Array) -> tuple[Array, Array, int]:
        """Mean and biased variance (C,) of the batch, and how many values each is over."""
        shift = jax.lax.stop_gradient(shift)
        apart = x - shift[None, None, None, :]
        n = x.size // x.shape[-1]
        first, second = apart.mean((0, 1, 2)), jnp.square(apart).mean((0, 1, 2))
        axis = self.style.axis_name
        if axis is not None and not self.is_initializing():
            first, second = jax.lax.pmean((first, second), axis)
            n *= jax.lax.axis_size(axis)
        return first + shift, jnp.maximum(second - first * first, 0.0), n


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain, 1 + g(y), and bias, b(y), depend on a condition y.

    g and b are linear maps of y (N, D), or tables with a row a class of y (N,) int; tables have
    no spectral norm, as in the original.

    Attributes:
      classes: rows of the tables; 0 for linear maps.
    """

    classes: int = 0
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        width, style = x.shape[-1], self.style.wide

        def of_condition(name: str) -> Array:
            if self.classes:
                return Embed(self.classes, width, style.plain, name=name)(y, train=train)
            return Dense(width, use_bias=False, style=style, name=name)(y, train=train)

        norm = BatchNorm(self.style, name="norm")
        return norm(x, 1.0 + of_condition("gain"), of_condition("bias"), train=train)


class PlainBatchNorm(nn.Module):
    """Batch norm with its own gain and bias."""

    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = (x.shape[-1],)
        gain = self.param("gain", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        norm = BatchNorm(self.style, name="norm")
        return norm(x, gain[None, :], bias[None, :], train=train)


class Attention(nn.Module):
    """SAGAN's non-local block as in BigGAN: x + γ · o(softmax(θ φᵀ) g), φ and g pooled by 2.

    The softmax is in float32.
    """

    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        n, h, w, c = x.shape

        def conv(features: int, name: str):
            return Conv(features, 1, use_bias=False, style=self.style, name=name)

        theta = conv(c // 8, "theta")(x, train=train).reshape(n, h * w, c // 8)
        phi = resampling.max_pool(conv(c // 8, "phi")(x, train=train))
        g = resampling.max_pool(conv(c // 2, "g")(x, train=train))
        phi = phi.reshape(n, h * w // 4, c // 8)
        g = g.reshape(n, h * w // 4, c // 2)
        scores = jnp.einsum(
            "nqc,nkc->nqk", theta, phi, preferred_element_type=self.style.wide.dtype
        )
        attention = jax.nn.softmax(scores, axis=-1).astype(g.dtype)
        out = conv(c, "o")((attention @ g).reshape(n, h, w, c // 2), train=train)
        gamma = self.param("gamma", nn.initializers.zeros, (), jnp.float32)
        return x + gamma.astype(x.dtype) * out
