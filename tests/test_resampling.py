"""The products that are saved change nothing: values and both gradients, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_tools import normal

from prpr.models import resampling
from prpr.numerics import float64


def slow(x: np.ndarray, kernel: np.ndarray, resample: str) -> np.ndarray:
    """The two operations one after the other, tap by tap, in float64."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    if resample == "up":
        x = x.repeat(2, 1).repeat(2, 2)
    side, (_, h, w, _) = kernel.shape[0], x.shape
    edge = side // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    y = sum(
        padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(side) for j in range(side)
    )
    if resample == "down":
        y = (y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 4
    return np.asarray(y)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_convolution_is_what_it_says(resample, side, fused):
    x, kernel = normal(0, 2, 4, 6, 3), normal(1, side, side, 3, 5)
    got = resampling.convolution(x, kernel, resample, fused=fused)
    np.testing.assert_allclose(got, slow(x, kernel, resample), atol=1e-5)


def _first(resample, fused):
    def value(x, kernel):
        return jnp.sin(resampling.convolution(x, kernel, resample, fused=fused)).sum()

    return jax.grad(value, (0, 1))


def _second(resample, fused):
    def value(x, kernel):
        return sum(jnp.square(g).sum() for g in _first(resample, fused)(x, kernel))

    return jax.jit(jax.grad(value, (0, 1)))


@pytest.mark.parametrize("shape", [(1, 2, 2, 2), (2, 6, 4, 3)])
@pytest.mark.parametrize("resample", ["up", "down"])
def test_gradients_and_theirs_agree_with_the_plain_composition(resample, shape):
    """Also the gradient of a gradient's square, which R1 takes."""
    with float64():
        x = jnp.asarray(normal(2, *shape), jnp.float64)
        kernel = jnp.asarray(normal(3, 3, 3, shape[-1], 4), jnp.float64)
        for order in (_first, _second):
            for got, expected in zip(
                order(resample, True)(x, kernel), order(resample, False)(x, kernel), strict=True
            ):
                np.testing.assert_allclose(got, expected, atol=1e-11 * np.abs(expected).max())


def test_the_products_are_a_fourth():
    """9 instead of 36 a cell of 2 x 2 pixels and pair of channels, as XLA counts them."""
    x, kernel = normal(4, 2, 16, 16, 32), normal(5, 3, 3, 32, 32)

    def flops(resample, fused):
        fn = jax.jit(lambda x, k: resampling.convolution(x, k, resample, fused=fused))
        return fn.lower(x, kernel).compile().cost_analysis()["flops"]

    cells = {"up": 16 * 16, "down": 8 * 8}
    for resample, n in cells.items():
        products = 2 * 2 * n * 32 * 32
        assert flops(resample, fused=True) < 1.3 * 9 * products
        assert flops(resample, fused=False) > 0.8 * 36 * products


def test_bfloat16_rounds_at_most_three_times_as_much_as_the_plain_composition():
    x, kernel = normal(6, 2, 8, 8, 16), normal(7, 3, 3, 16, 8) / 12
    for resample in ("up", "down"):
        exact = slow(x, kernel, resample)

        def error(fused, resample=resample, exact=exact):
            y = resampling.convolution(jnp.asarray(x, jnp.bfloat16), kernel, resample, fused=fused)
            assert y.dtype == jnp.bfloat16
            return np.sqrt(np.square(np.asarray(y, np.float64) - exact).mean())

        assert error(fused=True) < 3 * error(fused=False)


def test_sizes():
    x = normal(11, 2, 4, 4, 3)
    np.testing.assert_allclose(resampling.downsample(resampling.upsample(x)), x, rtol=1e-6)
    assert resampling.upsample(x).shape == (2, 8, 8, 3)
    cell = np.tile(x[:, 1:2, 3:4], (1, 2, 2, 1))
    np.testing.assert_array_equal(resampling.upsample(x)[:, 2:4, 6:8], cell)
    mean = x[0, 2:4, 0:2].mean((0, 1))
    np.testing.assert_allclose(resampling.downsample(x)[0, 1, 0], mean, rtol=1e-5)
    np.testing.assert_array_equal(resampling.max_pool(x)[0, 1, 0], x[0, 2:4, 0:2].max((0, 1)))
