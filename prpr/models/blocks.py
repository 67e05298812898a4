"""BigGAN's four residual blocks, all called (x, [condition,] train).

`train` is positional: rematerialisation must know it as a constant.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.models import layers, resampling
from prpr.models.layers import Style
from prpr.models.resampling import Resample

Array = jax.Array
BOTTLENECK = 4  # BigGAN-deep's inner channels are a fourth of its outer ones


def _conv(block: "_Block", features: int, width: int, name: str, resample: Resample = "none"):
    return layers.Conv(features, width, resample, style=block.style, name=name)


class _Block(nn.Module):
    """What all blocks share.

    Attributes:
      features: output channels.
      resampled: whether the size is doubled (generator) or halved (critic).
      style: of the layers.
    """

    features: int
    resampled: bool
    style: Style = Style()


class GeneratorBlock(_Block):
    """Norm, relu, (up), conv, norm, relu, conv, added to a (projected) shortcut.

    `classes`: see `layers.ConditionalBatchNorm`.
    """

    classes: int = 0

    @nn.compact
    def __call__(self, x: Array, y: Array, train: bool) -> Array:
        def normed(h: Array, name: str) -> Array:
            norm = layers.ConditionalBatchNorm(self.classes, self.style, name=name)
            return jax.nn.relu(norm(h, y, train=train))

        up: Resample = "up" if self.resampled else "none"
        h = _conv(self, self.features, 3, "conv1", up)(normed(x, "norm1"), train=train)
        h = _conv(self, self.features, 3, "conv2")(normed(h, "norm2"), train=train)
        if self.resampled or x.shape[-1] != self.features:
            x = _conv(self, self.features, 1, "shortcut", up)(x, train=train)
        return h + x


class DeepGeneratorBlock(_Block):
    """A bottleneck 1-3-3-1, a norm and a relu before each; (up) before the first 3 x 3.

    The shortcut keeps the first `features` channels.
    """

    classes: int = 0

    @nn.compact
    def __call__(self, x: Array, y: Array, train: bool) -> Array:
        def normed(h: Array, name: str) -> Array:
            norm = layers.ConditionalBatchNorm(self.classes, self.style, name=name)
            return jax.nn.relu(norm(h, y, train=train))

        hidden = x.shape[-1] // BOTTLENECK
        up: Resample = "up" if self.resampled else "none"
        h = _conv(self, hidden, 1, "conv1")(normed(x, "norm1"), train=train)
        h = _conv(self, hidden, 3, "conv2", up)(normed(h, "norm2"), train=train)
        h = _conv(self, hidden, 3, "conv3")(normed(h, "norm3"), train=train)
        h = _conv(self, self.features, 1, "conv4")(normed(h, "norm4"), train=train)
        x = x[..., : self.features]
        return h + (resampling.upsample(x) if self.resampled else x)


class CriticBlock(_Block):
    """(Relu), conv, relu, conv, (down), added to a (projected, pooled) shortcut.

    `first`: the block that sees the image, without the first relu.
    """

    first: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        down: Resample = "down" if self.resampled else "none"
        h = x if self.first else jax.nn.relu(x)
        h = _conv(self, self.features, 3, "conv1")(h, train=train)
        h = _conv(self, self.features, 3, "conv2", down)(jax.nn.relu(h), train=train)
        if self.resampled or x.shape[-1] != self.features:
            x = _conv(self, self.features, 1, "shortcut", down)(x, train=train)
        return h + x


class DeepCriticBlock(_Block):
    """A bottleneck 1-3-3-1, a relu before each, (down) before the last.

    The shortcut is pooled, and where channels are missing a 1 x 1 convolution of it adds them.
    """

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        hidden = self.features // BOTTLENECK
        h = _conv(self, hidden, 1, "conv1")(jax.nn.relu(x), train=train)
        h = _conv(self, hidden, 3, "conv2")(jax.nn.relu(h), train=train)
        h = jax.nn.relu(_conv(self, hidden, 3, "conv3")(jax.nn.relu(h), train=train))
        if self.resampled:
            h, x = resampling.downsample(h), resampling.downsample(x)
        h = _conv(self, self.features, 1, "conv4")(h, train=train)
        missing = self.features - x.shape[-1]
        if missing:
            more = _conv(self, missing, 1, "shortcut")(x, train=train)
            x = jnp.concatenate([x, more], axis=-1)
        return h + x
