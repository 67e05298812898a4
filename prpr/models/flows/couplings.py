"""Couplings: one half of the entries is changed, by parameters read off the other half.

Notation: x = (x_a, x_b); y_a = x_a, y_b = f(x_b; θ(x_a, context)) with f monotone in each entry
and θ a network. So log |det ∂y/∂x| = Σ log f', and the inverse needs θ only, not its inverse.
Which entries are x_a: the first half of the last axis, the second with `flip`; of images also
every second pixel (checkerboard).

Sources: RealNVP (arXiv:1605.08803) for couplings and masks, neural spline flows
(arXiv:1906.04032) for the spline.
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError, unknown_name
from prpr.models.flows import elementwise
from prpr.models.flows.bijector import Array, Bijector, Mapped, sum_items
from prpr.models.flows.conditioners import conditioner, parity

Mask = Literal["halves", "checkerboard"]
MASKS = ("halves", "checkerboard")


class Coupling(Bijector):
    """What all couplings share; subclasses give `per_entry` and `_entries`.

    Attributes:
      shape: of an item, (D,) or (H, W, C).
      mask: "halves" of the last axis, or "checkerboard" over the pixels.
      flip: whether the two parts change places.
      width, depth: of the network.

    Raises:
      ConfigError: the shape has no two parts under this mask.
    """

    shape: tuple[int, ...]
    mask: Mask = "halves"
    flip: bool = False
    width: int = 64
    depth: int = 2

    def __post_init__(self) -> None:
        self._check()
        super().__post_init__()

    def _check(self) -> None:
        name, shape = type(self).__name__, tuple(self.shape)
        if len(shape) not in (1, 3) or min(shape) < 1:
            raise ConfigError(f"{name}: shape = {shape} must be (D,) or (H, W, C).")
        if self.mask not in MASKS:
            raise unknown_name(f"{name} mask", self.mask, MASKS)
        if self.mask == "checkerboard" and (len(shape) == 1 or math.prod(shape[:2]) < 2):
            raise ConfigError(
                f"{name}: mask = 'checkerboard' needs an image of 2 pixels or more, not shape = "
                f"{shape}; use 'halves'."
            )
        if self.mask == "halves" and shape == (1,):
            raise ConfigError(
                f"{name}: shape = (1,) has one entry, which cannot be split in two parts; use a "
                "flow without couplings, such as residual."
            )
        if self.mask == "halves" and len(shape) == 3 and shape[-1] % 2:
            raise ConfigError(
                f"{name}: shape = {shape} has an odd number of channels, {shape[-1]}, which cannot "
                "be split in halves; squeeze first, or use mask = 'checkerboard'."
            )
        for key in ("width", "depth"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{name}: {key} = {getattr(self, key)!r} must be at least 1.")

    @property
    def per_entry(self) -> int:
        """Parameters that an entry needs."""
        raise NotImplementedError

    def _entries(self, x: Array, raw: Array, *, inverse: bool) -> Mapped:
        """x (..., E), raw (..., E, per_entry) -> y (..., E), log slope (..., E)."""
        raise NotImplementedError

    def setup(self) -> None:
        first = self.shape[-1] // 2
        changed = first if self.flip else self.shape[-1] - first
        self.changed = self.shape[-1] if self.mask == "checkerboard" else changed
        features = self.changed * self.per_entry
        self.net = conditioner(len(self.shape), features, self.width, self.depth)

    def _change(self, x: Array, seen: Array, context: Array | None, inverse: bool) -> Mapped:
        raw = self.net(seen, context)
        raw = raw.reshape(*raw.shape[:-1], self.changed, self.per_entry)
        return self._entries(x, raw, inverse=inverse)

    def _map(self, x: Array, context: Array | None, *, inverse: bool) -> Mapped:
        if self.mask == "checkerboard":
            return self._checkerboard(x, context, inverse)
        first, second = jnp.split(x, [self.shape[-1] // 2], axis=-1)
        seen, other = (second, first) if self.flip else (first, second)
        other, log_slope = self._change(other, seen, context, inverse)
        pair = (other, seen) if self.flip else (seen, other)
        return jnp.concatenate(pair, axis=-1), sum_items(log_slope)

    def _checkerboard(self, x: Array, context: Array | None, inverse: bool) -> Mapped:
        mask = parity((*self.shape[:2], 1), self.flip)
        kept = jnp.broadcast_to(mask, (x.shape[0], *mask.shape[1:]))
        # The mask goes along: a pixel that is hidden is not one that is 0.
        seen = jnp.concatenate([jnp.where(kept, x, 0.0), kept.astype(x.dtype)], axis=-1)
        y, log_slope = self._change(x, seen, context, inverse)
        return jnp.where(kept, x, y), sum_items(jnp.where(kept, 0.0, log_slope))

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> Mapped:
        return self._map(x, context, inverse=False)

    def inverse_and_log_det(self, z: Array, context: Array | None = None) -> Mapped:
        return self._map(z, context, inverse=True)


class AffineCoupling(Coupling):
    """y_b = x_b·exp(s) + t, with |s| ≤ `max_log_scale` so that no layer explodes."""

    max_log_scale: float = 1.0

    def _check(self) -> None:
        super()._check()
        if not 0.0 < self.max_log_scale < np.inf:
            raise ConfigError(
                f"AffineCoupling: max_log_scale = {self.max_log_scale!r} must be positive, finite."
            )

    @property
    def per_entry(self) -> int:
        return 2

    def _entries(self, x: Array, raw: Array, *, inverse: bool) -> Mapped:
        log_scale = elementwise.bounded(raw[..., 1], self.max_log_scale)
        one = elementwise.affine_inverse if inverse else elementwise.affine
        return one(x, raw[..., 0], log_scale)


class SplineCoupling(Coupling):
    """y_b a rational-quadratic spline of x_b, with `bins` bins on [−bound, bound]."""

    bins: int = 8
    bound: float = 5.0

    def _check(self) -> None:
        super()._check()
        most = round(1.0 / elementwise.MIN_BIN) - 1
        if not 2 <= self.bins <= most:
            raise ConfigError(f"SplineCoupling: bins = {self.bins!r} must lie in [2, {most}].")
        if not 0.0 < self.bound < np.inf:
            raise ConfigError(f"SplineCoupling: bound = {self.bound!r} must be positive, finite.")

    @property
    def per_entry(self) -> int:
        return 3 * self.bins - 1

    def _entries(self, x: Array, raw: Array, *, inverse: bool) -> Mapped:
        widths, heights, slopes = jnp.split(raw, [self.bins, 2 * self.bins], axis=-1)
        one = elementwise.rational_quadratic
        if inverse:
            one = elementwise.rational_quadratic_inverse
        return one(x, widths, heights, slopes, self.bound)
