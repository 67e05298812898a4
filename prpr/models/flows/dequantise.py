"""Noise that turns values on a grid into continuous ones, so that a density can be fitted.

Notation: x (N, ...) stored data on a grid, u (N, ...) uniform in (0, 1), v (N, ...) in (0, 1) the
noise that is added in units of the grid's step, r(v | x) its density.

  log P(x) = log ∫ q(x + v) dv >= E_r[log q(x + v) - log r(v | x)]

Uniform: v = u, r = 1 (Theis, van den Oord & Bethge 2016, arXiv:1511.01844). Variational: v from
a flow that sees x (Flow++, Ho et al. 2019, arXiv:1902.00275), which makes the bound tighter.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from prpr.errors import ConfigError
from prpr.models.flows import elementwise
from prpr.models.flows.bijector import Array, sum_items
from prpr.models.flows.conditioners import conditioner, parity


class Dequantiser(nn.Module):
    """(x, context, u) -> v (N, ...) in (0, 1), log r(v | x) (N,)."""

    def __call__(self, x: Array, context: Array | None, u: Array) -> tuple[Array, Array]:
        raise NotImplementedError


class Uniform(Dequantiser):
    """v = u."""

    def __call__(self, x: Array, context: Array | None, u: Array) -> tuple[Array, Array]:
        del context
        return u, jnp.zeros(x.shape[0], jnp.float32)


class Variational(Dequantiser):
    """v = sigmoid(T(logit u; x)) with T a conditional flow, which starts as the identity.

    T is an affine map of each entry given x, then `steps` affine couplings given x over
    checkerboards (neighbours along every axis, channels too, are of different parts). With
    t = T(logit u),

        log r(v | x) = −log |∂v/∂u| = −Σ [log σ'(t) − log σ'(logit u)] − log |det ∂T|

    exactly, with σ' = σ(1 − σ); so r = 1 at the start.

    Attributes:
      width, depth: of the networks (`conditioners`).
      steps: couplings.
      max_log_scale: of each affine map.
    """

    width: int = 32
    depth: int = 2
    steps: int = 4
    max_log_scale: float = 2.0

    def __post_init__(self) -> None:
        for key, least in (("width", 1), ("depth", 1), ("steps", 0)):
            if getattr(self, key) < least:
                raise ConfigError(
                    f"Variational: {key} = {getattr(self, key)!r} must be at least {least}."
                )
        if not 0.0 < self.max_log_scale < math.inf:
            raise ConfigError(
                f"Variational: max_log_scale = {self.max_log_scale!r} must be positive, finite."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, context: Array | None, u: Array) -> tuple[Array, Array]:
        # 0 is a value of `jax.random.uniform`; its logit is not finite.
        u = jnp.clip(u, float(jnp.finfo(u.dtype).tiny), 1.0 - float(jnp.finfo(u.dtype).epsneg))
        t = jnp.log(u) - jnp.log1p(-u)
        log_slope = -_log_logistic(t)

        def parameters(seen: Array, name: str) -> tuple[Array, Array]:
            rank, c = x.ndim - 1, x.shape[-1]
            net = conditioner(rank, 2 * c, self.width, self.depth, name)
            shift, raw = jnp.split(net(seen, context), 2, axis=-1)
            return shift, elementwise.bounded(raw, self.max_log_scale)

        t, log_scale = elementwise.affine(t, *parameters(x, "entries"))
        log_slope = log_slope + log_scale
        for i in range(self.steps):
            kept = jnp.broadcast_to(parity(x.shape[1:], i % 2 == 1), x.shape)
            seen = jnp.concatenate([x, jnp.where(kept, t, 0.0), kept.astype(t.dtype)], axis=-1)
            new, log_scale = elementwise.affine(t, *parameters(seen, f"coupling{i}"))
            t = jnp.where(kept, t, new)
            log_slope = log_slope + jnp.where(kept, 0.0, log_scale)
        return jax.nn.sigmoid(t), -sum_items(log_slope + _log_logistic(t))


def _log_logistic(t: Array) -> Array:
    """log σ'(t), the logistic density."""
    return jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t)
