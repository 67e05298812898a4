"""The penalties against functions whose gradient is known, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np

from prpr.regularizers import gradient_penalty, orthogonal

X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)


def test_of_a_linear_function_it_is_half_the_squared_slope():
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = gradient_penalty(lambda x: (x * w[None]).sum((1, 2)) + 7.0, jnp.asarray(X))
    np.testing.assert_allclose(got, 0.5 * (0 + 1 + 4 + 9 + 16 + 25), rtol=1e-6)


def test_of_a_quadratic_function_it_is_a_mean_over_rows():
    # T = ½|x|² has slope x.
    got = gradient_penalty(lambda x: 0.5 * (x * x).sum((1, 2)), jnp.asarray(X))
    np.testing.assert_allclose(got, 0.5 * (X**2).sum((1, 2)).mean(), rtol=1e-6)


def test_it_and_its_gradient_agree_with_finite_differences():
    rng = np.random.default_rng(1)
    w = rng.standard_normal((4, 3)).astype(np.float32)
    x = rng.standard_normal((2, 3)).astype(np.float32)

    def penalty(w: jax.Array) -> jax.Array:
        return gradient_penalty(lambda x: jnp.tanh(x @ w.T).sum(-1), x)

    def slow(w: np.ndarray) -> float:
        """The same from differences of T alone, in float64."""
        d, total = 1e-4, 0.0
        for row in x.astype(np.float64):
            for e in d * np.eye(3):
                up, down = np.tanh(w @ (row + e)).sum(), np.tanh(w @ (row - e)).sum()
                total += 0.5 * ((up - down) / (2 * d)) ** 2
        return total / len(x)

    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(w))
    wide = w.astype(np.float64)
    np.testing.assert_allclose(value, slow(wide), rtol=1e-4)
    directions = [1e-3 * e.reshape(w.shape) for e in np.eye(w.size)]
    expected = [(slow(wide + e) - slow(wide - e)) / 2e-3 for e in directions]
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-3, atol=1e-3)


RNG = np.random.default_rng(2)
PARAMS = {
    "shared": {"w": {"kernel": RNG.standard_normal((4, 3))}},
    "embed": {"w": {"kernel": RNG.standard_normal((4, 3))}},
    "block0": {
        "conv1": {"w": {"kernel": RNG.standard_normal((3, 3, 2, 5))}, "bias": np.ones(5)},
        "norm1": {"gain": {"w": {"kernel": RNG.standard_normal((4, 2))}}},
    },
}
PARAMS = jax.tree.map(lambda leaf: leaf.astype(np.float32), PARAMS)


def of_the_original(w: np.ndarray) -> np.ndarray:
    """The gradient that BigGAN-PyTorch adds: 2 (W Wᵀ ⊙ (1 − I)) W, W (out, fan_in)."""
    w = w.astype(np.float64)
    return 2 * (w @ w.T * (1 - np.eye(len(w)))) @ w


def test_orthogonality_has_the_gradient_of_the_original():
    got = jax.grad(orthogonal)(PARAMS)
    kernel = PARAMS["block0"]["conv1"]["w"]["kernel"]
    expected = of_the_original(kernel.reshape(-1, 5).T).T.reshape(kernel.shape)
    np.testing.assert_allclose(got["block0"]["conv1"]["w"]["kernel"], expected, rtol=1e-4)
    np.testing.assert_array_equal(got["block0"]["conv1"]["bias"], 0)
    np.testing.assert_array_equal(got["shared"]["w"]["kernel"], 0)
    table = PARAMS["embed"]["w"]["kernel"]
    np.testing.assert_allclose(
        got["embed"]["w"]["kernel"], of_the_original(table), rtol=1e-4, atol=1e-5
    )
    gain = PARAMS["block0"]["norm1"]["gain"]["w"]["kernel"]
    linear = got["block0"]["norm1"]["gain"]["w"]["kernel"]
    np.testing.assert_allclose(linear, of_the_original(gain.T).T, rtol=1e-4, atol=1e-5)
    got = jax.grad(lambda p: orthogonal(p, tables=("embed", "gain", "bias")))(PARAMS)
    table = got["block0"]["norm1"]["gain"]["w"]["kernel"]
    np.testing.assert_allclose(table, of_the_original(gain), rtol=1e-4, atol=1e-5)


def test_orthogonality_of_orthogonal_outputs_is_0_whatever_their_length():
    kernel = np.diag([1.0, 2.0, 3.0]).astype(np.float32)
    assert orthogonal({"w": {"kernel": kernel}}) == 0
    kernel[0, 1] = 0.5  # columns 0 and 1 now have the product 0.5, counted twice, and halved
    np.testing.assert_allclose(orthogonal({"w": {"kernel": kernel}}), 0.25, rtol=1e-6)
