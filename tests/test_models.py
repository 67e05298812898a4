"""Every model × properties of its shape, rows, classes and latents; sizes; options; errors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from model_tools import count, filled, normal, shapes_of

from prpr import config, models, train
from prpr.errors import ConfigError
from prpr.models import architecture, biggan, layers

Array = jax.Array

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

LABEL = jnp.zeros((1,), jnp.int32)


def parameters(module: nn.Module, *inputs: Any) -> int:
    return count(shapes_of(module, *inputs)["params"])


# Counted with BigGAN-PyTorch's own classes: 3 image channels, 1000 classes (10 for the first two
# rows), shared_dim 128, hierarchical unless told; BigGAN-deep with 2 blocks a stage. The original
# has no critic at 512. None: not counted there.
CIFAR = {"hierarchical": False, "shared_embedding": False}
ORIGINAL: list[tuple[int, int, int, tuple[int, ...], dict[str, Any], int, int | None]] = [
    (32, 64, 128, (), CIFAR, 4_304_387, 4_207_361),
    (32, 64, 128, (), {"hierarchical": False}, 4_668_163, None),
    (64, 64, 120, (32,), {}, 31_969_540, 20_571_842),
    (128, 32, 120, (64,), {}, 8_543_300, 10_120_802),
    (128, 96, 120, (64,), {}, 70_433_988, 87_982_370),
    (256, 96, 119, (64,), {}, 82_108_548, 99_225_890),
    (512, 64, 120, (64,), {}, 37_298_628, None),
    (64, 128, 128, (32,), {"name": "biggan_deep"}, 49_829_636, 20_951_554),
    (128, 128, 128, (64,), {"name": "biggan_deep"}, 50_244_484, 34_590_210),
    (256, 128, 128, (64,), {"name": "biggan_deep"}, 55_736_708, 38_247_426),
]


@pytest.mark.parametrize(("side", "ch", "dim_z", "at", "model", "generator", "critic"), ORIGINAL)
def test_parameters_are_as_many_as_the_originals(side, ch, dim_z, at, model, generator, critic):
    cfg = configured(
        **{"dim_z": dim_z, "generator_ch": ch, "critic_ch": ch, "attention_at": at, **model}
    )
    nets = models.build(cfg, (side, side, 3), 10 if side == 32 else 1000)
    assert parameters(nets[0], jnp.zeros((1, dim_z)), LABEL) == generator
    if critic is not None:
        assert parameters(nets[1], jnp.zeros((1, side, side, 3)), LABEL) == critic


@pytest.mark.parametrize("name", ["biggan", "biggan_deep"])
@pytest.mark.parametrize("side", architecture.ARCHITECTURES)
def test_every_resolution_makes_and_takes_its_images(side, name):
    """Shapes only: the widest take minutes to compute."""
    slots = len(architecture.ARCHITECTURES[side].generator_in) + 1
    at = (side // 2,) if side > 8 else (8,)
    cfg = configured(
        name=name, dim_z=2 * slots, generator_ch=8, critic_ch=8, attention_at=at, remat=True
    )
    generator, critic = models.build(cfg, (side, side, 3), 4)
    z, x = jnp.zeros((2, 2 * slots)), jnp.zeros((2, side, side, 3))
    y = jnp.zeros((2,), jnp.int32)
    made, judged = shapes_of(generator, z, y), shapes_of(critic, x, y)

    def out(module: nn.Module, variables: Any, inputs: Any) -> Any:
        return jax.eval_shape(lambda v: module.apply(v, inputs, y, train=False), variables)

    assert out(generator, made, z).shape == (2, side, side, 3)
    assert out(critic, judged, x).shape == (2,)
    # The generator's side doubles from 4 with every stage; one attention a side and network.
    blocks = architecture.generator_blocks(side)
    assert [b.side for b in blocks] == [8 * 2**i for i in range(len(blocks))]
    assert blocks[-1].side == side
    assert sum(name.startswith("attention") for name in made["params"]) == 1
    assert architecture.critic_blocks(side)[-1].side == (8 if side == 32 else 4)


def test_the_critic_mirrors_the_generator_from_128_on():
    """So the row for 512, whose critic the original lacks, follows from its generator's."""
    for side in (128, 256, 512):
        arch = architecture.ARCHITECTURES[side]
        assert arch.critic_out == (1, *reversed(arch.generator_in))
        assert arch.generator_out[:-1] == arch.generator_in[1:]


# ---------------------------------------------------------------------------- options

SMALL = {"dim_z": 4, "generator_ch": 8, "critic_ch": 8, "shared_dim": 5, "attention_at": (8,)}


def pair(**model: Any) -> tuple[nn.Module, nn.Module]:
    return models.build(configured(**{**SMALL, **model}), (8, 8, 1), 3)


Z, X, Y = normal(15, N, 4), np.tanh(normal(16, N, 8, 8, 1)), np.array([0, 1, 2, 0], np.int32)


def values_and_gradients(generator: nn.Module, critic: nn.Module) -> Any:
    """Outputs in training mode, what moved, and gradients of random sums, of both networks."""
    out = []
    for module, inputs in ((generator, Z), (critic, X)):
        variables = filled(module, inputs, Y)

        def loss(params: Any, module=module, inputs=inputs, variables=variables) -> Any:
            mutable = [k for k in variables if k != "params"]
            y, moved = module.apply(
                {**variables, "params": params}, inputs, Y, train=True, mutable=mutable
            )
            return (y * normal(17, *y.shape)).sum(), (y, moved)

        out.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"]))
    return out


@pytest.mark.parametrize("name", ["biggan", "biggan_deep"])
def test_rematerialisation_changes_memory_only(name):
    plain = values_and_gradients(*pair(name=name))
    remat = pair(name=name, remat=True)
    again = values_and_gradients(*remat)
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1.0, np.abs(a).max()))
    # And it does recompute: the primitive is there, once a block.
    variables = filled(remat[0], Z, Y)
    trace = jax.make_jaxpr(lambda v: remat[0].apply(v, Z, Y, train=False))(variables)
    n = sum(eqn.primitive.name.startswith(("remat", "checkpoint")) for eqn in trace.eqns)
    assert n == (1 if name == "biggan" else 2)


@pytest.mark.parametrize("name", ["biggan", "biggan_deep"])
def test_bfloat16_computes_near_float32_and_keeps_float32(name):
    wide, narrow = pair(name=name), pair(name=name, dtype="bfloat16")
    for a, b, inputs in zip(wide, narrow, (Z, X), strict=True):
        variables = filled(a, inputs, Y)
        assert shapes_of(a, inputs, Y) == shapes_of(b, inputs, Y)  # dtypes included
        mutable = [k for k in variables if k != "params"]
        expected, _ = a.apply(variables, inputs, Y, train=True, mutable=mutable)
        got, moved = b.apply(variables, inputs, Y, train=True, mutable=mutable)
        leaves = [got, *jax.tree.leaves(moved)]
        assert {leaf.dtype.name for leaf in leaves} == {"float32"}
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert 1e-6 < error < 0.05  # not equal: something was computed in bfloat16
    trace = str(jax.make_jaxpr(lambda v: b.apply(v, X, Y, train=False))(variables))
    products = [t for t in trace.splitlines() if "conv_general_dilated" in t]
    assert products
    assert all("bf16" in t for t in products)


def test_a_plain_composition_gives_the_same_network():
    fused = pair()
    plain = [m.clone(style=layers.Style(fused=False)) for m in fused]
    a, b = values_and_gradients(*fused), values_and_gradients(*plain)
    for got, expected in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))


def test_without_hierarchy_blocks_see_the_class_only():
    flat = pair(hierarchical=False)[0]
    params = shapes_of(flat, Z, Y)["params"]
    assert params["linear"]["w"]["kernel"].shape == (4, 8 * 16)
    assert params["block0"]["norm1"]["gain"]["w"]["kernel"].shape == (5, 8)
    tables = shapes_of(pair(hierarchical=False, shared_embedding=False)[0], Z, Y)
    assert "shared" not in tables["params"]
    assert tables["params"]["block0"]["norm1"]["gain"]["w"]["kernel"].shape == (3, 8)
    assert "gain" not in tables["spectral"]["block0"].get("norm1", {})


def test_knobs_reach_every_layer():
    """ε, initialisation and the devices' axis, each found in the style of both networks."""
    cfg = configured(**SMALL, sn_eps=1e-4, bn_eps=1e-3, init="xavier", dtype="bfloat16")
    generator, critic = models.build(cfg, (8, 8, 1), 3, axis_name="devices")
    expected = layers.Style(True, 1e-4, 1e-3, "xavier", "bfloat16", "devices")
    assert generator.style == critic.style == expected
    cfg = configured(**SMALL, generator_spectral_norm=False)
    generator, critic = models.build(cfg, (8, 8, 1), 3)
    assert not generator.style.spectral_norm
    assert critic.style.spectral_norm


def test_the_last_convolution_may_make_more_channels_than_the_image_has():
    """As BigGAN-deep on TensorFlow Hub: σ is that of all, the image is the first ones."""
    make = biggan.Generator(8, 3, 3, ch=8, dim_z=4, shared_dim=5, deep=True, depth=2)
    wide = make.clone(output_ch=8)
    variables = filled(wide, Z, Y)
    kernel = variables["params"]["conv_out"]["w"]["kernel"]
    assert kernel.shape == (3, 3, 8, 8)
    out = wide.apply(variables, Z, Y, train=False)
    assert out.shape == (N, 8, 8, 3)
    variables["params"]["conv_out"]["w"]["kernel"] = kernel * np.where(np.arange(8) < 3, 1, 0)
    assert np.abs(wide.apply(variables, Z, Y, train=False) - out).max() > 1e-4


def test_deep_attention_stands_at_the_end_of_a_stage():
    """Where the original has it, and TensorFlow Hub's: after blocks 2 i + 1, once a side."""
    cfg = configured(name="biggan_deep", **{**SMALL, "attention_at": (64,)})
    generator, critic = models.build(cfg, (128, 128, 3), 3)
    made = shapes_of(generator, Z, Y)["params"]
    judged = shapes_of(critic, jnp.zeros((N, 128, 128, 3)), Y)["params"]
    assert [name for name in made if "attention" in name] == ["attention7"]
    assert [name for name in judged if "attention" in name] == ["attention1"]
    assert sum("block" in name for name in made) == 10


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("shape", "model", "message"),
    [
        ((8, 8, 1), {"name": "bigan"}, "Did you mean 'biggan'"),
        ((2,), {}, r"config.model.name = 'biggan' makes square images.*shape \(2,\)"),
        ((8, 8, 1), {"name": "mlp"}, "config.model.name = 'mlp' makes points"),
        ((2,), {"name": "biggan_deep"}, "config.model.name = 'biggan_deep' makes square images"),
        ((2,), {"name": "mlp", "dtype": "bfloat16"}, "config.model.dtype = 'bfloat16'"),
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
