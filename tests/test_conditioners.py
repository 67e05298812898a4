"""The networks in a flow's maps: Flax's own layers, computed otherwise where that is faster."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr.models.flows import conditioners
from prpr.planner import flops


def normal(*shape: int, seed: int = 0) -> jax.Array:
    values = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (1, 2), (2, 1), (3, 2), (5, 4)])
def test_conv_is_flaxs_convolution(sides):
    x, own, flaxs = normal(3, *sides, 4), conditioners.Conv(5), nn.Conv(5, (3, 3))
    params = flaxs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, own.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, params
    )
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)

    def loss(module: nn.Module):
        return lambda params, x: jnp.sin(module.apply(params, x)).sum()

    np.testing.assert_allclose(own.apply(params, x), flaxs.apply(params, x), atol=2e-5)
    for found, expected in zip(
        jax.tree.leaves(jax.grad(loss(own), (0, 1))(params, x)),
        jax.tree.leaves(jax.grad(loss(flaxs), (0, 1))(params, x)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_product_is_the_product_in_every_derivative():
    x, kernel = normal(6, 3), normal(3, 4, seed=1)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sin(x @ kernel).sum()

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sin(conditioners.product(x, kernel)).sum()

    for derivative in (lambda f: f, lambda f: jax.grad(f, (0, 1)), lambda f: jax.jacfwd(f, (0, 1))):
        found, expected = derivative(ours)(x, kernel), derivative(plain)(x, kernel)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    twice = [jax.hessian(f, 1)(x, kernel) for f in (ours, plain)]
    np.testing.assert_allclose(*twice, atol=1e-5)
    several = jnp.stack([kernel, kernel + 1.0])
    mapped = [jax.vmap(jax.grad(f, 1), (None, 0))(x, several) for f in (ours, plain)]
    np.testing.assert_allclose(*mapped, atol=1e-5)


def test_a_factor_that_is_not_differentiated_costs_no_product():
    """One product is the value's, and one is due to each factor that is."""
    x, kernel, one = normal(6, 3), normal(3, 4, seed=1), 2 * 6 * 3 * 4

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sin(conditioners.product(x, kernel)).sum()

    def by_x(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.jvp(lambda x: ours(x, kernel), (x,), (x,))[1]

    def by_kernel(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.jvp(lambda kernel: ours(x, kernel), (kernel,), (kernel,))[1]

    several = [jnp.stack([factor] * 5) for factor in (x, kernel)]
    for fn, products in (
        *((by_x, 2), (jax.grad(ours, 0), 2)),
        *((by_kernel, 2), (jax.grad(ours, 1), 2)),
        (jax.grad(ours, (0, 1)), 3),
    ):
        assert flops.count(fn, x, kernel).flops == products * one
        assert flops.count(jax.vmap(fn), *several).flops == 5 * products * one
