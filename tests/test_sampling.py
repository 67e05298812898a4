"""Batched sampling: padding, latents, truncation, errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import objectives, ratio, sampling, train
from prpr.errors import DataError
from prpr.models import small

KEY = jax.random.key(3)


class Echo(nn.Module):
    """Its latent, its class, and one over a parameter."""

    @nn.compact
    def __call__(self, z: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        del train  # it has no moments
        scale = self.param("scale", nn.initializers.ones, (), jnp.float32)
        return jnp.concatenate([z, y[:, None].astype(z.dtype)], axis=-1) / scale


def system_of(generator: nn.Module) -> tuple[train.System, train.Net]:
    tx = optax.sgd(0.1)
    critic_loss, objective = ratio.get("logistic"), objectives.get("envelope")
    system = train.System(
        generator, small.Critic(), critic_loss, objective, tx, tx, dim_z=2, num_classes=3
    )
    z, y = jnp.zeros((1, 2)), jnp.zeros((1,), jnp.int32)
    return system, train.split(generator.init(jax.random.key(0), z, y, train=True))


LABELS = np.arange(20) % 3


def test_padding_changes_nothing():
    system, net = system_of(small.Generator(2, 3, width=4, depth=1))
    whole = sampling.sample(system, net, LABELS, KEY)
    assert whole.shape == (20, 2)
    assert whole.dtype == np.float32
    for batch in (7, 20, 1):
        parts = sampling.sample(system, net, LABELS, KEY, batch=batch)
        # The same arithmetic, but a matrix product may sum in another order for another batch.
        np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-7)
    # A sample depends on its own label only.
    changed = LABELS.copy()
    changed[-1] = (changed[-1] + 1) % 3
    other = sampling.sample(system, net, changed, KEY)
    np.testing.assert_array_equal(other[:-1], whole[:-1])
    assert not np.allclose(other[-1], whole[-1])


@pytest.mark.parametrize("truncation", [0.0, 0.5])
def test_a_key_gives_every_model_the_same_latents(truncation):
    system, net = system_of(Echo())
    got = sampling.sample(system, net, LABELS, KEY, truncation=truncation, batch=7)
    np.testing.assert_array_equal(got[:, :2], sampling.latents(KEY, 20, 2, truncation))
    np.testing.assert_array_equal(got[:, 2], LABELS)
    other = sampling.sample(system, net, LABELS, jax.random.key(4), truncation=truncation)
    assert not np.allclose(got, other)


def test_truncation_bounds_and_does_not_shift():
    z = np.asarray(sampling.latents(KEY, 4000, 2, 0.5))
    assert np.abs(z).max() <= 0.5
    assert np.abs(z).max() > 0.49
    # Nearly uniform there: sd √(1/12) = .289; five standard errors of the mean are .016.
    assert abs(z.mean()) < 0.016
    assert np.asarray(sampling.latents(KEY, 4000, 2)).std() > 0.97


def test_one_compilation_for_all_nets_of_equal_generators():
    system, net = system_of(Echo())
    sampling.sample(system, net, LABELS, KEY, batch=5)
    before = sampling._draw._cache_size()
    other, _ = system_of(Echo())
    doubled = jax.tree.map(lambda leaf: 2.0 * leaf, net)
    sampling.sample(other, doubled, LABELS[:13], KEY, batch=5)
    assert sampling._draw._cache_size() == before


def test_samples_that_are_not_finite_are_an_error():
    system, net = system_of(Echo())
    broken = jax.tree.map(jnp.zeros_like, net)
    with pytest.raises(DataError, match="20 of 20 samples"):
        sampling.sample(system, broken, LABELS, KEY, batch=7)
    # Padding rows (latent 0, so 0/0) are not counted.
    with pytest.raises(DataError, match="3 of 3 samples"):
        sampling.sample(system, broken, LABELS[:3], KEY, batch=7)
