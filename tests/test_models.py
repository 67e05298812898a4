"""Layers against NumPy, then every model × properties of its shape, rows, classes and latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import config, models, train
from prpr.errors import ConfigError
from prpr.models import layers

Array = jax.Array


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled(module: nn.Module, *inputs: np.ndarray) -> Any:
    """Random variables of a module; its own would hide much, such as attention with its γ = 0.

    (And compiling a BigGAN's orthogonal initial kernels takes longer than the tests do.)
    """
    rng = np.random.default_rng(14)

    def random(path: Any, leaf: Any) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        kind = path[-1].key
        if kind == "u":
            return noise / np.linalg.norm(noise)
        if kind == "kernel":
            return noise / np.sqrt(noise[..., 0].size, dtype=np.float32)
        return np.float32(kind in ("gamma", "gain", "var")) + np.float32(0.1) * np.tanh(noise)

    shapes = jax.eval_shape(lambda k: module.init(k, *inputs, train=True), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(random, shapes)


# ---------------------------------------------------------------------------- spectral norm

KERNEL = normal(0, 3, 3, 2, 5)  # (18, 5) once flat; the initial orthogonal one has no direction


def spectral(u: np.ndarray, kernel: np.ndarray = KERNEL) -> dict[str, Any]:
    return {"params": {"kernel": jnp.asarray(kernel)}, "spectral": {"u": jnp.asarray(u)}}


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
    module = layers.SpectralKernel((4, 3), spectral_norm=False)
    variables = module.init(jax.random.key(0), train=True)
    assert set(variables) == {"params"}


# ---------------------------------------------------------------------------- other layers


def test_conv_and_dense_are_what_they_say():
    x, w = normal(3, 2, 4, 4, 2), KERNEL
    variables = {"params": {"w": {"kernel": w}, "bias": np.arange(5, dtype=np.float32)}}
    got = layers.Conv(5, 3, spectral_norm=False).apply(variables, x, train=True)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.arange(5) + sum(
        padded[:, i : i + 4, j : j + 4] @ w[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    w, x = normal(4, 3, 5), normal(5, 7, 3)
    variables = {"params": {"w": {"kernel": w}, "bias": np.ones(5, np.float32)}}
    got = layers.Dense(5, spectral_norm=False).apply(variables, x, train=True)
    np.testing.assert_allclose(got, x @ w + 1, atol=1e-5)


def test_batch_norm_normalises_and_its_moments_move_as_momentum_says():
    x = 3 + 2 * normal(6, 4, 5, 5, 3)
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    norm = layers.BatchNorm(momentum=0.8)
    variables = norm.init(jax.random.key(0), x, ones, zeros, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], zeros)
    y, moved = norm.apply(variables, x, ones, zeros, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-4)
    stats = moved["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.2 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.8 + 0.2 * x.var((0, 1, 2)), rtol=1e-4)
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
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    whole, parts = layers.BatchNorm(), layers.BatchNorm(axis_name="replicas")
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


def test_resampling_pairs():
    x = normal(11, 2, 4, 4, 3)
    np.testing.assert_allclose(layers.downsample(layers.upsample(x)), x, rtol=1e-6)
    assert layers.upsample(x).shape == (2, 8, 8, 3)
    cell = np.tile(x[:, 1:2, 3:4], (1, 2, 2, 1))
    np.testing.assert_array_equal(layers.upsample(x)[:, 2:4, 6:8], cell)
    mean = x[0, 2:4, 0:2].mean((0, 1))
    np.testing.assert_allclose(layers.downsample(x)[0, 1, 0], mean, rtol=1e-5)


# ---------------------------------------------------------------------------- models by name

MODELS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "mlp": ((2,), 1, {"name": "mlp", "dim_z": 3, "generator_ch": 8, "critic_ch": 8}),
    "mlp classes": ((3,), 4, {"name": "mlp", "dim_z": 2, "generator_ch": 8, "critic_ch": 8}),
    "biggan 8": (
        (8, 8, 1),
        3,
        {"dim_z": 4, "generator_ch": 8, "critic_ch": 8, "shared_dim": 5, "attention_at": (8,)},
    ),
    "biggan 32": (
        (32, 32, 3),
        3,
        {"dim_z": 8, "generator_ch": 2, "critic_ch": 2, "shared_dim": 4, "attention_at": (16,)},
    ),
}
STEPPED = ("mlp classes", "biggan 8")
N = 4


def configured(**model: Any) -> Any:
    cfg = config.defaults()
    for key, value in {"name": "biggan", "critic_spectral_norm": True, **model}.items():
        cfg.model[key] = value
    return cfg


class Built(NamedTuple):
    name: str
    shape: tuple[int, ...]
    num_classes: int
    dim_z: int
    generator: nn.Module
    critic: nn.Module
    made: train.Net
    judged: train.Net
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    sample: Callable[..., Array]
    judge: Callable[..., Array]


@pytest.fixture(scope="module", params=MODELS)
def built(request: pytest.FixtureRequest) -> Built:
    shape, num_classes, model = MODELS[request.param]
    generator, critic = models.build(configured(**model), shape, num_classes)
    z, x = normal(12, N, model["dim_z"]), np.tanh(normal(13, N, *shape))
    y = np.arange(N, dtype=np.int32) % num_classes

    def net(module: nn.Module, *inputs: np.ndarray) -> train.Net:
        return train.split(filled(module, *inputs))

    return Built(
        request.param,
        shape,
        num_classes,
        model["dim_z"],
        generator,
        critic,
        net(generator, z, y),
        net(critic, x, y),
        z,
        y,
        x,
        jax.jit(lambda net, z, y: train.apply_frozen(generator, net, z, y)),
        jax.jit(lambda net, x, y: train.apply_frozen(critic, net, x, y)),
    )


def test_shapes_dtypes_and_ranges(built):
    images = built.sample(built.made, built.z, built.y)
    out = built.judge(built.judged, built.x, built.y)
    assert images.shape == (N, *built.shape)
    assert out.shape == (N,)
    assert images.dtype == out.dtype == np.float32
    assert np.isfinite(images).all()
    assert np.isfinite(out).all()
    if "biggan" in built.name:
        assert np.abs(images).max() < 1
    assert images.std() > 1e-3
    assert out.std() > 1e-4
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves((built.made, built.judged))}
    assert dtypes == {"float32"}


def test_an_output_depends_on_its_own_row(built):
    """In evaluation for the generator; the critic's training pass, which has no batch norm, too."""
    z, x = built.z.copy(), built.x.copy()
    z[1:], x[1:] = z[:0:-1], x[:0:-1] + 0.3
    y = np.concatenate([built.y[:1], built.y[:0:-1]])
    before, after = (built.sample(built.made, *a) for a in ((built.z, built.y), (z, y)))
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    assert np.abs(after[1:] - before[1:]).max() > 1e-4
    before, after = (built.judge(built.judged, *a) for a in ((built.x, built.y), (x, y)))
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    assert np.abs(after[1:] - before[1:]).max() > 1e-4


def test_classes_matter_where_there_are_several(built):
    y = ((built.y + 1) % built.num_classes).astype(np.int32)
    same_x = built.sample(built.made, built.z, built.y) - built.sample(built.made, built.z, y)
    same_out = built.judge(built.judged, built.x, built.y) - built.judge(built.judged, built.x, y)
    for change in (same_x.reshape(N, -1), same_out.reshape(N, 1)):
        assert (np.abs(change).max(1) > 1e-5).all() == (built.num_classes > 1)


def test_every_chunk_of_the_latent_matters(built):
    """For a BigGAN chunk i > 0 reaches block i − 1 by its batch norms ("hierarchical z")."""
    before = built.sample(built.made, built.z, built.y)
    for i in range(built.dim_z):
        z = built.z.copy()
        z[:, i] += 1.0
        change = np.abs(built.sample(built.made, z, built.y) - before).reshape(N, -1)
        assert (change.max(1) > 1e-5).all(), i


def test_one_step_lowers_the_loss_and_moves_every_parameter(built):
    """Gradient descent on a generator's distance to targets, and on a critic's logistic loss."""
    if built.name not in STEPPED:
        pytest.skip("the same code as that of another model; a gradient is dear to compile")

    def loss_of_generator(params: Any) -> Array:
        variables = {"params": params, **built.made.extra}
        out, _ = built.generator.apply(
            variables, built.z, built.y, train=True, mutable=list(built.made.extra)
        )
        return jnp.square(out - built.x).mean()

    def loss_of_critic(params: Any) -> Array:
        variables = {"params": params, **built.judged.extra}
        out, _ = built.critic.apply(
            variables, built.x, built.y, train=True, mutable=list(built.judged.extra)
        )
        return jax.nn.softplus(jnp.where(built.y % 2 == 0, out, -out)).mean()

    for loss, params in (
        (loss_of_generator, built.made.params),
        (loss_of_critic, built.judged.params),
    ):
        both = jax.jit(jax.value_and_grad(loss))
        before, gradient = both(params)
        step = 1e-2 / optax.tree.norm(gradient)
        after, _ = both(jax.tree.map(lambda w, g, s=step: w - s * g, params, gradient))
        assert after < before
        # By a good part of what the slope promises: the gradient is this loss's.
        assert before - after > 0.5 * 1e-2 * optax.tree.norm(gradient)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


# ---------------------------------------------------------------------------- sizes


def count(module: nn.Module, *inputs: Array) -> int:
    shapes = jax.eval_shape(lambda k: module.init(k, *inputs, train=True), jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes["params"]))


def test_parameters_at_32_against_the_original():
    """BigGAN-PyTorch's CIFAR-10 models, ch 64, have 4,304,387 (G) and 4,207,361 (D) parameters.

    The critic is the same. The original's generator there has neither a shared embedding nor
    hierarchical latents: its first layer maps all 128 latents to 4·4·256, (128 + 1)·4096, and
    each of its 6 batch norms has tables of 10 classes for gain and bias, 2·10·256. Ours splits
    the latent in four, (32 + 1)·4096, embeds classes once, 10·128, and each batch norm has
    matrices from 128 + 32 for gain and bias, 2·160·256. All else is equal.
    """
    cfg = configured(dim_z=128, shared_dim=128, generator_ch=64, critic_ch=64, attention_at=())
    generator, critic = models.build(cfg, (32, 32, 3), 10)
    y = jnp.zeros((1,), jnp.int32)
    assert count(critic, jnp.zeros((1, 32, 32, 3)), y) == 4_207_361
    ours = 33 * 4096 + 10 * 128 + 6 * 2 * 160 * 256
    original = 129 * 4096 + 6 * 2 * 10 * 256
    assert count(generator, jnp.zeros((1, 128)), y) - ours == 4_304_387 - original


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("shape", "model", "message"),
    [
        ((8, 8, 1), {"name": "bigan"}, "Did you mean 'biggan'"),
        ((2,), {}, r"config.model.name = 'biggan' makes square images.*shape \(2,\)"),
        ((8, 8, 1), {"name": "mlp"}, "config.model.name = 'mlp' makes points"),
        ((8, 16, 1), {}, "square images, and the data's are 8 x 16"),
        ((16, 16, 1), {}, "unknown BigGAN resolution 16"),
        ((8, 8, 1), {"dim_z": 5}, "config.model.dim_z = 5: must be a multiple of 2"),
        ((32, 32, 3), {"dim_z": 6}, "config.model.dim_z = 6: must be a multiple of 4"),
        ((8, 8, 1), {"attention_at": (16,)}, r"attention_at = 16: must be among \[4, 8\]"),
        # No block of either network ends at the side of the generator's first layer.
        ((32, 32, 3), {"attention_at": (4,)}, r"attention_at = 4: must be among \[8, 16, 32\]"),
        (
            (8, 8, 1),
            {"attention_at": (8,), "generator_ch": 4},
            "config.model.generator_ch = 4: .*at least 8 channels",
        ),
        (
            (32, 32, 3),
            {"attention_at": (16,), "critic_ch": 1},
            "config.model.critic_ch = 1: .*at least 8 channels",
        ),
    ],
)
def test_what_cannot_be_built_names_its_knob(shape, model, message):
    with pytest.raises(ConfigError, match=message):
        models.build(configured(**{"dim_z": 8, **model}), shape, 10)
