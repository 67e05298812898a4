"""checkpoint: bit-exact, atomic under SIGKILL, and loud about damage and wrong shapes."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import checkpoint
from prpr.errors import CheckpointError

META = {"config": {"lams": [0.2, 5.0], "name": "λ"}, "step": 10}


class Pair(NamedTuple):
    left: jax.Array
    right: dict


@flax.struct.dataclass
class State:
    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: tuple
    extra: Pair


def make_state(seed=0, width=7):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "dense": {
            "kernel": jax.random.normal(keys[0], (5, width)),
            "bias": jnp.full((width,), seed, jnp.bfloat16),
        }
    }
    return State(
        step=jnp.asarray(seed, jnp.int32),
        key=keys[1],
        params=params,
        opt_state=optax.adam(1e-3).init(params),
        extra=Pair(jnp.array([True, False]), {}),
    )


def raw(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert raw(a).tobytes() == raw(b).tobytes()


TREES = {
    "train_state": make_state,
    "float32": lambda: {
        "x": jnp.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4e38], jnp.float32)
    },
    "other_floats": lambda: [
        jnp.array([1.0, np.nan], dtype) for dtype in (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn)
    ],
    "ints": lambda: [
        jnp.array([0, 1, 127], dtype) for dtype in (jnp.int8, jnp.uint8, jnp.int32, jnp.uint32)
    ],
    "bool": lambda: (jnp.array([[True], [False]]),),
    "complex": lambda: jnp.array([1 + 2j], jnp.complex64),
    "zero_d": lambda: {"a": jnp.float32(3), "b": jnp.array(True), "c": jnp.bfloat16(2)},
    "keys": lambda: {
        "one": jax.random.key(3),
        "many": jax.random.split(jax.random.key(4), 6).reshape(2, 3),
        "rbg": jax.random.key(5, impl="rbg"),
        "raw": jax.random.key_data(jax.random.key(6)),
    },
    "empty": dict,
    "empty_inside": lambda: {"a": {}, "b": (), "c": None, "d": jnp.ones(2)},
    "no_elements": lambda: {"a": jnp.zeros((0, 3)), "b": jnp.ones((1,))},
    "only_no_elements": lambda: jnp.zeros((0,), jnp.int32),
    "names": lambda: {"a.b/λ [0]": jnp.ones(1), "0": [jnp.zeros(1)]},
    "numpy": lambda: {"x": np.arange(3, dtype=np.float64), "y": np.array(2**40)},
}


@pytest.mark.parametrize("name", TREES)
def test_round_trip_is_bit_exact(tmp_path, name):
    state = TREES[name]()
    checkpoint.save(tmp_path, 10, state, META)
    got, meta = checkpoint.restore(tmp_path, state)
    assert meta == META
    assert_identical(got, state)
    kinds = [isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(state)]
    assert [isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(got)] == kinds
    # The shapes alone are enough.
    if not any(kinds):
        got, _ = checkpoint.restore(tmp_path, jax.eval_shape(lambda: state))
        assert_identical(got, state)


def test_a_restored_state_goes_where_like_is(tmp_path):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = {"x": jnp.ones(3), "key": jax.random.key(0)}
    checkpoint.save(tmp_path, 0, state, {})
    committed, _ = checkpoint.restore(tmp_path, jax.device_put(state, sharding))
    free, _ = checkpoint.restore(tmp_path, state)
    assert committed["x"].committed
    assert committed["key"].committed
    assert not free["x"].committed
    # It can be donated, like any state.
    step = jax.jit(lambda s: {**s, "x": s["x"] + 1.0}, donate_argnums=0)
    assert_identical(step(free), {"x": jnp.full(3, 2.0), "key": jax.random.key(0)})


def test_keeps_the_last_and_names_the_newest(tmp_path):
    assert checkpoint.latest(tmp_path / "nowhere") is None
    for step in (1, 2, 30, 400):
        checkpoint.save(tmp_path, step, make_state(step), {"at": step}, keep=2)
        assert checkpoint.latest(tmp_path) == step
    assert sorted(os.listdir(tmp_path)) == ["step_00000030", "step_00000400"]
    got, meta = checkpoint.restore(tmp_path, make_state(), step=30)
    assert meta == {"at": 30}
    assert_identical(got, make_state(30))
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 2 in .*has: 30, 400"):
        checkpoint.restore(tmp_path, make_state(), step=2)
    # Saved before a later one, it would never be found again.
    with pytest.raises(CheckpointError, match=r"cannot save step 31 .*step 400 is there"):
        checkpoint.save(tmp_path, 31, make_state(), {})
    checkpoint.save(tmp_path, 400, make_state(7), {"at": "again"})
    got, meta = checkpoint.restore(tmp_path, make_state())
    assert meta == {"at": "again"}
    assert_identical(got, make_state(7))
    assert sorted(os.listdir(tmp_path)) == ["step_00000030", "step_00000400"]


def test_missing_and_unwritable(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*nowhere; .*does not exist"):
        checkpoint.restore(tmp_path / "nowhere", {})
    with pytest.raises(CheckpointError, match="the directory has none"):
        checkpoint.restore(tmp_path, {})
    (tmp_path / "file").write_text("")
    for act in (
        lambda path: checkpoint.restore(path, {}),
        checkpoint.latest,
        lambda path: checkpoint.save(path, 1, {"x": jnp.ones(1)}, {}),
    ):
        with pytest.raises(CheckpointError, match=r"/file: Not a directory"):
            act(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot save step 1"):
        checkpoint.save("/proc/prpr", 1, {"x": jnp.ones(1)}, {})


def test_bad_arguments(tmp_path):
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 1, {}, {"x": object()})
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(tmp_path, 1, {}, {"x": float("nan")})
    with pytest.raises(ValueError, match="keep"):
        checkpoint.save(tmp_path, 1, {}, {}, keep=0)
    with pytest.raises(ValueError, match="two leaves"):
        checkpoint.save(tmp_path, 1, {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, {})
    with pytest.raises(TypeError, match="arrays"):
        checkpoint.save(tmp_path, 1, {"a": "text"}, {})
    assert os.listdir(tmp_path) == []


# ---- another shape --------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    for step in (10, 20):
        checkpoint.save(path, step, make_state(step), META)
    return path


def edited(**params):
    return make_state().replace(params={"dense": params})


GOOD = make_state().params["dense"]
WRONG = {
    "shape": (
        {**GOOD, "kernel": jnp.ones((5, 8))},
        r"params/dense/kernel: checkpoint \(5, 7\), model \(5, 8\)\.",
    ),
    "smaller": (
        {**GOOD, "kernel": jnp.ones((5, 6))},
        r"params/dense/kernel: checkpoint \(5, 7\), model \(5, 6\)",
    ),
    "reshaped": (
        {**GOOD, "kernel": jnp.ones((7, 5))},
        r"params/dense/kernel: checkpoint \(5, 7\), model \(7, 5\)",
    ),
    "dtype": (
        {**GOOD, "bias": jnp.ones(7)},
        r"params/dense/bias: checkpoint bfloat16, model float32",
    ),
    "missing": (
        {**GOOD, "scale": jnp.ones(7)},
        r"params/dense/scale: not in the checkpoint, model \(7,\)",
    ),
    "extra": (
        {"bias": GOOD["bias"]},
        r"params/dense/kernel: checkpoint \(5, 7\), not in the model",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_shape_never_passes(saved, name):
    params, message = WRONG[name]
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.restore(saved, edited(**params))
    assert str(saved) in str(caught.value)
    assert "step 20" in str(caught.value)


def test_another_key_and_many_differences(saved):
    with pytest.raises(CheckpointError, match=r"key: checkpoint key<fry>, model key<rbg>"):
        checkpoint.restore(saved, make_state().replace(key=jax.random.key(0, impl="rbg")))
    with pytest.raises(CheckpointError, match=r"key: checkpoint key<fry>, model uint32|key: .*\(2"):
        checkpoint.restore(saved, make_state().replace(key=jnp.zeros(2, jnp.uint32)))
    with pytest.raises(CheckpointError, match=r"and 2 more") as caught:
        checkpoint.restore(saved, make_state(width=8))  # bias and kernel: params, mu, nu
    assert "\n" not in str(caught.value)


# ---- damage ---------------------------------------------------------------------------


def files_below(path):
    return sorted(p for p in Path(path).rglob("*") if p.is_file())


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [halve, flip, os.remove], ids=["halved", "flipped", "removed"])
def test_every_damaged_file_is_noticed(saved, tmp_path, damage, capfd):
    """Each file in turn: one message that names the path, the step, and what to do."""
    copy = tmp_path / "copy"
    files = files_below(saved / "step_00000020")
    assert len(files) >= 10
    for file in files:
        if damage is not os.remove and file.stat().st_size == 0:
            continue
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(saved, copy)
        damage(copy / file.relative_to(saved))
        with pytest.raises(CheckpointError) as caught:
            checkpoint.restore(copy, make_state())
        text = str(caught.value)
        assert f"checkpoint step 20 in {copy}/step_00000020 is damaged: " in text
        assert f"step 10 is whole: to go on from there, delete {copy}/step_00000020" in text
        assert "\n" not in text
        got, _ = checkpoint.restore(copy, make_state(), step=10)
        assert_identical(got, make_state(10))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_what_orbax_itself_refuses_is_a_checkpoint_error(saved, tmp_path, monkeypatch):
    def fail(self, path):
        raise ValueError("DATA_LOSS: something\nlong")

    from orbax import checkpoint as ocp

    monkeypatch.setattr(ocp.Checkpointer, "restore", fail)
    with pytest.raises(CheckpointError, match=r"is damaged: DATA_LOSS: something; step 10 is wh"):
        checkpoint.restore(saved, make_state())


def test_damage_after_the_mend_falls_back(saved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    for file in files_below(copy / "step_00000020"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step 10 is whole"):
        checkpoint.restore(copy, make_state())
    shutil.rmtree(copy / "step_00000020")
    got, _ = checkpoint.restore(copy, make_state())
    assert_identical(got, make_state(10))


def test_only_one_step_and_damaged(tmp_path):
    checkpoint.save(tmp_path, 1, make_state(), META)
    halve(tmp_path / "step_00000001" / "prpr.json")
    with pytest.raises(CheckpointError, match=r"prpr.json is not JSON; no earlier step here is wh"):
        checkpoint.restore(tmp_path, make_state())


def test_saving_writes_nothing_on_standard_error(tmp_path, capfd):
    checkpoint.save(tmp_path, 1, make_state(), META)
    checkpoint.restore(tmp_path, make_state())
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
