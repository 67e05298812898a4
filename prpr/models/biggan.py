"""BigGAN (Brock, Donahue & Simonyan 2019) by a table over resolutions.

Notation: z (N, dim_z) latent, y (N,) int class, images (N, R, R, C) in [−1, 1], a critic's
output (N,). Channel multipliers count in units of `ch`.

The generator splits z into one chunk for its first layer and one for each block
("hierarchical z"); each block's batch norms are conditioned on the concatenation of a class
embedding, shared by all blocks, with that block's chunk. The critic ("discriminator" in the
source) adds the inner product of its features with a class embedding (projection,
Miyato & Koyama 2018). Both carry spectral norm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.errors import ConfigError, unknown_name
from prpr.models import layers

Array = jax.Array


class Architecture(NamedTuple):
    """One row of the table: channel multipliers of every block, and where it changes size.

    `generator_in[i]` -> `generator_out[i]`, each block doubling the side when `upsample[i]`,
    from `bottom_width`. `critic_out[i]` follows `critic_out[i-1]` (the first follows the
    image), halving when `downsample[i]`.
    """

    bottom_width: int
    generator_in: tuple[int, ...]
    generator_out: tuple[int, ...]
    upsample: tuple[bool, ...]
    critic_out: tuple[int, ...]
    downsample: tuple[bool, ...]


ARCHITECTURES: dict[int, Architecture] = {
    8: Architecture(4, (1,), (1,), (True,), (1, 1), (True, False)),
    32: Architecture(
        4,
        (4, 4, 4),
        (4, 4, 4),
        (True, True, True),
        (4, 4, 4, 4),
        (True, True, False, False),
    ),
}


def architecture(resolution: int) -> Architecture:
    """The table's row; raises ConfigError for a resolution it does not have."""
    if resolution not in ARCHITECTURES:
        raise unknown_name("BigGAN resolution", resolution, [str(r) for r in ARCHITECTURES])
    return ARCHITECTURES[resolution]


def _blocks(arch: Architecture, resolution: int) -> tuple[list[tuple[int, int]], ...]:
    """(side, width in units of ch) that every block puts out: the generator's, the critic's."""
    generator, side = [], arch.bottom_width
    for up, width in zip(arch.upsample, arch.generator_out, strict=True):
        side *= 2 if up else 1
        generator.append((side, width))
    critic, side = [], resolution
    for down, width in zip(arch.downsample, arch.critic_out, strict=True):
        side //= 2 if down else 1
        critic.append((side, width))
    return generator, critic


def check(shape: tuple[int, ...], dim_z: int, attention_at: Sequence[int] = ()) -> None:
    """Raises ConfigError if no BigGAN of the table makes images of this shape from this z."""
    side, width, _ = shape
    if side != width:
        raise ConfigError(f"BigGAN makes square images, and the data's are {side} x {width}.")
    arch = architecture(side)
    slots = len(arch.generator_in) + 1
    if dim_z % slots:
        raise ConfigError(
            f"config.model.dim_z = {dim_z}: must be a multiple of {slots} at resolution {side}, "
            "one chunk for the first layer and one for each block."
        )
    sides = sorted({at for blocks in _blocks(arch, side) for at, _ in blocks})
    wrong = [a for a in attention_at if a not in sides]
    if wrong:
        raise ConfigError(f"config.model.attention_at = {wrong[0]}: must be among {sides}.")


def check_width(
    resolution: int, attention_at: Sequence[int], generator_ch: int, critic_ch: int
) -> None:
    """Raises ConfigError if an attention would have no channels: its queries have an eighth."""
    blocks = _blocks(architecture(resolution), resolution)
    widths = {"generator_ch": generator_ch, "critic_ch": critic_ch}
    for (knob, ch), own in zip(widths.items(), blocks, strict=True):
        if any(side in attention_at and width * ch < 8 for side, width in own):
            raise ConfigError(
                f"config.model.{knob} = {ch}: attention needs at least 8 channels where it is "
                "applied; raise it, or empty config.model.attention_at."
            )


class GeneratorBlock(nn.Module):
    """Residual block: norm, relu, (up), conv, norm, relu, conv, added to a (projected) shortcut."""

    features: int
    up: bool
    spectral_norm: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        def norm(name: str):
            return layers.ConditionalBatchNorm(self.spectral_norm, self.axis_name, name=name)

        def conv(width: int, name: str):
            return layers.Conv(self.features, width, True, self.spectral_norm, name=name)

        h = jax.nn.relu(norm("norm1")(x, y, train=train))
        if self.up:
            h, x = layers.upsample(h), layers.upsample(x)
        h = conv(3, "conv1")(h, train=train)
        h = jax.nn.relu(norm("norm2")(h, y, train=train))
        h = conv(3, "conv2")(h, train=train)
        if self.up or x.shape[-1] != self.features:
            x = conv(1, "shortcut")(x, train=train)
        return h + x


class Generator(nn.Module):
    """z (N, dim_z), y (N,) -> images (N, resolution, resolution, image_channels) in [−1, 1]."""

    resolution: int
    num_classes: int
    image_channels: int = 3
    ch: int = 64
    dim_z: int = 128
    shared_dim: int = 128
    attention_at: tuple[int, ...] = ()
    spectral_norm: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, z: Array, y: Array, *, train: bool) -> Array:
        arch = architecture(self.resolution)
        chunks = jnp.split(z, len(arch.generator_in) + 1, axis=-1)
        shared = layers.Embed(self.num_classes, self.shared_dim, name="shared")(y, train=train)

        width, side = arch.generator_in[0] * self.ch, arch.bottom_width
        first = layers.Dense(width * side * side, spectral_norm=self.spectral_norm, name="linear")
        h = first(chunks[0], train=train).reshape(-1, side, side, width)
        for i, (out, up) in enumerate(zip(arch.generator_out, arch.upsample, strict=True)):
            condition = jnp.concatenate([shared, chunks[i + 1]], axis=-1)
            block = GeneratorBlock(
                out * self.ch, up, self.spectral_norm, self.axis_name, name=f"block{i}"
            )
            h = block(h, condition, train=train)
            if h.shape[1] in self.attention_at:
                h = layers.Attention(self.spectral_norm, name=f"attention{i}")(h, train=train)
        h = jax.nn.relu(layers.PlainBatchNorm(self.axis_name, name="norm_out")(h, train=train))
        last = layers.Conv(self.image_channels, 3, True, self.spectral_norm, name="conv_out")
        return jnp.tanh(last(h, train=train))


class CriticBlock(nn.Module):
    """Residual block: (relu), conv, relu, conv, (down), added to a (projected, pooled) shortcut."""

    features: int
    down: bool
    first: bool
    spectral_norm: bool

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        def conv(width: int, name: str):
            return layers.Conv(self.features, width, True, self.spectral_norm, name=name)

        h = x if self.first else jax.nn.relu(x)
        h = conv(3, "conv1")(h, train=train)
        h = conv(3, "conv2")(jax.nn.relu(h), train=train)
        if self.down:
            h = layers.downsample(h)
        # The first block pools before its 1x1 shortcut, the others after, as in the source.
        if self.first:
            x = layers.downsample(x) if self.down else x
            x = conv(1, "shortcut")(x, train=train)
        elif self.down or x.shape[-1] != self.features:
            x = conv(1, "shortcut")(x, train=train)
            x = layers.downsample(x) if self.down else x
        return h + x


class Critic(nn.Module):
    """images (N, R, R, C), y (N,) -> (N,): a log-ratio up to what `prpr.ratio` makes of it."""

    resolution: int
    num_classes: int
    ch: int = 64
    attention_at: tuple[int, ...] = ()
    spectral_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        arch = architecture(self.resolution)
        h = x
        for i, (out, down) in enumerate(zip(arch.critic_out, arch.downsample, strict=True)):
            block = CriticBlock(out * self.ch, down, i == 0, self.spectral_norm, name=f"block{i}")
            h = block(h, train=train)
            if h.shape[1] in self.attention_at:
                h = layers.Attention(self.spectral_norm, name=f"attention{i}")(h, train=train)
        h = jax.nn.relu(h).sum((1, 2))
        out = layers.Dense(1, spectral_norm=self.spectral_norm, name="linear")(h, train=train)[:, 0]
        embed = layers.Embed(self.num_classes, h.shape[-1], self.spectral_norm, name="embed")
        return out + (embed(y, train=train) * h).sum(-1)
