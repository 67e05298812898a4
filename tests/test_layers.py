"""Layers against NumPy and float64."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_tools import filled, normal

from prpr.models import layers

Array = jax.Array
PLAIN = layers.Style(spectral_norm=False)

# ---------------------------------------------------------------------------- spectral norm

KERNEL = normal(0, 3, 3, 2, 5)  # (18, 5) once flat; the initial orthogonal one has no direction


def spectral(u: np.ndarray, kernel: np.ndarray = KERNEL) -> dict[str, Any]:
    return {
        "params": {"kernel": jnp.asarray(kernel)},
        "spectral": {"u": jnp.asarray(u), "sigma": jnp.ones(())},
    }


def test_spectral_norm_converges_to_the_largest_singular_value():
    module = layers.SpectralKernel(KERNEL.shape)
    u = np.eye(5, dtype=np.float32)[0]

    @jax.jit
    def once(u: Array) -> Array:
        _, moved = module.apply(spectral(u), train=True, mutable=["spectral"])
        return moved["spectral"]["u"]

    for _ in range(60):
        u = once(u)
    got = module.apply(spectral(u), train=False)
    top = np.linalg.svd(KERNEL.reshape(18, 5))[1][0]
    np.testing.assert_allclose(got, KERNEL / top, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(got.reshape(18, 5))[1][0], 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-6)
    _, moved = module.apply(spectral(u), train=True, mutable=["spectral"])
    np.testing.assert_allclose(moved["spectral"]["sigma"], top, rtol=1e-5)


def test_a_table_has_u_on_its_rows():
    """As the original's SNEmbedding; one step of the iteration, by hand."""
    table, u = normal(20, 4, 3), normal(21, 4)
    module = layers.SpectralKernel((4, 3), table=True)
    got, moved = module.apply(spectral(u, table), train=True, mutable=["spectral"])
    v = u @ table / np.linalg.norm(u @ table)
    new = table @ v / np.linalg.norm(table @ v)
    sigma = new @ table @ v
    np.testing.assert_allclose(moved["spectral"]["u"], new, rtol=1e-5)
    np.testing.assert_allclose(moved["spectral"]["sigma"], sigma, rtol=1e-5)
    np.testing.assert_allclose(got, table / sigma, rtol=1e-5)
    assert layers.Embed(4, 3).init(jax.random.key(0), np.zeros(1, int), train=True)["spectral"][
        "w"
    ]["u"].shape == (4,)


def test_eps_bounds_the_norm_that_u_and_v_are_divided_by():
    module = layers.SpectralKernel((4, 3), layers.Style(sn_eps=10.0))
    w, start = normal(22, 4, 3) / 10, np.eye(3, dtype=np.float32)[0]
    v = w @ start / 10
    u = v @ w / 10
    got = module.apply(spectral(start, w), train=False)
    np.testing.assert_allclose(got, w / (v @ w @ u), rtol=1e-4)


def test_u_moves_in_training_passes_only():
    module = layers.SpectralKernel(KERNEL.shape)
    u = np.eye(5, dtype=np.float32)[0]
    out, moved = module.apply(spectral(u), train=True, mutable=["spectral"])
    assert not np.allclose(moved["spectral"]["u"], u)
    _, still = module.apply(spectral(u), train=False, mutable=["spectral"])
    np.testing.assert_array_equal(still["spectral"]["u"], u)
    # Not made mutable: the same value, and nothing moves (nor is it an error).
    np.testing.assert_array_equal(module.apply(spectral(u), train=True), out)


def test_u_does_not_move_at_initialisation():
    """So that the first training step is the same whether init ran with train or without."""
    module = layers.SpectralKernel(KERNEL.shape)
    first = module.init(jax.random.key(0), train=True)["spectral"]["u"]
    second = module.init(jax.random.key(0), train=False)["spectral"]["u"]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(first), 1, rtol=1e-6)


def test_gradient_of_a_normalised_kernel_holds_its_singular_vectors_fixed():
    """Miyato et al. 2018, eq. 12: W/σ with σ = vᵀWu differentiated in W, u and v constant."""
    module = layers.SpectralKernel((4, 3))
    w, c = normal(1, 4, 3), normal(2, 4, 3)
    start = np.array([1.0, 0.0, 0.0], np.float32)

    def loss(w: Array) -> Array:
        return (module.apply(spectral(start, w), train=False) * c).sum()

    wide = w.astype(np.float64)
    v = wide @ start / np.linalg.norm(wide @ start)
    u = v @ wide / np.linalg.norm(v @ wide)

    def slow(w: np.ndarray) -> float:
        return float((w / (v @ w @ u) * c).sum())

    steps = [1e-5 * e.reshape(w.shape) for e in np.eye(w.size)]
    expected = [(slow(wide + e) - slow(wide - e)) / 2e-5 for e in steps]
    np.testing.assert_allclose(jax.grad(loss)(w).ravel(), expected, rtol=1e-4, atol=1e-5)


def test_without_spectral_norm_the_kernel_is_plain():
    module = layers.SpectralKernel((4, 3), layers.Style(spectral_norm=False))
    variables = module.init(jax.random.key(0), train=True)
    assert set(variables) == {"params"}


# ---------------------------------------------------------------------------- other layers


def test_conv_and_dense_are_what_they_say():
    x, w = normal(3, 2, 4, 4, 2), KERNEL
    variables = {"params": {"w": {"kernel": w}, "bias": np.arange(5, dtype=np.float32)}}
    got = layers.Conv(5, 3, style=PLAIN).apply(variables, x, train=True)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.arange(5) + sum(
        padded[:, i : i + 4, j : j + 4] @ w[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    w, x = normal(4, 3, 5), normal(5, 7, 3)
    variables = {"params": {"w": {"kernel": w}, "bias": np.ones(5, np.float32)}}
    got = layers.Dense(5, style=PLAIN).apply(variables, x, train=True)
    np.testing.assert_allclose(got, x @ w + 1, atol=1e-5)


def test_batch_norm_normalises_and_its_moments_move_as_momentum_says():
    x = 3 + 2 * normal(6, 4, 5, 5, 3)
    ones, zeros = np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)
    norm = layers.BatchNorm(momentum=0.8)
    variables = norm.init(jax.random.key(0), x, ones, zeros, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], zeros[0])
    y, moved = norm.apply(variables, x, ones, zeros, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-4)
    stats = moved["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.2 * x.mean((0, 1, 2)), rtol=1e-5)
    # What is kept is unbiased, as in torch's batch_norm.
    np.testing.assert_allclose(stats["var"], 0.8 + 0.2 * x.var((0, 1, 2), ddof=1), rtol=1e-5)
    # Evaluation uses those, whatever else is in the batch; gain and bias may differ by row.
    gain, bias = normal(7, 4, 3), normal(8, 4, 3)
    y = norm.apply(moved, x, gain, bias, train=False)
    one = norm.apply(moved, x[2:3], gain[2:3], bias[2:3], train=False)
    np.testing.assert_allclose(one, y[2:3], rtol=1e-6)
    mean, var = np.asarray(stats["mean"]), np.asarray(stats["var"])
    expected = (x[2] - mean) / np.sqrt(var + 1e-5) * gain[2] + bias[2]
    np.testing.assert_allclose(one[0], expected, atol=1e-5)


def test_batch_norm_over_replicas_has_the_moments_of_the_whole_batch():
    x = 1 + normal(9, 4, 2, 2, 3)
    ones, zeros = np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)
    whole, parts = layers.BatchNorm(), layers.BatchNorm(layers.Style(axis_name="replicas"))
    variables = whole.init(jax.random.key(0), x, ones, zeros, train=True)

    def apply(norm: nn.Module, x: Array) -> Any:
        return norm.apply(variables, x, ones, zeros, train=True, mutable=["batch_stats"])

    expected, moved = apply(whole, x)
    halves = x.reshape(2, 2, 2, 2, 3)
    got, each = jax.vmap(lambda x: apply(parts, x), axis_name="replicas")(halves)
    np.testing.assert_allclose(got.reshape(x.shape), expected, atol=1e-5)
    for name in ("mean", "var"):
        for replica in each["batch_stats"][name]:
            np.testing.assert_allclose(replica, moved["batch_stats"][name], rtol=1e-5)


def test_attention_is_the_identity_at_gamma_0_and_only_there():
    x = normal(10, 2, 4, 4, 8)
    attention = layers.Attention()
    variables = filled(attention, x)
    assert attention.init(jax.random.key(0), x, train=True)["params"]["gamma"] == 0

    @jax.jit
    def apply(x: Array, gamma: float) -> Array:
        params = {**variables["params"], "gamma": gamma}
        return attention.apply({**variables, "params": params}, x, train=False)

    np.testing.assert_array_equal(apply(x, 0.0), x)
    y = apply(x, 0.5)
    assert np.abs(y - x).max() > 1e-2
    # It looks beyond the pixel: moving one corner moves the opposite one.
    moved = x.copy()
    moved[:, 0, 0] += 1.0
    assert np.abs(apply(moved, 0.5) - y)[:, 3, 3].max() > 1e-4


def test_batch_norm_is_exact_where_the_mean_is_large():
    """E[x²] − E[x]² loses all digits at mean 3000; about the running mean none are lost."""
    x = 3000 + normal(23, 8, 6, 6, 2)
    ones, zeros = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    norm = layers.BatchNorm()
    stats = {"batch_stats": {"mean": np.full(2, 2999.0, np.float32), "var": np.ones(2, np.float32)}}
    y = norm.apply(stats, x, ones, zeros, train=True)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-3)


def test_batch_norm_hands_out_its_moments_when_asked():
    x = normal(24, 3, 2, 2, 4)
    ones, zeros = np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, ones, zeros, train=True)
    assert set(variables) == {"batch_stats"}
    _, moved = norm.apply(variables, x, ones, zeros, train=True, mutable=["moments"])
    np.testing.assert_allclose(moved["moments"]["mean"], x.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(moved["moments"]["var"], x.var((0, 1, 2)), rtol=1e-5)


def test_conditional_batch_norm_takes_vectors_or_classes():
    x, condition, classes = normal(25, 3, 2, 2, 4), normal(26, 3, 5), np.array([2, 0, 2], np.int32)
    for kind, y, rows in ((0, condition, 5), (3, classes, 3)):
        norm = layers.ConditionalBatchNorm(kind, layers.Style(bn_eps=0.5))
        variables = filled(norm, x, y)
        kernels = {k: variables["params"][k]["w"]["kernel"] for k in ("gain", "bias")}
        assert kernels["gain"].shape == (rows, 4)
        assert ("spectral" in variables) == (kind == 0)  # tables have no spectral norm
        if kind == 0:
            scale = {k: np.linalg.svd(v)[1][0] for k, v in kernels.items()}
            kernels = {k: v / scale[k] for k, v in kernels.items()}
            for k, v in kernels.items():
                variables["spectral"][k]["w"]["u"] = np.linalg.svd(v)[2][0]
        gain, bias = (condition @ k if kind == 0 else k[classes] for k in kernels.values())
        mean, var = (variables["batch_stats"]["norm"][k] for k in ("mean", "var"))
        unit = (x - mean) / np.sqrt(var + 0.5)
        expected = unit * (1 + gain)[:, None, None] + bias[:, None, None]
        got = norm.apply(variables, x, y, train=False)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_attention_against_numpy():
    x = normal(27, 2, 4, 4, 16)
    attention = layers.Attention(PLAIN)
    variables = filled(attention, x)
    w = {k: v["w"]["kernel"][0, 0] for k, v in variables["params"].items() if k != "gamma"}

    def pooled(v: np.ndarray) -> np.ndarray:
        return v.reshape(2, 2, 2, 2, 2, -1).max((2, 4)).reshape(2, 4, -1)

    theta, phi, g = (x @ w["theta"]).reshape(2, 16, 2), pooled(x @ w["phi"]), pooled(x @ w["g"])
    scores = np.exp(theta @ phi.transpose(0, 2, 1))
    out = (scores / scores.sum(-1, keepdims=True) @ g).reshape(2, 4, 4, 8) @ w["o"]
    expected = x + variables["params"]["gamma"] * out
    np.testing.assert_allclose(attention.apply(variables, x, train=False), expected, atol=1e-5)


@pytest.mark.parametrize("name", layers.INITS)
def test_initialisations(name):
    kernel = layers.INITS[name](jax.random.key(0), (3, 3, 16, 32), jnp.float32)
    flat = np.asarray(kernel).reshape(-1, 32)
    if name == "orthogonal":
        np.testing.assert_allclose(flat.T @ flat, np.eye(32), atol=1e-5)
    else:
        # Xavier: uniform of variance 2 / (9 · 16 + 9 · 32); 4608 values know it to 5 %.
        std = 0.02 if name == "normal" else np.sqrt(2 / (9 * 48))
        np.testing.assert_allclose(flat.std(), std, rtol=0.05)
        np.testing.assert_allclose(flat.mean(), 0, atol=4 * std / np.sqrt(flat.size))
