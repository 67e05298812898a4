"""Every model × properties of its shape, rows, classes and latents; errors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_tools import configured, filled, normal

from prpr import models, train
from prpr.errors import ConfigError
from prpr.models import small

Array = jax.Array

# ---------------------------------------------------------------------------- models by name

MODELS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "mlp": ((2,), 1, {"name": "mlp", "dim_z": 3, "generator_ch": 8, "critic_ch": 8}),
    "mlp classes": ((3,), 4, {"name": "mlp", "dim_z": 2, "generator_ch": 8, "critic_ch": 8}),
    "mlp fourier": (
        (2,),
        1,
        {"name": "mlp", "dim_z": 2, "generator_ch": 8, "critic_ch": 8}
        | {"critic_spectral_norm": False, "fourier": 2.0},
    ),
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
    "biggan_deep 8": (
        (8, 8, 1),
        3,
        {"name": "biggan_deep", "dim_z": 3, "generator_ch": 8, "critic_ch": 8, "shared_dim": 5},
    ),
    "biggan 8 by class": (
        (8, 8, 1),
        3,
        {"dim_z": 3, "generator_ch": 4, "critic_ch": 4}
        | {"hierarchical": False, "shared_embedding": False},
    ),
}
STEPPED = ("mlp classes", "biggan 8", "biggan_deep 8")
N = 4


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


def test_fourier_features_let_a_critic_see_what_is_small():
    """Rings of a tenth of a unit against rings between them: few steps suffice, with features."""
    rng = np.random.default_rng(0)
    rank = rng.integers(0, 6, (2, 512))
    radius = 1.0 + (rank + np.array([[0.0], [0.5]])) * 0.4
    angle = rng.uniform(0, 2 * np.pi, (2, 512))
    real, fake = jnp.asarray(
        np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1), jnp.float32
    )
    y, loss = jnp.zeros(512, jnp.int32), {}
    for fourier in (0.0, 3.0):
        critic = small.Critic(width=64, fourier=fourier)
        params = critic.init(jax.random.key(0), real, y, train=False)["params"]
        assert ("frequencies" in params) == bool(fourier)

        def value(params: Any, critic: small.Critic = critic) -> Array:
            real_out, fake_out = (
                critic.apply({"params": params}, x, y, train=False) for x in (real, fake)
            )
            return jax.nn.softplus(-real_out).mean() + jax.nn.softplus(fake_out).mean()

        def step(
            carry: tuple[Any, Any], _: None, value: Any = value
        ) -> tuple[tuple[Any, Any], Array]:
            params, moments = carry
            found, gradient = jax.value_and_grad(value)(params)
            moments = jax.tree.map(lambda m, g: 0.9 * m + g, moments, gradient)
            return (jax.tree.map(lambda p, m: p - 0.03 * m, params, moments), moments), found

        start = (params, jax.tree.map(jnp.zeros_like, params))
        loss[fourier] = float(jax.lax.scan(step, start, length=200)[1][-1])
    assert loss[3.0] < 0.6 * loss[0.0]


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("shape", "model", "message"),
    [
        ((8, 8, 1), {"name": "bigan"}, "Did you mean 'biggan'"),
        ((2,), {}, r"config.model.name = 'biggan' makes square images.*shape \(2,\)"),
        ((8, 8, 1), {"name": "mlp"}, "config.model.name = 'mlp' makes points"),
        ((2,), {"name": "biggan_deep"}, "config.model.name = 'biggan_deep' makes square images"),
        ((2,), {"name": "mlp", "dtype": "bfloat16"}, "config.model.dtype = 'bfloat16'"),
        ((2,), {"name": "mlp", "fourier": 1.0}, "config.model.fourier = 1.0.*no Lipschitz bound"),
        ((8, 8, 3), {"output_ch": 2}, "config.model.output_ch = 2: the images have 3 channels"),
        ((8, 16, 1), {}, "square images, and the data's are 8 x 16"),
        ((16, 16, 1), {}, "unknown BigGAN resolution 16"),
        ((8, 8, 1), {"dim_z": 5}, "config.model.dim_z = 5: must be a multiple of 2"),
        ((32, 32, 3), {"dim_z": 6}, "dim_z = 6: must be a multiple of 4.*use 4 or 8, or"),
        ((32, 32, 3), {"dim_z": 3}, "dim_z = 3: must be a multiple of 4.*use 4, or"),
        ((8, 8, 1), {"shared_embedding": False}, "set config.model.hierarchical = False too"),
        (
            (8, 8, 1),
            {"name": "biggan_deep", "hierarchical": False},
            "config.model.hierarchical = False: every block of biggan_deep sees z",
        ),
        (
            (8, 8, 1),
            {"name": "biggan_deep", "critic_ch": 3},
            "config.model.critic_ch = 3: .*use at least 4",
        ),
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
