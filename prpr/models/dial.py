"""λ as an input: one model for every λ of a range, turned when it is sampled.

Where a model has a dial its second argument y is (N, 2) float32, the class and log λ of each item
(`told`), instead of (N,) classes.

  input     `Dial`: log λ is one more condition of the network, each item has its own
  weights   `Woven`: all weights are linear in log λ; items come in groups that share a λ

A condition reaches the samples through a few gains only. Where these do not move a model (images,
docs/choosing_lambda.md), its weights do.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def told(y: Array, log_lam: Array) -> Array:
    """Classes (..., N) and log λ (..., N) -> (..., N, 2): what models with a dial take as y."""
    return jnp.stack([y.astype(jnp.float32), jnp.broadcast_to(log_lam, y.shape)], axis=-1)


def heard(y: Array) -> tuple[Array, Array | None]:
    """(classes (N,) int32, log λ (N,)) of what `told` made; log λ is None for plain classes."""
    if y.ndim == 1:
        return y, None
    return y[:, 0].astype(jnp.int32), y[:, 1]


def _place(log_lam: Array, low: float, high: float) -> Array:
    """u, log λ from −1 to 1 over the range."""
    return (2 * log_lam - (low + high)) / max(high - low, 1e-6)


class Dial(nn.Module):
    """log λ (N,) -> (N, features), zero at the start: a trained model that gets one stays the same.

    u, log λ from −1 to 1 over the range, is seen as u, sin(kπu/2), cos(kπu/2) for k up to
    `frequencies` (Fourier features), through one hidden layer.

    Attributes:
      features: numbers that it gives.
      low, high: ends of log λ.
      width: of the hidden layer.
    """

    features: int
    low: float
    high: float
    width: int = 32
    frequencies: int = 3

    @nn.compact
    def __call__(self, log_lam: Array) -> Array:
        u = _place(log_lam, self.low, self.high)
        angle = u[:, None] * (jnp.pi / 2 * jnp.arange(1.0, self.frequencies + 1))[None]
        seen = jnp.concatenate([u[:, None], jnp.sin(angle), jnp.cos(angle)], axis=-1)
        hidden = jax.nn.silu(nn.Dense(self.width, name="hidden")(seen))
        return nn.Dense(self.features, kernel_init=nn.initializers.zeros, name="out")(hidden)


@dataclasses.dataclass(frozen=True)
class Woven:
    """A network whose weights are θ + scale · u · θ', u = log λ from −1 to 1 over the range.

    θ' starts at zero. At the ends of the range these are two networks of their own that share a
    mean; between them they are interpolated, as weights of models that were fine-tuned from one
    base can be (Wortsman et al. 2022, arXiv:2203.05482; Rame et al. 2023, arXiv:2306.04488). A λ
    that stands (`at`) costs nothing: the weights are added up once.

    Adam moves θ and θ' at one rate, whatever the size of their gradients, so `scale` says how much
    faster the mean learns than the difference.

    Attributes:
      module: the network, which knows of no dial.
      low, high: ends of log λ.
      scale: of θ'.
      items: how many in a row share a λ, that of the first of them.
    """

    module: nn.Module
    low: float
    high: float
    scale: float
    items: int

    def init(self, key: Any, x: Array, y: Array, **how: Any) -> dict[str, Any]:
        """As a Flax module's; its parameters are {"middle": θ, "slope": θ'}."""
        found = dict(self.module.init(key, x, heard(y)[0], **how))
        return {**found, "params": woven(found["params"])}

    def at(self, params: Mapping[str, Any], log_lam: Array) -> Any:
        """The network's own parameters at a λ, log_lam ()."""
        step = self.scale * _place(log_lam, self.low, self.high)
        return jax.tree.map(lambda a, b: a + step * b, params["middle"], params["slope"])

    def apply(
        self, variables: Mapping[str, Any], x: Array, y: Array, *, mutable: Any = False, **how: Any
    ) -> Any:
        """As a Flax module's; what moves (moments) is the mean over the groups.

        Where y is classes alone it is the network at the middle of the range.
        """
        classes, log_lam = heard(y)
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        if log_lam is None:
            own = {**rest, "params": variables["params"]["middle"]}
            return self.module.apply(own, x, classes, mutable=mutable, **how)
        outs, moved, n = [], [], x.shape[0]
        for first in range(0, n, self.items):
            some = slice(first, min(first + self.items, n))
            own = {**rest, "params": self.at(variables["params"], log_lam[first])}
            out = self.module.apply(own, x[some], classes[some], mutable=mutable, **how)
            if mutable is not False:  # an empty list, too, makes Flax return both
                out, changed = out
                moved.append(changed)
            outs.append(out)
        whole = jnp.concatenate(outs)
        if mutable is False:
            return whole
        return whole, jax.tree.map(lambda *each: sum(each) / len(each), *moved)


def woven(params: Any) -> dict[str, Any]:
    """The parameters of `Woven` that make it the network with these, at every λ."""
    return {"middle": params, "slope": jax.tree.map(jnp.zeros_like, params)}


def is_woven(params: Any) -> bool:
    """Whether these are parameters of `Woven`."""
    return isinstance(params, Mapping) and set(params) == {"middle", "slope"}
