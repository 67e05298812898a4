"""Batched sampling: padding, latents, truncation, errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_tools import filled

from prpr import objectives, ratio, sampling, train
from prpr.errors import DataError
from prpr.models import biggan, layers, small

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
    before = sampling.draw._cache_size()
    other, _ = system_of(Echo())
    doubled = jax.tree.map(lambda leaf: 2.0 * leaf, net)
    sampling.sample(other, doubled, LABELS[:13], KEY, batch=5)
    assert sampling.draw._cache_size() == before


def test_samples_that_are_not_finite_are_an_error():
    system, net = system_of(Echo())
    broken = jax.tree.map(jnp.zeros_like, net)
    with pytest.raises(DataError, match="20 of 20 samples"):
        sampling.sample(system, broken, LABELS, KEY, batch=7)
    # Padding rows (latent 0, so 0/0) are not counted.
    with pytest.raises(DataError, match="3 of 3 samples"):
        sampling.sample(system, broken, LABELS[:3], KEY, batch=7)


class Normed(nn.Module):
    """A batch norm of images made of its latent, so that the moments are known."""

    @nn.compact
    def __call__(self, z: jax.Array, y: jax.Array, *, train: bool) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (), jnp.float32)
        x = (scale * z + y[:, None].astype(z.dtype))[:, None, None, :]
        return layers.PlainBatchNorm(name="norm_out")(x, train=train)[:, 0, 0]


def test_standing_statistics_are_means_over_batches_of_samples():
    system, net = system_of(Normed())
    net = jax.tree.map(lambda leaf: leaf + 3.0, net)
    got = sampling.standing_statistics(system, net, KEY, batches=3, batch=40, truncation=0.5)
    batches = []
    for i in range(3):
        k_z, k_y = jax.random.split(jax.random.fold_in(KEY, i))
        y = np.asarray(jax.random.randint(k_y, (40,), 0, 3))
        assert set(y.tolist()) == {0, 1, 2}
        batches.append(4.0 * np.asarray(sampling.latents(k_z, 40, 2, 0.5)) + y[:, None])
    moments = got.extra["batch_stats"]["norm_out"]["norm"]
    np.testing.assert_allclose(moments["mean"], np.mean([b.mean(0) for b in batches], 0), rtol=1e-5)
    np.testing.assert_allclose(moments["var"], np.mean([b.var(0) for b in batches], 0), rtol=1e-5)
    np.testing.assert_array_equal(got.params["scale"], net.params["scale"])
    assert jax.tree.structure(got) == jax.tree.structure(net)
    # What the moments were does not matter.
    again = sampling.standing_statistics(system, got, KEY, batches=3, batch=40, truncation=0.5)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_standing_statistics_of_a_biggan_move_its_moments_only_and_compile_once():
    generator = biggan.Generator(8, 3, 1, ch=2, dim_z=2, shared_dim=3)
    system, _ = system_of(Echo())
    system = system._replace(generator=generator)
    variables = filled(generator, np.zeros((2, 2), np.float32), np.zeros(2, np.int32))
    net = train.split(jax.tree.map(jnp.asarray, variables))
    before = sampling._batch_moments._cache_size()
    got = sampling.standing_statistics(system, net, KEY, batches=2, batch=16)
    sampling.standing_statistics(system, got, jax.random.key(8), batches=3, batch=16)
    assert sampling._batch_moments._cache_size() == before + 1
    assert jax.tree.structure(got) == jax.tree.structure(net)
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        old = dict(jax.tree_util.tree_leaves_with_path(net))[path]
        moves = "batch_stats" in jax.tree_util.keystr(path)
        assert (np.abs(leaf - old).max() > 0) == moves, jax.tree_util.keystr(path)


def test_without_batch_norm_there_is_nothing_to_do():
    system, net = system_of(Echo())
    assert sampling.standing_statistics(system, net, KEY) is net
