"""BigGAN and BigGAN-deep: sizes against the original's, options, precision, rematerialisation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_tools import configured, count, filled, normal, shapes_of

from prpr import models
from prpr.models import architecture, biggan, layers

N = 4

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


def trained(module: nn.Module, inputs: np.ndarray, params: Any = None) -> Any:
    """The output in training mode, and what moved."""
    variables = filled(module, inputs, Y)
    mutable = [k for k in variables if k != "params"]
    if params is not None:
        variables = {**variables, "params": params}
    return module.apply(variables, inputs, Y, train=True, mutable=mutable)


def agree(a: Any, b: Any, tolerance: float) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for got, expected in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(got, expected, atol=tolerance * scale)


def test_rematerialisation_gives_the_same_gradients():
    for plain, remat, inputs in zip(pair(), pair(remat=True), (Z, X), strict=True):

        def gradients(module: nn.Module, inputs: np.ndarray = inputs) -> Any:
            def loss(params: Any) -> Any:
                y, moved = trained(module, inputs, params)
                return (y * normal(17, *y.shape)).sum(), (y, moved)

            return jax.jit(jax.grad(loss, has_aux=True))(filled(module, inputs, Y)["params"])

        agree(gradients(remat), gradients(plain), 2e-5)


def test_rematerialisation_is_of_every_block():
    for name, blocks in (("biggan", (1, 2)), ("biggan_deep", (2, 2))):
        for module, inputs, n in zip(pair(name=name, remat=True), (Z, X), blocks, strict=True):
            variables = filled(module, inputs, Y)
            trace = jax.make_jaxpr(lambda v, m=module, i=inputs: m.apply(v, i, Y, train=False))
            names = [eqn.primitive.name for eqn in trace(variables).eqns]
            assert sum(k.startswith(("remat", "checkpoint")) for k in names) == n


@pytest.mark.parametrize("name", ["biggan", "biggan_deep"])
def test_bfloat16_computes_near_float32_and_keeps_float32(name):
    for wide, narrow, inputs in zip(
        pair(name=name), pair(name=name, dtype="bfloat16"), (Z, X), strict=True
    ):
        assert shapes_of(wide, inputs, Y) == shapes_of(narrow, inputs, Y)  # dtypes included
        (expected, _), (got, moved) = (
            jax.jit(trained, static_argnums=0)(module, inputs) for module in (wide, narrow)
        )
        leaves = [got, *jax.tree.leaves(moved)]
        assert {leaf.dtype.name for leaf in leaves} == {"float32"}
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert 1e-6 < error < 0.05  # not equal: something was computed in bfloat16
        variables = filled(narrow, inputs, Y)
        trace = jax.make_jaxpr(lambda v, m=narrow, i=inputs: m.apply(v, i, Y, train=False))
        products = [t for t in str(trace(variables)).splitlines() if "conv_general_dilated" in t]
        assert products
        assert all("bf16" in t for t in products)


def test_a_plain_composition_gives_the_same_network():
    for module, inputs in zip(pair(), (Z, X), strict=True):
        plain = module.clone(style=layers.Style(fused=False))
        got, expected = (jax.jit(trained, static_argnums=0)(m, inputs) for m in (module, plain))
        agree(got, expected, 1e-5)


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
