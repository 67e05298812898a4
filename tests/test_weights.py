"""weights: a folder that is whole, typed and of one model, or an error that says what is not."""

import sys

import jax
import numpy as np
import pytest

from prpr import checkpoint, weights
from prpr.errors import CheckpointError, ConfigError
from prpr.weights import Weights

MODEL = {
    "name": "biggan", "generator_ch": 8, "critic_ch": 8, "dim_z": 4, "shared_dim": 3,
    "attention_at": [8], "hierarchical": True, "shared_embedding": True,
    "generator_spectral_norm": True, "critic_spectral_norm": True, "sn_eps": 1e-6, "bn_eps": 1e-5,
}  # fmt: skip
SIZE = {"resolution": 8, "num_classes": 3}
ALONE = {k: v for k, v in MODEL.items() if not k.startswith("critic_")}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def random(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(s.dtype), tree)


@pytest.fixture(scope="module")
def whole():
    generator = weights.shapes(MODEL, **SIZE, network="generator")
    critic = weights.shapes(MODEL, **SIZE, network="critic")

    def adam(params, seed):
        count = np.array(7, np.int32)
        return {"mu": random(params, seed), "nu": random(params, seed + 1), "count": count}

    return Weights(
        random(generator, 0),
        random(generator, 1),
        random(critic, 2),
        adam(generator["params"], 3),
        adam(critic["params"], 5),
    )


def write(directory, held, model=MODEL, **options):
    source = {"family": "a test", "files": {"generator": "G.pth"}}
    weights.write_weights(directory, held, model=model, **SIZE, source=source, **options)


def alone(whole):
    return Weights(whole.generator, whole.ema)


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("part", ["whole", "alone"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, whole, part):
    held, model = (whole, MODEL) if part == "whole" else (alone(whole), ALONE)
    write(tmp_path / "w", held, model)
    got, info = weights.read_weights(tmp_path / "w")
    assert_identical(got.present(), held.present())
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(got.present()))
    assert (got.critic is None) == (part == "alone")
    assert info == weights.read_info(tmp_path / "w")
    assert info.model == model
    assert (info.resolution, info.num_classes) == (8, 3)
    assert info.has_critic == (part == "whole")
    assert info.optimizers == (("generator_opt", "critic_opt") if part == "whole" else ())
    assert info.source["files"] == {"generator": "G.pth"}
    assert weights.is_weights(tmp_path / "w")


def test_arrays_of_another_model_are_listed_and_not_written(tmp_path, whole):
    bad = jax.tree.map(lambda x: x, whole.generator)
    kernel = bad["params"]["linear"]["w"].pop("kernel")
    bad["params"]["conv_out"]["bias"] = bad["params"]["conv_out"]["bias"][:2]
    bad["params"]["odd"] = kernel
    bad["extra"]["spectral"]["linear"]["w"]["u"] = kernel[0].astype(np.float64)
    with pytest.raises(CheckpointError) as error:
        write(tmp_path / "w", Weights(bad, whole.ema), ALONE)
    for line in (
        "generator/params/linear/w/kernel: missing",
        "generator/params/odd: not in the model",
        "generator/params/conv_out/bias: float32 (2,) instead of float32 (3,)",
        "generator/extra/spectral/linear/w/u: float64",
    ):
        assert line in str(error.value)
    assert not (tmp_path / "w").exists()


def test_what_is_there_is_refused_and_only_weights_are_replaced(tmp_path, whole):
    held = alone(whole)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", held, ALONE)
    with pytest.raises(CheckpointError, match=r"exists: .*--overwrite"):
        write(tmp_path / "empty", held, ALONE)
    write(tmp_path / "empty", whole, overwrite=True)
    assert weights.read_info(tmp_path / "empty").has_critic

    checkpoint.save(tmp_path / "run", 5, {"x": np.ones(2)}, {"config": {}})
    with pytest.raises(CheckpointError, match="something other than converted weights"):
        write(tmp_path / "run", held, ALONE, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        write(tmp_path / "file", held, ALONE)
    # What a killed conversion leaves does not have to be tidied by hand.
    (tmp_path / "killed" / "tmp.step_00000000").mkdir(parents=True)
    write(tmp_path / "killed", held, ALONE)
    assert weights.is_weights(tmp_path / "killed")


def test_what_is_no_weights_is_told(tmp_path, whole):
    with pytest.raises(CheckpointError, match=r"no weights in .*--out"):
        weights.read_weights(tmp_path / "nowhere")
    assert not weights.is_weights(tmp_path / "nowhere")
    checkpoint.save(tmp_path / "run", 5, {"x": np.ones(2)}, {"config": {}})
    assert not weights.is_weights(tmp_path / "run")
    with pytest.raises(CheckpointError, match="a checkpoint of a run"):
        weights.read_info(tmp_path / "run")
    checkpoint.save(tmp_path / "old", 0, {"x": np.ones(2)}, {"kind": "weights", "model": {}})
    with pytest.raises(CheckpointError, match=r"another version.*resolution.*convert again"):
        weights.read_info(tmp_path / "old")
    write(tmp_path / "damaged", alone(whole), ALONE)
    largest = max(
        (p for p in (tmp_path / "damaged").rglob("*") if p.is_file()),
        key=lambda p: (p.suffix != ".json", p.stat().st_size),
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="damaged"):
        weights.read_weights(tmp_path / "damaged")


def test_every_difference_from_a_configuration_is_listed_with_its_mend(tmp_path, whole):
    write(tmp_path / "w", whole)
    info = weights.read_info(tmp_path / "w")
    fitting = {**MODEL, "attention_at": (8,), "dtype": "bfloat16", "remat": True}
    assert weights.differences(info, fitting, 8, 3) == []
    weights.check(tmp_path / "w", info, fitting, 8, 3)

    other = {**fitting, "generator_ch": 16, "critic_ch": 4, "attention_at": (4, 8)}
    with pytest.raises(CheckpointError) as error:
        weights.check(tmp_path / "w", info, other, 32, 2)
    for line in (
        "config.model.generator_ch is 16, the weights have 8: set --config.model.generator_ch=8",
        "config.model.critic_ch is 4, the weights have 8",
        "config.model.attention_at is (4, 8), the weights have (8,): set "
        "--config.model.attention_at=8",
        "the data is 32 x 32, the weights make 8 x 8: set --config.data.resolution=8",
        "the data has 2 classes, the weights have 3",
    ):
        assert line in str(error.value)


def test_images_of_other_channels_are_a_difference(tmp_path, whole):
    write(tmp_path / "w", whole)
    info = weights.read_info(tmp_path / "w")
    weights.check(tmp_path / "w", info, MODEL, 8, 3, channels=3)
    with pytest.raises(CheckpointError, match=r"data has 1 channels, the weights 3: use colour"):
        weights.check(tmp_path / "w", info, MODEL, 8, 3, channels=1)


def test_a_knob_that_no_model_has_is_refused():
    with pytest.raises(ConfigError, match=r"unknown knob of config\.model 'dimz'.*'dim_z'"):
        weights.networks({**MODEL, "dimz": 4}, 8, 3)


def test_a_generator_alone_asks_nothing_of_the_critic(tmp_path, whole):
    write(tmp_path / "w", alone(whole), ALONE)
    info = weights.read_info(tmp_path / "w")
    assert weights.differences(info, {**MODEL, "critic_ch": 32}, 8, 3) == []
