"""A normalizing flow: an exact density and a sampler in one Flax module.

Notation: x (N, ...) data, z (N, dim_z) standard normal latent, y (N,) int class (ignored where
there is one), D = dim_z the number of an item's entries, q the model's density.

  log q(x) = log N(z; 0, I) + log |det ∂z/∂x|,   z = forward(x)        Rezende & Mohamed 2015

Called like any other generator, (z, y, train=) -> x, so whatever takes samplers takes flows.
Images hold one of `levels` equally far values in [−1, 1], w = 2/(levels − 1) apart; what is
modelled is x + w (u − ½) with u in (0, 1), see `dequantise`.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from prpr.models.dial import Dial, heard
from prpr.models.flows.bijector import Array, Bijector, sum_items
from prpr.models.flows.dequantise import Dequantiser, Uniform


class Flow(nn.Module):
    """See the head of the module.

    Attributes:
      shape: of an item.
      bijector: x (N, *shape) -> z (N, ...) with as many entries.
      num_classes: of y; with more than one the bijector gets an embedding of the class.
      context_dim: of that embedding.
      levels: values that an entry of an image can have; 0 for data that are continuous.
      dequantiser: how u is drawn.
      dial: the range of log λ, where λ is an input (y is then that of `prpr.models.dial`): the
        bijector gets it with the class.
    """

    shape: tuple[int, ...]
    bijector: Bijector
    num_classes: int = 1
    context_dim: int = 64
    levels: int = 0
    dequantiser: Dequantiser = Uniform()
    dial: tuple[float, float] | None = None

    def setup(self) -> None:
        if self.num_classes > 1:
            self.embed = nn.Embed(self.num_classes, self.context_dim, name="class")
        if self.dial is not None:
            self.turn = Dial(self.context_dim, *self.dial, name="dial")

    def _context(self, y: Array) -> Array | None:
        y, log_lam = heard(y)
        of_class = self.embed(y) if self.num_classes > 1 else None
        if log_lam is None:
            return of_class
        turned = self.turn(log_lam)
        return turned if of_class is None else of_class + turned

    def encode(self, x: Array, y: Array) -> tuple[Array, Array]:
        """x (N, ...) -> z (N, dim_z), log |det ∂z/∂x| (N,)."""
        z, log_det = self.bijector.forward_and_log_det(x, self._context(y))
        return z.reshape(z.shape[0], -1), log_det

    def decode(self, z: Array, y: Array) -> tuple[Array, Array]:
        """z (N, dim_z) -> x (N, ...), log |det ∂x/∂z| (N,)."""
        # The latent's own shape: that of the bijector's forward output.
        return self.bijector.inverse_and_log_det(
            z.reshape(z.shape[0], *self.latent_shape), self._context(y)
        )

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of the bijector's z: of an item, unless the bijector says otherwise."""
        return self.bijector.latent_shape or self.shape

    def __call__(self, z: Array, y: Array, *, train: bool) -> Array:
        """z (N, dim_z), y (N,) -> x (N, ...): a sampler; `train` changes nothing."""
        del train
        return self.decode(z, y)[0]

    def sample_and_log_prob(self, z: Array, y: Array) -> tuple[Array, Array]:
        """z -> x (N, ...), log q(x) (N,), from one pass."""
        x, log_det = self.decode(z, y)
        return x, standard_normal(z) - log_det

    def log_prob(self, x: Array, y: Array) -> Array:
        """log q(x) (N,) of continuous x (N, ...)."""
        z, log_det = self.encode(x, y)
        return standard_normal(z) + log_det

    def log_likelihood(self, x: Array, y: Array, u: Array) -> Array:
        """A lower bound, in mean over u, of log P(x) (N,) of data as they are stored.

        Args:
          x: (N, ...) data; with `levels` on the grid of their values.
          y: (N,) classes.
          u: uniform in (0, 1), of x's shape; not read without `levels`, where it is log q(x).
        """
        if not self.levels:
            return self.log_prob(x, y)
        width = 2.0 / (self.levels - 1)
        noise, log_density = self.dequantiser(x, self._context(y), u)
        found = self.log_prob(x + width * (noise - 0.5), y) - log_density
        return found + math.prod(self.shape) * math.log(width)


def standard_normal(z: Array) -> Array:
    """log N(z; 0, I), (N, ...) -> (N,)."""
    d = math.prod(z.shape[1:])
    return -0.5 * sum_items(jnp.square(z)) - 0.5 * d * math.log(2 * math.pi)


def bits_per_dim(log_likelihood: Array, shape: tuple[int, ...]) -> Array:
    """−log P(x)/(D log 2): bits an entry of an item of this shape."""
    return -log_likelihood / (math.prod(shape) * math.log(2.0))
