"""DINOv2's vision transformers in Flax, without registers: the class token after the last norm.

Notation: x (N, 224, 224, 3), normalised; T = 16 · 16 patches of 14 × 14; D the width; features
(N, D), "x_norm_clstoken".

    t = [class, patches] + positions
    t = t + γ₁ · attention(norm(t));  t = t + γ₂ · mlp(norm(t)),   depth times
    features = norm(t)[class]

Positions were trained at 518, a grid of 37 × 37, and are interpolated to 16 × 16 (see
`resampling`). Parameters have the names of the published state dict, "blocks_i" for "blocks.i".
Source: Oquab et al. 2023 (2304.07193), github.com/facebookresearch/dinov2; as the encoder of FD:
Stein et al. 2023 (2306.04675).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prpr.encoders.compiled import Spec, Variables, imagenet

SIZE = 224
PATCH = 14
TRAINED = 37  # patches along a side at 518, where positions were learned
OFFSET = 0.1
_HIGHEST = jax.lax.Precision.HIGHEST


class _Attention(nn.Module):
    """Softmax attention of several heads; one matrix makes queries, keys and values."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, t, d = x.shape
        qkv = nn.Dense(3 * d, precision=_HIGHEST, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(n, t, 3, self.heads, d // self.heads), 2, 0)
        scores = jnp.einsum("nthc,nshc->nhts", q, k, precision=_HIGHEST)
        shares = nn.softmax(scores * (d // self.heads) ** -0.5)
        out = jnp.einsum("nhts,nshc->nthc", shares, v, precision=_HIGHEST)
        return nn.Dense(d, precision=_HIGHEST, name="proj")(out.reshape(n, t, d))


class _MLP(nn.Module):
    """Two layers, four times as wide between them, with the exact gelu."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d = x.shape[-1]
        x = nn.gelu(nn.Dense(4 * d, precision=_HIGHEST, name="fc1")(x), approximate=False)
        return nn.Dense(d, precision=_HIGHEST, name="fc2")(x)


class _Scale(nn.Module):
    """A factor for each channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.ones, x.shape[-1:])
        return x * gamma[None, None]


class _Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        normed = nn.LayerNorm(epsilon=1e-6, name="norm1")(x)
        x = x + _Scale(name="ls1")(_Attention(self.heads, name="attn")(normed))
        normed = nn.LayerNorm(epsilon=1e-6, name="norm2")(x)
        return x + _Scale(name="ls2")(_MLP(name="mlp")(normed))


class DINOv2(nn.Module):
    """normalised images -> class tokens.

    Attributes:
      width, depth, heads: of the transformer.
    """

    width: int
    depth: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        patch = nn.Conv(
            self.width, (PATCH, PATCH), (PATCH, PATCH), "VALID", precision=_HIGHEST,
            name="patch_embed_proj",
        )  # fmt: skip
        x = patch(x)
        n, rows, columns, d = x.shape
        small = nn.initializers.normal(0.02)
        first = self.param("cls_token", small, (1, 1, d))
        places = self.param("pos_embed", small, (1, 1 + TRAINED**2, d))
        x = jnp.concatenate([jnp.broadcast_to(first, (n, 1, d)), x.reshape(n, -1, d)], axis=1)
        x = x + jnp.broadcast_to(_positions(places, rows, columns), x.shape)
        for i in range(self.depth):
            x = _Block(self.heads, name=f"blocks_{i}")(x)
        return nn.LayerNorm(epsilon=1e-6, name="norm")(x)[:, 0]


def resampling(size: int, trained: int = TRAINED) -> np.ndarray:
    """The matrix (size, trained) that resamples positions along one side, as the original does.

    Bicubic with a = −3/4, not antialiased, border repeated; target i lies at
    (i + ½) · trained/(size + 0.1) − ½. The 0.1 once kept a rounding error away from the number of
    patches, and stayed because the published results have it.
    """
    # In float32, since the original's positions carry that rounding.
    target = np.arange(size, dtype=np.float32) + np.float32(0.5)
    where = target * np.float32(trained / (size + OFFSET)) - np.float32(0.5)
    low = np.floor(where).astype(int)
    out = np.zeros((size, trained))
    for tap in range(-1, 3):
        away = np.abs(where - (low + tap))
        near = (1.25 * away - 2.25) * away**2 + 1
        far = -0.75 * (((away - 5) * away + 8) * away - 4)
        columns = np.clip(low + tap, 0, trained - 1)
        np.add.at(out, (np.arange(size), columns), np.where(away <= 1, near, far))
    return out.astype(np.float32)


def _positions(places: jax.Array, rows: int, columns: int) -> jax.Array:
    """Learned positions (1, 1 + 37², D) for a grid of patches, (1, 1 + rows · columns, D)."""
    if rows == columns == TRAINED:
        return places
    grid = places[0, 1:].reshape(TRAINED, TRAINED, -1)
    down, across = jnp.asarray(resampling(rows)), jnp.asarray(resampling(columns))
    grid = jnp.einsum("rp,cq,pqd->rcd", down, across, grid, precision=_HIGHEST)
    return jnp.concatenate([places[:, :1], grid.reshape(1, rows * columns, -1)], axis=1)


_SIZES = {"dinov2": (1024, 24, 16), "dinov2_vitb14": (768, 12, 12)}


def spec(name: str, resize: str, module: DINOv2 | None = None) -> Spec:
    """ViT-L/14 for "dinov2", ViT-B/14 for "dinov2_vitb14"; another `module` is for tests."""
    del resize
    network = module or DINOv2(*_SIZES[name])

    def apply(variables: Variables, x: jax.Array) -> tuple[jax.Array, None]:
        return network.apply(variables, imagenet(x)), None  # pyright: ignore[reportReturnType]

    return Spec(network, SIZE, apply)
