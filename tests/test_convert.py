"""convert: equal to what the original computed, whole or not at all, both ways bit for bit.

tests/fixtures/biggan holds what the original did on random weights; none of it needs PyTorch to
be read. tests/peer does the same at realistic sizes, against a checkout of the original.
"""

import configparser
import json
import os
import pickle
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures import biggan_equality as equality
from fixtures.make_biggan_fixtures import CASES, HERE, STRIDE, inputs, load

from prpr import convert, weights
from prpr.convert import huggingface, names, pth
from prpr.errors import CheckpointError, ConfigError, DataError, PrprError, WorkdirError
from prpr.weights import Weights

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", params=CASES)
def record(request):
    return load(HERE / f"{request.param}.npz")


@pytest.fixture(scope="module")
def converted(record):
    return equality.converted(record)


@pytest.fixture(scope="module")
def plain():
    return load(HERE / "plain32.npz")


@pytest.fixture(scope="module")
def hier():
    return load(HERE / "hier64.npz")


def states(record, **changes):
    """{"generator", "critic": state dict}; changes: {"G": {name: array, or None to drop}}."""
    out = {}
    for net, key in (("G", "generator"), ("D", "critic")):
        state = {**equality.network(record, net), **changes.get(net, {})}
        out[key] = {name: value for name, value in state.items() if value is not None}
    return out


@pytest.fixture(scope="module")
def deep():
    return load(HERE / "deep64.npz")


@pytest.fixture(scope="module")
def published():
    return equality.network(load(HERE / "huggingface128.npz"), "G")


def made(resolution, **knobs):
    """{"G", "D": state dict} of random weights of a BigGAN-deep, by the original's names."""
    model = {"name": "biggan_deep", "generator_ch": 2, "critic_ch": 2, "dim_z": 3, "shared_dim": 2}
    model |= knobs
    rng = np.random.default_rng(0)
    generator, critic = (
        jax.tree.map(
            lambda s: rng.standard_normal(s.shape).astype(s.dtype),
            weights.shapes(model, resolution, 5, network),
        )
        for network in ("generator", "critic")
    )
    return convert.to_states(Weights(generator, generator, critic), model, {})


def assert_same_states(got, want):
    assert list(got) == list(want)
    for name in want:
        assert got[name].shape == want[name].shape, name
        assert got[name].dtype == want[name].dtype, name
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


# ------------------------------------------------------------------------------- equality


def test_outputs_are_the_originals(record, converted):
    seen = equality.evaluate(converted, equality.case_of(record))
    equality.assert_equal(seen, record, rtol=1e-4, grad_rtol=0)


@pytest.mark.slow
def test_training_passes_and_gradients_are_the_originals(record, converted):
    """Outputs, u, σ and running moments after a pass, gradients of the hinge losses.

    The fixtures' gradients are rounded to float16, 5e-4 of the largest.
    """
    seen = equality.train(converted, equality.case_of(record))
    equality.assert_equal(seen, record, rtol=1e-4, grad_rtol=1.5e-3)


def test_outputs_are_those_of_huggingface():
    record = load(HERE / "huggingface128.npz")
    converted = equality.converted(record, truncation=0.43)
    assert converted.weights.critic is None
    assert converted.source["truncation"] == 0.43
    images = equality.evaluate(converted, equality.case_of(record))["eval/G"]
    expected = record["eval/0.43"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(images[:, :, ::STRIDE, ::STRIDE], expected, atol=1e-5)


def test_moments_between_two_truncations_are_weighed_as_the_original_does():
    """Its weights are the wrong way round; the outputs at .43 above would differ otherwise."""
    table = np.array([[0.0], [1.0], [3.0]], np.float32)
    assert huggingface.interpolated(table, 1.0) == 3
    assert huggingface.interpolated(table, 0.5) == 1
    assert huggingface.interpolated(table, 0.6) == pytest.approx(0.2 * 1 + 0.8 * 3)


@pytest.mark.parametrize("rows", [2, 50, 51, 99, 104])
def test_moments_at_truncation_one_are_the_last_rows(rows):
    """1 / (1 / 49) exceeds 49 in floating point."""
    table = np.arange(rows, dtype=np.float32)[:, None]
    assert huggingface.interpolated(table, 1.0) == rows - 1


# ------------------------------------------------------------------------ what is recognised


def test_knobs_are_read_off_the_tensors(record, converted):
    case = equality.case_of(record)
    model = converted.model
    assert converted.resolution == case["resolution"]
    assert converted.num_classes == case["n_classes"]
    expected = {
        "name": "biggan_deep" if case.get("deep") else "biggan",
        "generator_ch": case["G_ch"],
        "critic_ch": case["D_ch"],
        "dim_z": case["dim_z"],
        "hierarchical": case["hier"],
        "shared_embedding": case["G_shared"],
        "attention_at": [int(side) for side in case["G_attn"].split("_") if side != "0"],
    }
    assert {knob: model[knob] for knob in expected} == expected
    assert model.get("shared_dim") == case.get("shared_dim")
    assert any(f"{case['resolution']} x {case['resolution']}" in line for line in converted.lines)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_deep_generator_at_32_is_of_32_at_any_depth(depth):
    """A depth of 1 has the blocks and widths of one at 8 of depth 3, which the original lacks."""
    states = made(32, depth=depth)
    converted = convert.from_states({"generator": states["G"], "critic": states["D"]})
    assert converted.resolution == 32
    assert converted.model["depth"] == depth
    assert converted.model["generator_ch"] == 2


def test_the_outputs_of_the_last_layer_are_always_recorded(plain, published, tmp_path):
    assert convert.from_states({"ema": published}).model["output_ch"] == 4
    converted = convert.from_states(states(plain))
    assert converted.model["output_ch"] == 0
    convert.write(tmp_path / "w", converted)
    other = {**converted.model, "output_ch": 8}
    (line,) = weights.differences(weights.read_info(tmp_path / "w"), other, 32, 5)
    assert "config.model.output_ch is 8, the weights have 0" in line


@pytest.mark.parametrize(("given", "absent"), [("generator", "ema"), ("ema", "generator")])
def test_a_generator_alone_stands_for_its_moving_average_and_the_other_way(plain, given, absent):
    state = states(plain)["generator"]
    converted = convert.from_states({given: state})
    assert converted.weights.critic is None
    assert not any(knob.startswith("critic") for knob in converted.model)
    assert "no critic" in " ".join(converted.lines)
    for tree in (converted.weights.generator, converted.weights.ema):
        kernel = tree["params"]["linear"]["w"]["kernel"]
        assert kernel.shape == state["linear.weight"].shape[::-1]


def test_both_generators_are_kept_apart(plain):
    one = states(plain)["generator"]
    other = {name: value + np.float32(1) for name, value in one.items()}
    held = convert.from_states({"generator": one, "ema": other}).weights
    for a, b in zip(jax.tree.leaves(held.generator), jax.tree.leaves(held.ema), strict=True):
        np.testing.assert_array_equal(a + np.float32(1), b)


@pytest.mark.parametrize(
    ("record_name", "drop", "expected"),
    [
        ("plain32", "", (1e-8, 1e-5)),
        ("hier64", "", (1e-6, 1e-5)),
        ("hier64", "sv0", (1e-4, 1e-4)),
        ("huggingface128", "", (1e-4, 1e-4)),
    ],
)
def test_epsilons_are_those_of_the_published_runs(record_name, drop, expected):
    state = equality.network(load(HERE / f"{record_name}.npz"), "G")
    state = {k: v for k, v in state.items() if not (drop and k.endswith(drop))}
    converted = convert.from_states({"ema": state})
    assert (converted.model["sn_eps"], converted.model["bn_eps"]) == expected
    own = convert.from_states({"ema": state}, sn_eps=1e-3, bn_eps=1e-2)
    assert (own.model["sn_eps"], own.model["bn_eps"]) == (1e-3, 1e-2)


def test_each_epsilon_is_told_with_its_own_reason(plain):
    generator = {"ema": states(plain)["generator"]}

    def line(**given):
        return next(x for x in convert.from_states(generator, **given).lines if "ε: " in x)

    why = "(the defaults of the original's train.py)"
    assert line() == f"ε: spectral norm 1e-08, batch norm 1e-05 {why}"
    one = line(sn_eps=1e-3)
    assert one == f"ε: spectral norm 0.001 (as given), batch norm 1e-05 {why}"
    one = line(bn_eps=1e-3)
    assert one == f"ε: spectral norm 1e-08 {why}, batch norm 0.001 (as given)"
    both = line(sn_eps=1e-3, bn_eps=1e-4)
    assert both == "ε: spectral norm 0.001, batch norm 0.0001 (as given)"


@pytest.mark.parametrize("name", ["sn_eps", "bn_eps"])
@pytest.mark.parametrize("value", [0.0, -1e-5, float("nan"), float("inf")])
def test_an_epsilon_that_is_none_is_refused(plain, name, value):
    flag = name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{flag} = {value!r}: must be a finite number above"):
        convert.from_states({"ema": states(plain)["generator"]}, **{name: value})
    with pytest.raises(ConfigError, match=f"--{flag} = "):  # before files are read
        convert.from_files(ema="nowhere.pth", **{name: value})


@pytest.mark.parametrize("truncation", [0.5, 1.0])
def test_a_truncation_is_refused_where_it_says_nothing(plain, truncation):
    with pytest.raises(ConfigError, match=f"truncation = {truncation}: .*leave --truncation out"):
        convert.from_states({"ema": states(plain)["generator"]}, truncation=truncation)


# ----------------------------------------------------------------------------- round trips


def test_there_and_back_is_the_same_bit_for_bit(record, converted, tmp_path):
    convert.write(tmp_path / "w", converted)
    held, info = weights.read_weights(tmp_path / "w")
    back = convert.to_states(held, info.model, info.source)
    given = states(record)
    assert set(back) == {"G", "G_ema", "D"}
    assert_same_states(back["G"], given["generator"])
    assert_same_states(back["G_ema"], given["generator"])
    assert_same_states(back["D"], given["critic"])


@pytest.mark.parametrize("norm", ["mybn", "cross_replica"])
def test_other_batch_norms_names_and_counters_survive(hier, norm):
    mean, var, counter = names.NORMS[norm]
    state, given = {}, states(hier)["generator"]
    # The order of the modules: there, gain and bias come before the norm within.
    for name, value in given.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf == "stored_mean":
            buffers = {f"{prefix}.{mean}": value, f"{prefix}.{var}": given[f"{prefix}.stored_var"]}
            count = np.array(9, np.int64) if norm == "cross_replica" else np.zeros(1, np.float32)
            state |= {**buffers, f"{prefix}.{counter}": count}
        elif leaf != "stored_var":
            state[name] = value
    converted = convert.from_states({"ema": state})
    plain = convert.from_states({"ema": given})
    for a, b in zip(
        jax.tree.leaves(converted.weights.ema), jax.tree.leaves(plain.weights.ema), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    back = convert.to_states(converted.weights, converted.model, converted.source)
    for file in ("G", "G_ema"):
        assert set(back[file]) == set(state)
        assert_same_states({k: back[file][k] for k in state}, state)


def test_standing_statistics_are_divided_by_their_counter(hier):
    state = {}
    for name, value in states(hier)["generator"].items():
        prefix, _, leaf = name.rpartition(".")
        if leaf in ("stored_mean", "stored_var"):
            state[f"{prefix}.bn.{leaf}"] = 4 * value
            state[f"{prefix}.bn.accumulation_counter"] = np.full(1, 4, np.float32)
        else:
            state[name] = value
    converted = convert.from_states({"ema": state}).weights.ema["extra"]["batch_stats"]
    plain = convert.from_states(states(hier)).weights.ema["extra"]["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, converted, plain)


def test_the_layout_of_a_table_line_is_undone_by_its_inverse(converted):
    net = {**converted.weights.generator["extra"], "params": converted.weights.generator["params"]}
    leaves = convert.flat(net)
    for line in names.plan({path: x.shape for path, x in leaves.items()}):
        value = np.arange(leaves[line.ours].size).reshape(leaves[line.ours].shape)
        there = line.layout.to_theirs(value)
        assert there.shape == line.their_shape(value.shape)
        np.testing.assert_array_equal(line.layout.to_ours(there), value)


# ------------------------------------------------------------------------------- optimiser


def adam_of(state, seed, step=11):
    """torch's Adam state for a state dict, by its parameters in order."""
    rng = np.random.default_rng(seed)
    buffers = ("u0", "sv0", "stored_mean", "stored_var")
    learned = [v for k, v in state.items() if k.rpartition(".")[2] not in buffers]
    noise = [rng.standard_normal((2, *v.shape)).astype(np.float32) for v in learned]
    entries = {
        # Old files count in Python's integers and name parameters by their address.
        900 + i: {"step": step, "exp_avg": n[0], "exp_avg_sq": n[1] ** 2}
        for i, n in enumerate(noise)
    }
    group = {"lr": 1e-4, "betas": (0.0, 0.999), "eps": 1e-6, "weight_decay": 0, "amsgrad": False}
    return {"state": entries, "param_groups": [{**group, "params": list(entries)}]}


def test_moments_follow_their_parameters_there_and_back(record):
    given = states(record)
    optims = {"a": adam_of(given["critic"], 1), "b": adam_of(given["generator"], 2)}
    converted = convert.from_states(given, optims)
    held = converted.weights
    for net, opt in ((held.generator, held.generator_opt), (held.critic, held.critic_opt)):
        assert opt["count"] == 11
        assert opt["count"].dtype == np.int32
        for moment in ("mu", "nu"):
            shapes = jax.tree.map(np.shape, opt[moment])
            assert shapes == jax.tree.map(np.shape, net["params"])
    # The moments of a kernel are permuted as the kernel is.
    expected = list(optims["a"]["state"].values())[-1]["exp_avg"]  # "embed" is registered last
    np.testing.assert_array_equal(held.critic_opt["mu"]["embed"]["w"]["kernel"], expected)
    index = int("shared.weight" in given["generator"])  # and "linear" first but for that
    expected = list(optims["b"]["state"].values())[index]["exp_avg"]
    got = held.generator_opt["mu"]["linear"]["w"]["kernel"]
    c = got.shape[1] // 16
    np.testing.assert_array_equal(
        got.reshape(-1, 4, 4, c), expected.T.reshape(-1, c, 4, 4).transpose(0, 2, 3, 1)
    )

    back = convert.to_states(held, converted.model, converted.source)
    for name, state in (("D_optim", optims["a"]), ("G_optim", optims["b"])):
        (group,) = back[name]["param_groups"]
        assert group == {**state["param_groups"][0], "params": list(range(len(state["state"])))}
        for a, b in zip(back[name]["state"].values(), state["state"].values(), strict=True):
            assert a["step"] == b["step"]
            for moment in ("exp_avg", "exp_avg_sq"):
                np.testing.assert_array_equal(a[moment], b[moment])


def test_moments_that_cannot_be_used_are_refused(plain):
    given = states(plain)
    alone = {"generator": given["generator"]}
    with pytest.raises(DataError, match=r"D_optim.*of 23 parameters.*given: 36 \(generator\)"):
        convert.from_states(alone, {"D_optim": adam_of(given["critic"], 1)})
    uneven = adam_of(given["critic"], 1)
    uneven["state"][900]["step"] = 3
    uneven["state"][901]["fp32_p"] = np.zeros(1)
    uneven["state"][902]["exp_avg"] = np.full_like(uneven["state"][902]["exp_avg"], np.nan)
    with pytest.raises(DataError) as error:
        convert.from_states(given, {"o": uneven})
    for line in ("stepped between 3 and 11 times", "fp32_p unknown", "exp_avg has NaN"):
        assert line in str(error.value)
    twice = {"a": adam_of(given["critic"], 1), "b": adam_of(given["critic"], 2)}
    with pytest.raises(DataError, match="b is a second optimiser of the critic"):
        convert.from_states(given, twice)


def test_moments_are_said_to_be_kept_for_the_way_back_only(plain):
    given = states(plain)
    uneven = adam_of(given["critic"], 1)
    uneven["state"][900]["step"] = 3
    with pytest.raises(DataError, match=r"kept for --to-pth only, and a fine-tune .* fresh"):
        convert.from_states(given, {"o": uneven})
    text = " ".join(command()._parser().format_help().split())
    assert "kept for --to-pth only, a fine-tune begins with fresh moments" in text


def without_params(state):
    state["param_groups"] = [{"lr": 1e-4}]


def without_an_entry(state):
    del state["state"][scalar(state)]


def with_a_stray_entry(state):
    state["state"][7] = state["state"][scalar(state)]


def with_a_misshapen_moment(state):
    state["state"][900]["exp_avg_sq"] = np.ones(3, np.float32)


def with_steps(value):
    def change(state):
        state["state"][900]["step"] = value

    return change


def with_a_setting(value):
    def change(state):
        state["param_groups"][0]["lr"] = value

    return change


def scalar(state):
    """The name of an attention's gamma."""
    return next(k for k, entry in state["state"].items() if np.shape(entry["exp_avg"]) == ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_params, r"o: group 0 of its param_groups has no list of numbered params"),
        (without_an_entry, r"gamma: missing instead of \(\)"),
        (with_a_stray_entry, r"parameter 7: in no group"),
        (with_a_misshapen_moment, r"exp_avg_sq of shape \(3,\) instead of"),
        (with_steps(np.ones(2, np.float32)), r"step .* is no number of steps"),
        (with_steps(float("nan")), r"step nan is no number of steps"),
        (with_a_setting(np.ones(2)), r"o: its setting lr is array.*leave --optimizer out"),
        (with_a_setting(float("nan")), r"o: its setting lr is nan"),
    ],
)
def test_an_optimiser_of_another_form_is_refused_without_a_traceback(hier, change, message):
    given = states(hier)
    state = adam_of(given["critic"], 1)
    change(state)
    with pytest.raises(DataError, match=message):
        convert.from_states(given, {"o": state})


@pytest.mark.parametrize("lr", [np.float64(0.25), np.array(0.25, np.float32), np.full(1, 0.25)])
def test_settings_in_arrays_become_numbers(plain, lr):
    given = states(plain)
    state = adam_of(given["critic"], 1)
    state["param_groups"][0] |= {"lr": lr, "betas": (np.float32(0), lr)}
    settings = convert.from_states(given, {"o": state}).source["optimizers"]["critic_opt"]
    assert type(settings["lr"]) is float
    assert settings["lr"] == 0.25
    assert json.loads(json.dumps(settings))["betas"] == [0, 0.25]


# ------------------------------------------------------------------------------ what is refused


def test_every_missing_extra_misshapen_and_non_finite_tensor_is_listed(hier):
    changes = {
        "blocks.1.0.conv1.bias": None,
        "blocks.2.0.bn2.gain.u0": None,
        "extra.weight": np.ones(2, np.float32),
        "output_layer.0.gain": np.ones(7, np.float32),
        "blocks.0.0.conv2.u1": np.ones((1, 16), np.float32),
        "linear.bias": np.full(256, np.nan, np.float32),
        "shared.weight": np.ones((5, 6), np.int64),
    }
    with pytest.raises(DataError) as error:
        convert.from_states(states(hier, G=changes))
    for line in (
        "generator does not fit",
        "nothing is written",
        "7 tensors differ",
        "blocks.1.0.conv1.bias: missing",
        "blocks.2.0.bn2.gain.u0: missing",
        "extra.weight: not in this model",
        "output_layer.0.gain: shape (7,) instead of (2,)",
        "blocks.0.0.conv2.u1: not in this model",
        "linear.bias: has NaN or infinity",
        "shared.weight: int64 instead of float32",
    ):
        assert line in str(error.value), line


def test_a_wrong_width_is_listed_block_by_block(hier):
    """One block of another ch: the others say which it should have."""
    wide = {"blocks.3.0.conv1.weight": np.ones((4, 8, 3, 3), np.float32)}
    with pytest.raises(DataError, match=r"blocks.3.0.conv1.weight: shape .* instead of \(2, 4,"):
        convert.from_states(states(hier, G={k: v[:, :5] for k, v in wide.items()}))


def test_networks_of_two_runs_are_told_apart(plain, hier):
    mixed = {"generator": states(hier)["generator"], "critic": states(plain)["critic"]}
    with pytest.raises(DataError) as error:
        convert.from_states(mixed)
    assert "resolution: 64 in generator, 32 in critic" in str(error.value)
    fewer = states(plain, D={"embed.weight": np.ones((3, 8), np.float32)})
    with pytest.raises(DataError, match="number of classes: 5 in generator, 3 in critic"):
        convert.from_states(fewer)
    swapped = states(plain)
    with pytest.raises(DataError, match="generator is a critic, given as generator"):
        convert.from_states({"generator": swapped["critic"]})
    with pytest.raises(ConfigError, match="no generator: give --generator"):
        convert.from_states({"critic": swapped["critic"]})


def test_one_depth_and_one_attention_for_both_networks_is_said_to_be_the_reason():
    """G_depth, D_depth, G_attn and D_attn are options of one run of the original."""
    one, other = made(32, depth=1), made(32, depth=2)
    message = r"prpr has one attention_at and one depth for both: depth: 1 before, 2 in critic\. L"
    with pytest.raises(DataError, match=message) as error:
        convert.from_states({"generator": one["G"], "critic": other["D"]})
    assert "of one run" in str(error.value)
    assert "Leave the critic out" in str(error.value)
    assert "Give files of one run" not in str(error.value)
    # Two generators are of one depth in any run.
    with pytest.raises(DataError, match=r"depth: 1 before, 2 in ema\. Give files of one run"):
        convert.from_states({"generator": one["G"], "ema": other["G"]})
    # What the original calls D_attn = 16, after each block of the critic.
    all_blocks = made(32, depth=1, attention_at=(8, 16))["D"]
    some = made(32, depth=1, attention_at=(16,))["G"]
    with pytest.raises(DataError, match=r"attention at 8: in critic only; at 32 .* D_attn = 16 is"):
        convert.from_states({"generator": some, "critic": all_blocks})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv.weight": np.ones((1, 1), np.float32)}, "is no BigGAN: .*begin with conv.weight"),
        (
            {"output_layer.2.weight": np.ones((3, 2, 3, 3), np.float32)},
            "has 0 residual blocks; the sizes",
        ),
    ],
)
def test_something_else_is_no_biggan(state, message):
    with pytest.raises(DataError, match=message):
        convert.from_states({"generator": state})


def test_a_tensor_that_the_model_is_told_by_is_named_when_missing(plain):
    with pytest.raises(DataError, match=r"linear.weight is missing, so its model cannot be told"):
        convert.from_states(states(plain, G={"linear.weight": None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.extra": np.ones(1, np.float32)}, r"blocks\.extra: not in this model"),
        ({"blocks.0.weight": np.ones(1, np.float32)}, r"blocks\.0\.weight: not in this model"),
        (
            {"blocks.a.0.conv1.weight": np.ones((1, 1, 3, 3), np.float32)},
            r"blocks\.a\.0\.conv1\.weight: not in this model",
        ),
        # As many blocks would be listed as memory holds.
        (
            {"blocks.999999999.0.conv1.weight": np.ones((1, 1, 3, 3), np.float32)},
            r"blocks\.999999999\.0\.conv1\.weight: not in this model",
        ),
        (
            {"blocks.1.0.conv2.weight": np.float32(1)},
            r"blocks\.1\.0\.conv2\.weight: shape \(\) instead of",
        ),
        ({"shared.weight": np.ones((0, 6), np.float32)}, r"number of classes is 0, which no"),
        ({"shared.weight": np.ones((5, 0), np.float32)}, r"shared_dim is 0, which no"),
    ],
)
def test_content_of_any_form_is_refused_without_a_traceback(hier, changes, message):
    with pytest.raises(DataError, match=message):
        convert.from_states(states(hier, G=changes))


def test_a_deep_generator_needs_a_class_embedding_and_a_z_beside_it(deep):
    narrow = {"linear.weight": states(deep)["generator"]["linear.weight"][:, :4]}
    with pytest.raises(DataError, match=r"dim_z is -2, which no BigGAN has"):
        convert.from_states(states(deep, G=narrow))
    with pytest.raises(DataError, match=r"shared\.weight is missing"):
        convert.from_states(states(deep, G={"shared.weight": None}))


@pytest.mark.parametrize(
    ("norm", "count", "message"),
    [
        ("mybn", np.zeros(2, np.float32), r"accumulation_counter: shape \(2,\) instead of \(1,\)"),
        ("mybn", np.full(1, np.nan, np.float32), r"accumulation_counter: \[nan\] is no number of"),
        ("cross_replica", np.zeros((0,), np.int64), r"tracked: shape \(0,\) instead of \(\)"),
        ("cross_replica", np.array(np.inf), r"num_batches_tracked: inf is no number of batches"),
    ],
)
def test_a_counter_that_is_none_is_listed(hier, norm, count, message):
    mean, var, counter = names.NORMS[norm]
    state = {}
    for name, value in states(hier)["generator"].items():
        prefix, _, leaf = name.rpartition(".")
        own = {"stored_mean": mean, "stored_var": var}.get(leaf, leaf)
        state[f"{prefix}.{own}" if prefix else own] = value
        if leaf == "stored_mean":
            state[f"{prefix}.{counter}"] = count
    with pytest.raises(DataError, match=message):
        convert.from_states({"ema": state})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"generator.gen_z.weight_orig": np.float32(1)},
            r"gen_z\.weight_orig: .*other than 2 axes",
        ),
        (
            {"generator.layers.1.conv_0.weight_orig": np.float32(1)},
            r"layers\.1\.conv_0\.weight_orig: shape \(\) instead of",
        ),
        (
            {"generator.layers.1.conv_0.weight_orig": np.ones((0, 4, 1, 1), np.float32)},
            r"layers\.1\.conv_0\.weight_orig: shape \(0, 4, 1, 1\) instead of",
        ),
        (
            {"generator.gen_z.bias": np.ones((16, 0), np.float32)},
            r"gen_z\.bias: .*other than 1 axes",
        ),
        (
            {"generator.bn.weight_u": np.ones(1, np.float32)},
            r"generator\.bn\.weight_u: not in this model",
        ),
        (
            {"generator.layers.1.conv_0.weight_orig": None},
            r"generator\.layers\.1\.conv_0\.weight_v: not in this model",
        ),
        (
            {"shared.weight": np.ones((5, 4), np.float32)},
            r"shared\.weight is a second shared\.weight",
        ),
        ({"generator.bn.bias": np.ones(4, np.int64)}, r"generator\.bn\.bias: int64 instead of"),
    ],
)
def test_what_huggingface_never_wrote_is_listed(published, changes, message):
    state = {k: v for k, v in {**published, **changes}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        convert.from_states({"ema": state})


def test_huggingface_files_are_as_strictly_read():
    state = equality.network(load(HERE / "huggingface128.npz"), "G")
    broken = dict(state)
    del broken["generator.layers.3.conv_1.weight_v"]
    broken["generator.layers.2.bn_1.running_means"] = np.ones(3, np.float32)
    broken["generator.bn.bias"] = np.full(4, np.inf, np.float32)
    with pytest.raises(DataError) as error:
        convert.from_states({"ema": broken})
    for line in (
        "generator.layers.3.conv_1.weight_v: missing",
        "generator.layers.2.bn_1.running_means: shape (3,)",
        "generator.bn.bias: has NaN",
    ):
        assert line in str(error.value)
    broken = {**state, "generator.layers.1.extra": np.ones(1, np.float32)}
    del broken["generator.layers.5.bn_2.scale.weight_orig"]
    with pytest.raises(DataError) as error:
        convert.from_states({"ema": broken})
    assert "generator.layers.1.extra: not in this model" in str(error.value)
    assert "bn3.gain.weight: missing" in str(error.value)
    with pytest.raises(ConfigError, match=r"truncation = 1.5: must be in \(0, 1\]"):
        convert.from_states({"ema": state}, truncation=1.5)


# --------------------------------------------------------------------------------- .pth files


def run(*arguments):
    command = [sys.executable, str(ROOT / "scripts/convert_biggan"), *map(str, arguments)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Exception, match=r"pip install 'prpr\[torch\]'"):
        convert.from_files(ema=HERE / "G_ema.pth")


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu121", "2.9.1", "unknown"])
def test_a_torch_that_may_run_a_files_code_is_refused(monkeypatch, version):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__=version))
    with pytest.raises(PrprError, match=r"may run code .*install 2\.10 or later") as error:
        convert.from_files(ema=HERE / "G_ema.pth")
    assert f"PyTorch {version} " in str(error.value)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0"])
def test_a_torch_that_does_not_is_taken(monkeypatch, version):
    fake = types.SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert pth._torch() is fake


def test_the_extra_asks_for_the_torch_that_is_accepted():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    oldest = ".".join(map(str, pth.OLDEST))
    assert setup["options.extras_require"]["torch"].strip() == f"torch>={oldest}"


def test_zip_and_legacy_files_there_and_back(tmp_path):
    torch = pytest.importorskip("torch")
    converted = convert.from_files(ema=HERE / "G_ema.pth", critic=HERE / "D_legacy.pth")
    convert.write(tmp_path / "w", converted)
    paths = convert.to_files(tmp_path / "w", tmp_path / "pth")
    assert [path.name for path in paths] == ["G.pth", "G_ema.pth", "D.pth"]
    for name, source in (("G", "G_ema"), ("G_ema", "G_ema"), ("D", "D_legacy")):
        got, want = (
            torch.load(file, weights_only=True)
            for file in (tmp_path / "pth" / f"{name}.pth", HERE / f"{source}.pth")
        )
        assert list(got) == list(want)
        assert all(torch.equal(got[k], want[k]) for k in want)
    with pytest.raises(WorkdirError, match=r"G.pth exists: .*--overwrite"):
        convert.to_files(tmp_path / "w", tmp_path / "pth")
    convert.to_files(tmp_path / "w", tmp_path / "pth", overwrite=True)


def test_prefixes_and_half_precision_are_undone(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.load(HERE / "G_ema.pth", weights_only=True)
    torch.save({f"module.{k}": v.half() for k, v in state.items()}, tmp_path / "G.pth")
    got = convert.from_files(generator=tmp_path / "G.pth").weights.generator
    want = convert.from_files(generator=HERE / "G_ema.pth").weights.generator
    jax.tree.map(np.testing.assert_array_equal, got, want)  # the fixture is of float16 numbers


class Code:
    """What a malicious file holds: reading it naively makes the file."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return (os.system, (f"touch {self.made}",))


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, kind):
    torch = pytest.importorskip("torch")
    made, file = tmp_path / "made", tmp_path / "G.pth"
    content = {"linear.weight": torch.ones(2), "x": Code(made)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(content["x"], protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(DataError, match=r"G.pth holds more than tensors: it calls \w+.system"):
        convert.from_files(generator=file)
    assert not made.exists()
    # It would have been made: the test can fail.
    if kind == "pickle":
        pickle.loads(file.read_bytes())
        assert made.exists()


@pytest.mark.parametrize("name", ["G_ema.pth", "D_legacy.pth"])
def test_a_truncated_file_is_refused_at_any_length(tmp_path, name):
    pytest.importorskip("torch")
    whole = (HERE / name).read_bytes()
    for size in (0, 1, 10, 300, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"{name} is .*copy or download it again"):
            convert.from_files(generator=tmp_path / name)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "noise.pth").write_bytes(np.random.default_rng(0).bytes(5000))
    torch.save({"itr": 5, "best_IS": 1.0}, tmp_path / "state_dict.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    for name, message in {
        "text.pth": "no whole PyTorch file",
        "noise.pth": "no whole PyTorch file",
        "state_dict.pth": "holds 'itr', which is no tensor",
        "list.pth": "holds a list",
        "nowhere.pth": "does not exist",
        ".": "is a directory",
    }.items():
        with pytest.raises(DataError, match=message):
            convert.from_files(generator=tmp_path / name)
    with pytest.raises(DataError, match="not the state of an optimiser"):
        convert.from_files(ema=HERE / "G_ema.pth", optimizers=[HERE / "G_ema.pth"])
    for content in (
        {"state": [], "param_groups": []},
        {"state": {}, "param_groups": None},
        {"state": {0: 1}, "param_groups": []},
        {"state": {}, "param_groups": [1]},
    ):
        torch.save(content, tmp_path / "optim.pth")
        with pytest.raises(DataError, match="not the state of an optimiser"):
            pth.read_optimizer(tmp_path / "optim.pth")


def test_tensors_that_numpy_lacks_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    for tensor, kind in (
        (torch.eye(2).to_sparse(), "sparse_coo float32"),
        (torch.ones(2).to(torch.float8_e4m3fn), "strided float8_e4m3fn"),
    ):
        torch.save({"linear.weight": tensor}, tmp_path / "G.pth")
        with pytest.raises(DataError, match=rf"G\.pth: linear\.weight is a tensor of {kind}"):
            pth.read_state(tmp_path / "G.pth")
        group = {"params": [0]}
        torch.save({"state": {0: {"exp_avg": tensor}}, "param_groups": [group]}, tmp_path / "o.pth")
        with pytest.raises(DataError, match=rf"o\.pth: exp_avg of parameter 0 is a .*{kind}"):
            pth.read_optimizer(tmp_path / "o.pth")


def test_a_learning_rate_in_a_tensor_is_a_number(tmp_path):
    torch = pytest.importorskip("torch")
    group = {"params": [0], "lr": torch.tensor(0.25)}
    torch.save({"state": {0: {}}, "param_groups": [group]}, tmp_path / "o.pth")
    settings = convert.adam.groups(pth.read_optimizer(tmp_path / "o.pth"), "o")
    assert settings == {"lr": 0.25}


def test_the_command_converts_says_what_it_saw_and_goes_back(tmp_path):
    torch = pytest.importorskip("torch")
    out = tmp_path / "w"
    done = run("--ema", HERE / "G_ema.pth", "--critic", HERE / "D_legacy.pth", "--out", out)
    assert done.returncode == 0, done.stderr
    for line in (
        "BigGAN of BigGAN-PyTorch, 32 x 32, 5 classes",
        "generator: ch 1, 1,499 parameters",
        "critic: ch 1, 1,209 parameters",
        "spectral norm 1e-08, batch norm 1e-05",
        f"--config.base.path={out}",
    ):
        assert line in done.stdout
    again = run("--ema", HERE / "G_ema.pth", "--out", out)
    assert again.returncode == 1
    assert again.stderr.startswith("convert_biggan: ")
    assert len(again.stderr.splitlines()) == 1
    assert weights.read_info(out).has_critic  # untouched
    back = run("--to-pth", out, "--out", tmp_path / "pth")
    assert back.returncode == 0, back.stderr
    state = torch.load(tmp_path / "pth" / "D.pth", weights_only=True)
    assert torch.equal(
        state["embed.weight"], torch.load(HERE / "D_legacy.pth", weights_only=True)["embed.weight"]
    )
    both = run("--to-pth", out, "--ema", "x", "--out", tmp_path / "pth")
    assert both.returncode == 2
    assert "--to-pth and --ema" in both.stderr


def command():
    """scripts/convert_biggan as a module."""
    file, module = ROOT / "scripts/convert_biggan", types.ModuleType("convert_biggan")
    module.__file__ = str(file)
    exec(compile(file.read_text(), file, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("option", ["--truncation=1", "--sn-eps=0", "--bn-eps=1e-5"])
def test_the_way_back_takes_no_options_of_the_way_there(monkeypatch, capsys, tmp_path, option):
    arguments = ["", "--to-pth", str(tmp_path), "--out", str(tmp_path / "pth"), option]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command().main() == 2
    assert f"--to-pth and {option.split('=')[0]}:" in capsys.readouterr().err


@pytest.fixture
def folder(plain, tmp_path):
    """(weights, a folder of .pth files that a test may write over)."""
    convert.write(tmp_path / "w", convert.from_states(states(plain)))
    (tmp_path / "pth").mkdir()
    for name in ("G", "D"):
        (tmp_path / f"pth/{name}.pth").write_text("old")
    return tmp_path / "w", tmp_path / "pth"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_files_back_are_written_together_or_not_at_all(monkeypatch, folder, error):
    torch = pytest.importorskip("torch")
    held, out = folder
    before, save = contents(out), torch.save

    def fail(content, path):
        save(content, path)
        if "D.pth" in str(path):
            raise error("no space")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DataError if error is OSError else error):
        convert.to_files(held, out, overwrite=True)
    assert contents(out) == before


def test_an_interrupt_between_two_renames_waits_for_the_last(monkeypatch, folder):
    pytest.importorskip("torch")
    held, out = folder
    replace = os.replace

    def interrupted(source, target):
        signal.raise_signal(signal.SIGINT)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert.to_files(held, out, overwrite=True)
    after = contents(out)
    assert set(after) == {"G.pth", "G_ema.pth", "D.pth"}
    assert b"old" not in after.values()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("way", ["there", "back"])
def test_an_interrupted_command_says_whether_it_wrote(
    monkeypatch, capsys, folder, plain, way, written
):
    pytest.importorskip("torch")
    held, out = folder
    arguments = ["--to-pth", str(held), "--out", str(out), "--overwrite"]
    if way == "there":
        held = held.with_name("new")
        arguments = ["--ema", str(HERE / "G_ema.pth"), "--out", str(held)]
        out = held
    name = {"there": "write", "back": "to_files"}[way]
    function = getattr(convert, name)

    def interrupt(*given):
        if written:
            function(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, name, interrupt)
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    assert command().main() == 130
    said = f"{out} was written and is whole" if written else "nothing was written"
    assert capsys.readouterr().err == f"convert_biggan: interrupted; {said}\n"


def test_nothing_is_written_when_something_is_wrong(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.load(HERE / "G_ema.pth", weights_only=True)
    state.pop("blocks.0.0.conv1.bias")
    torch.save(state, tmp_path / "G.pth")
    with pytest.raises(DataError, match=r"blocks\.0\.0\.conv1\.bias: missing"):
        convert.from_files(generator=tmp_path / "G.pth")
    with pytest.raises(CheckpointError, match="no weights in"):
        convert.to_files(tmp_path / "w", tmp_path / "pth")
    assert [path.name for path in tmp_path.iterdir()] == ["G.pth"]


def test_inputs_of_the_fixtures_are_alive(record):
    given = inputs(equality.case_of(record))
    assert 0.3 < given["x"].std() < 1
    assert given["z"].std() > 0.5
    assert record["eval/G"].std() > 0.05
    assert record["eval/D"].std() > 0.1
