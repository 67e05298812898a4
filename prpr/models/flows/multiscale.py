"""Maps that move entries about: permutations, squeezes, and the factoring out of channels.

Notation: x (N, D) or (N, H, W, C). Nothing is computed, so log |det| = 0.

Sources: RealNVP (arXiv:1605.08803) for squeeze and the factoring out, Glow (Kingma & Dhariwal
2018, arXiv:1807.03039) for permutations between couplings.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Array, Bijector, Mapped


def _zeros(x: Array) -> Array:
    return jnp.zeros(x.shape[0], jnp.float32)


class Permute(Bijector):
    """z[..., i] = x[..., order[i]]: entries of a vector, channels of an image."""

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ConfigError(f"Permute: order = {self.order!r} is no permutation of 0, 1, ...")
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        return x[..., np.asarray(self.order)], _zeros(x)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        del context
        return z[..., np.argsort(self.order)], _zeros(z)


def shuffled(n: int, seed: int) -> tuple[int, ...]:
    """A permutation of 0, ..., n − 1 that depends on n and the seed only."""
    # Ranks of raw words, which NumPy promises to keep; not `permutation`, whose method may change.
    return tuple(int(i) for i in np.argsort(np.random.Philox(key=seed).random_raw(n)))


class Reverse(Bijector):
    """The last axis backwards."""

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        return x[..., ::-1], _zeros(x)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        return self.forward_and_log_det(z, context)


class Squeeze(Bijector):
    """Space to depth: x (N, H, W, C) -> z (N, H/2, W/2, 4C), a cell of 2 x 2 pixels to a pixel.

    Attributes:
      shape: of x's item.

    Raises:
      ConfigError: not an image, or a side is odd.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if len(shape) != 3 or shape[0] % 2 or shape[1] % 2:
            raise ConfigError(
                f"Squeeze: shape = {shape} must be (H, W, C) with even H and W; use fewer scales, "
                "or pad the images."
            )
        super().__post_init__()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        h, w, c = self.shape
        return h // 2, w // 2, 4 * c

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        del context
        h, w, c = self.shape
        cells = x.reshape(-1, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        return cells.reshape(-1, *self.latent_shape), _zeros(x)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        del context
        h, w, c = self.shape
        cells = z.reshape(-1, h // 2, w // 2, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        return cells.reshape(-1, h, w, c), _zeros(z)


class Multiscale(Bijector):
    """Maps at several scales; after each but the last half of the channels is latent already.

        h_0 = x,   (h_i, z_i) = the two halves of scale_i(h_{i−1}),   z = (z_1, z_2, ..., h_last)

    z is flat, (N, H·W·C). A scale may end with a coupling that changes the second half given the
    first: that is Glow's learned prior of what is factored out.

    Attributes:
      shape: of x's item, (H, W, C).
      scales: their maps, the first next to the data; a map that makes items of another shape has
        it as its `latent_shape`.

    Raises:
      ConfigError: an odd number of channels is to be halved.
    """

    shape: tuple[int, ...]
    scales: Sequence[Bijector]

    def __post_init__(self) -> None:
        self.scales = tuple(self.scales)  # see `Chain`
        if len(self.shape) != 3 or not self.scales:
            raise ConfigError(
                f"Multiscale: shape = {tuple(self.shape)} must be (H, W, C), and there must be a "
                f"scale (there are {len(self.scales)})."
            )
        for i, shape in enumerate(self._shapes()[:-1]):
            if shape[-1] % 2:
                raise ConfigError(
                    f"Multiscale: scale {i} ends with shape {shape}, an odd number of channels, "
                    "which cannot be halved; squeeze in it."
                )
        super().__post_init__()

    def _shapes(self) -> list[tuple[int, ...]]:
        """Of an item after each scale, before it is halved."""
        shapes, shape = [], tuple(self.shape)
        for scale in self.scales:
            shape = scale.latent_shape or shape
            shapes.append(shape)
            shape = (*shape[:-1], shape[-1] // 2)
        return shapes

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (math.prod(self.shape),)

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        total, out = _zeros(x), []
        for i, scale in enumerate(self.scales):
            x, log_det = scale.forward_and_log_det(x, context)
            total = total + log_det
            if i < len(self.scales) - 1:
                x, z = jnp.split(x, 2, axis=-1)
                out.append(z.reshape(z.shape[0], -1))
        return jnp.concatenate([*out, x.reshape(x.shape[0], -1)], axis=-1), total

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        total, shapes = _zeros(z), self._shapes()
        sizes = [math.prod(shape) // 2 for shape in shapes[:-1]]
        parts = jnp.split(z, np.cumsum(sizes), axis=-1) if sizes else [z]
        h = parts[-1].reshape(-1, *shapes[-1])
        for i in reversed(range(len(shapes))):
            if i < len(shapes) - 1:
                half = (*shapes[i][:-1], shapes[i][-1] // 2)
                h = jnp.concatenate([h, parts[i].reshape(-1, *half)], axis=-1)
            h, log_det = self.scales[i].inverse_and_log_det(h, context)
            total = total + log_det
        return h, total
