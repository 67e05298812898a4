"""The Inception-v3 of FID and of the Inception Score, of 2015-12-05, in Flax.

Notation: x (N, 299, 299, 3), normalised; pool3 (N, 2048) the mean over the last feature map;
logits (N, 1008) = pool3 · W, WITHOUT the bias: so the Inception Score is computed by its first
implementation and by every one that means to agree with it (torch-fidelity's "logits_unbiased",
dgm-eval, StyleGAN's no_output_bias).

It differs from torchvision's Inception-v3: average pools leave the padding out of the mean, the
last block pools by maximum, and there are 1008 outputs. Parameters have the names of the
published state dict. Source: Szegedy et al. 2015 (1512.00567); which details the 2015-12-05 graph
has: github.com/mseitzer/pytorch-fid, github.com/toshas/torch-fidelity.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.encoders.compiled import Spec, Variables

SIZE = 299
_HIGHEST = jax.lax.Precision.HIGHEST
Sides = tuple[int, int]


class _Conv(nn.Module):
    """Convolution without bias, batch norm with running moments, relu."""

    channels: int
    kernel: Sides = (1, 1)
    strides: int = 1
    pad: Sides = (0, 0)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(
            self.channels,
            self.kernel,
            (self.strides, self.strides),
            [(side, side) for side in self.pad],
            use_bias=False,
            precision=_HIGHEST,
            name="conv",
        )(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x)
        return nn.relu(x)


def _max(x: jax.Array, strides: int = 2, pad: int = 0) -> jax.Array:
    sides: Any = [(pad, pad)] * 2
    return nn.max_pool(x, (3, 3), (strides, strides), sides)


def _mean(x: jax.Array) -> jax.Array:
    sides: Any = [(1, 1)] * 2
    return nn.avg_pool(x, (3, 3), padding=sides, count_include_pad=False)


class _Block(nn.Module):
    """What the blocks share: `conv` makes a named convolution of a width to be divided."""

    divide: int

    def conv(
        self, name: str, channels: int, kernel: Sides = (1, 1), strides: int = 1, pad: bool = True
    ) -> _Conv:
        """Padded to keep the size, unless `pad` is off."""
        around = (kernel[0] // 2, kernel[1] // 2) if pad else (0, 0)
        return _Conv(channels // self.divide, kernel, strides, around, name=name)

    def chain(self, x: jax.Array, *layers: tuple) -> jax.Array:
        """Named convolutions, one after another; each is (name, channels, ...) as `conv` takes."""
        for layer in layers:
            x = self.conv(*layer)(x)
        return x


class _A(_Block):
    """35 × 35: branches of 1 × 1, 5 × 5, twice 3 × 3, and a mean."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = self.chain(x, ("branch1x1", 64))
        five = self.chain(x, ("branch5x5_1", 48), ("branch5x5_2", 64, (5, 5)))
        three = self.chain(
            x,
            ("branch3x3dbl_1", 64),
            ("branch3x3dbl_2", 96, (3, 3)),
            ("branch3x3dbl_3", 96, (3, 3)),
        )
        pool = self.chain(_mean(x), ("branch_pool", self.pooled))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class _B(_Block):
    """35 × 35 -> 17 × 17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = self.chain(x, ("branch3x3", 384, (3, 3), 2, False))
        double = self.chain(
            x,
            ("branch3x3dbl_1", 64),
            ("branch3x3dbl_2", 96, (3, 3)),
            ("branch3x3dbl_3", 96, (3, 3), 2, False),
        )
        return jnp.concatenate([three, double, _max(x)], axis=-1)


class _C(_Block):
    """17 × 17: 7 × 7 in two factors, once and twice."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.inner
        one = self.chain(x, ("branch1x1", 192))
        seven = self.chain(
            x,
            ("branch7x7_1", c),
            ("branch7x7_2", c, (1, 7)),
            ("branch7x7_3", 192, (7, 1)),
        )
        double = self.chain(
            x,
            ("branch7x7dbl_1", c),
            ("branch7x7dbl_2", c, (7, 1)),
            ("branch7x7dbl_3", c, (1, 7)),
            ("branch7x7dbl_4", c, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        )
        pool = self.chain(_mean(x), ("branch_pool", 192))
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class _D(_Block):
    """17 × 17 -> 8 × 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = self.chain(x, ("branch3x3_1", 192), ("branch3x3_2", 320, (3, 3), 2, False))
        seven = self.chain(
            x,
            ("branch7x7x3_1", 192),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, (3, 3), 2, False),
        )
        return jnp.concatenate([three, seven, _max(x)], axis=-1)


class _E(_Block):
    """8 × 8; `pool` is the mean in the first of the two and the maximum in the last."""

    maximum: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = self.chain(x, ("branch1x1", 320))
        three = self.chain(x, ("branch3x3_1", 384))
        double = self.chain(x, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, (3, 3)))
        pool = _max(x, strides=1, pad=1) if self.maximum else _mean(x)
        parts = [
            one,
            self.chain(three, ("branch3x3_2a", 384, (1, 3))),
            self.chain(three, ("branch3x3_2b", 384, (3, 1))),
            self.chain(double, ("branch3x3dbl_3a", 384, (1, 3))),
            self.chain(double, ("branch3x3dbl_3b", 384, (3, 1))),
            self.chain(pool, ("branch_pool", 192)),
        ]
        return jnp.concatenate(parts, axis=-1)


class Inception(nn.Module):
    """normalised images -> (pool3, logits without bias).

    Attributes:
      divide: all widths are divided by it, a divisor of 16; 1 for the published network.
    """

    divide: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        d = self.divide
        x = _Conv(32 // d, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        x = _Conv(32 // d, (3, 3), name="Conv2d_2a_3x3")(x)
        x = _Conv(64 // d, (3, 3), pad=(1, 1), name="Conv2d_2b_3x3")(x)
        x = _max(x)
        x = _Conv(80 // d, name="Conv2d_3b_1x1")(x)
        x = _Conv(192 // d, (3, 3), name="Conv2d_4a_3x3")(x)
        x = _max(x)
        for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = _A(d, pooled, name=f"Mixed_{name}")(x)
        x = _B(d, name="Mixed_6a")(x)
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = _C(d, inner, name=f"Mixed_{name}")(x)
        x = _D(d, name="Mixed_7a")(x)
        x = _E(d, maximum=False, name="Mixed_7b")(x)
        x = _E(d, maximum=True, name="Mixed_7c")(x)
        pooled = x.mean(axis=(1, 2))
        logits = nn.Dense(1008 // d, use_bias=False, precision=_HIGHEST, name="fc")(pooled)
        return pooled, logits


def normalise(x: jax.Array, resize: str) -> jax.Array:
    """Images in [0, 255] as the network takes them, by the convention that `resize` belongs to.

    x/127.5 − 1 for legacy_pytorch, as pytorch-fid does; (x − 128)/128 for all others, which is
    what the published graph, torch-fidelity, clean-fid and StyleGAN do.
    """
    return x / 127.5 - 1 if resize == "legacy_pytorch" else (x - 128) / 128


def spec(name: str, resize: str, module: Inception | None = None) -> Spec:
    """The network for `compiled.build`; a narrower `module` is for tests."""
    del name
    network = module or Inception()

    def apply(variables: Variables, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        out: Any = network.apply(variables, normalise(x, resize))
        pooled, logits = out
        return pooled, jax.nn.softmax(logits)

    return Spec(network, SIZE, apply)
