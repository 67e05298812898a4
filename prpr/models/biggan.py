"""BigGAN and BigGAN-deep (Brock, Donahue & Simonyan 2019), by the table of `architecture`.

Notation: z (N, dim_z) latent, y (N,) int class, images (N, R, R, C) in [−1, 1], a critic's
output (N,). Channel multipliers count in units of `ch`.

BigGAN splits z into one chunk for its first layer and one for each block ("hierarchical z");
each block's batch norms are conditioned on the concatenation of a class embedding, shared by
all blocks, with that block's chunk. BigGAN-deep gives the concatenation of the class embedding
with the whole z to its first layer and to every batch norm. The critic ("discriminator" in the
source) adds the inner product of its features with a class embedding (projection, Miyato &
Koyama 2018). Both carry spectral norm. Outputs are float32 whatever `Style.dtype` is.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.models import architecture, blocks, layers
from prpr.models.dial import Dial, heard
from prpr.models.layers import Style

Array = jax.Array


def _block(kind: type[nn.Module], remat: bool, train_at: int) -> type[nn.Module]:
    """The kind of block, recomputed in the backward pass if asked; `train_at`: where `train` is."""
    return nn.remat(kind, static_argnums=(train_at,)) if remat else kind


class Generator(nn.Module):
    """z (N, dim_z), y (N,) -> images (N, resolution, resolution, image_channels) in [−1, 1].

    Attributes:
      resolution, num_classes, image_channels, ch, dim_z, shared_dim: sizes.
      attention_at: sides after whose last block attention follows.
      deep, depth: BigGAN-deep, and its blocks a stage.
      hierarchical: whether blocks see z; otherwise only the first layer does (BigGAN only).
      shared_embedding: False gives every batch norm its own tables of gain and bias by class,
        and only where `hierarchical` is False.
      output_ch: channels of the last convolution, the first of which are the image; 0 for
        `image_channels`. (BigGAN-deep on TensorFlow Hub makes `ch`.)
      remat: recompute blocks in the backward pass.
      dial: the range of log λ, where λ is an input (y is then that of `prpr.models.dial`): it is
        added to the class embedding.
    """

    resolution: int
    num_classes: int
    image_channels: int = 3
    ch: int = 64
    dim_z: int = 128
    shared_dim: int = 128
    attention_at: tuple[int, ...] = ()
    deep: bool = False
    depth: int = 1
    hierarchical: bool = True
    shared_embedding: bool = True
    output_ch: int = 0
    remat: bool = False
    style: Style = Style()
    dial: tuple[float, float] | None = None

    @nn.compact
    def __call__(self, z: Array, y: Array, *, train: bool) -> Array:
        plan = architecture.generator_blocks(self.resolution, self.depth if self.deep else 1)
        first, conditions = self._conditions(z, y, len(plan), train)
        width = architecture.architecture(self.resolution).generator_in[0] * self.ch
        side, style = architecture.BOTTOM, self.style
        linear = layers.Dense(width * side * side, style=style, name="linear")
        h = linear(first, train=train).reshape(-1, side, side, width)
        kind = blocks.DeepGeneratorBlock if self.deep else blocks.GeneratorBlock
        make = _block(kind, self.remat, 3)
        classes = 0 if self.shared_embedding else self.num_classes
        for i, (block, condition) in enumerate(zip(plan, conditions, strict=True)):
            features = block.features * self.ch
            h = make(features, block.resampled, style, classes, name=f"block{i}")(
                h, condition, train
            )
            if block.last and block.side in self.attention_at:
                h = layers.Attention(style, name=f"attention{i}")(h, train=train)
        h = jax.nn.relu(layers.PlainBatchNorm(style, name="norm_out")(h, train=train))
        last = layers.Conv(self.output_ch or self.image_channels, style=style, name="conv_out")
        h = last(h, train=train)[..., : self.image_channels]
        return jnp.tanh(h.astype(self.style.wide.dtype))

    def _conditions(self, z: Array, y: Array, n: int, train: bool) -> tuple[Array, Sequence[Array]]:
        """What the first layer sees, and what each of the n blocks' batch norms see."""
        if not self.shared_embedding:
            return z, [y] * n
        y, log_lam = heard(y)
        embed = layers.Embed(self.num_classes, self.shared_dim, self.style.plain, name="shared")
        shared = embed(y, train=train)
        if log_lam is not None and self.dial is not None:
            turned = Dial(self.shared_dim, *self.dial, name="dial")(log_lam)
            shared = shared + turned.astype(shared.dtype)
        if not self.hierarchical:
            return z, [shared] * n
        if self.deep:
            both = jnp.concatenate([shared, z], axis=-1)
            return both, [both] * n
        first, *chunks = jnp.split(z, n + 1, axis=-1)
        return first, [jnp.concatenate([shared, chunk], axis=-1) for chunk in chunks]


class Critic(nn.Module):
    """images (N, R, R, C), y (N,) -> (N,): a log-ratio up to what `prpr.ratio` makes of it.

    Attributes: as the generator's.
    """

    resolution: int
    num_classes: int
    ch: int = 64
    attention_at: tuple[int, ...] = ()
    deep: bool = False
    depth: int = 1
    remat: bool = False
    style: Style = Style()
    dial: tuple[float, float] | None = None

    @nn.compact
    def __call__(self, x: Array, y: Array, *, train: bool) -> Array:
        y, log_lam = heard(y)
        style, wide = self.style, self.style.wide
        depth = self.depth if self.deep else 1
        kind = blocks.DeepCriticBlock if self.deep else blocks.CriticBlock
        make = _block(kind, self.remat, 2)
        h = x
        if self.deep:
            stem = architecture.architecture(self.resolution).critic_out[0] * self.ch
            h = layers.Conv(stem, style=style, name="conv_in")(h, train=train)
        for i, block in enumerate(architecture.critic_blocks(self.resolution, self.deep, depth)):
            first = {} if self.deep else {"first": i == 0}
            features = block.features * self.ch
            h = make(features, block.resampled, style, **first, name=f"block{i}")(h, train)
            if block.last and block.side in self.attention_at:
                h = layers.Attention(style, name=f"attention{i}")(h, train=train)
        h = jax.nn.relu(h).astype(wide.dtype).sum((1, 2))
        out = layers.Dense(1, style=wide, name="linear")(h, train=train)[:, 0]
        embed = layers.Embed(self.num_classes, h.shape[-1], wide, name="embed")
        out = out + (embed(y, train=train) * h).sum(-1)
        if log_lam is None or self.dial is None:
            return out
        # The same form for λ: a projection, and what it adds whatever the image is.
        projected = jnp.concatenate([h, jnp.ones_like(h[:, :1])], axis=-1)
        turned = Dial(projected.shape[-1], *self.dial, name="dial")(log_lam)
        return out + (turned.astype(h.dtype) * projected).sum(-1)
