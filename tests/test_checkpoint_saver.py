"""checkpoint.Saver: the values of the call, loud errors, one copy of what is replicated."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr import checkpoint
from prpr.checkpoint import arrays
from prpr.errors import CheckpointError


def value(seed):
    return {
        "x": jnp.full((30, 4), seed, jnp.float32),
        "half": jnp.full(5, seed, jnp.bfloat16),
        "key": jax.random.key(seed),
        "host": np.full(3, seed),
        "none": jnp.zeros((0, 2)),
    }


def same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture
def gate(monkeypatch):
    """Holds every write to disk until it is set."""
    opened = threading.Event()
    write = arrays.write

    def held(*args):
        assert opened.wait(30)
        write(*args)

    monkeypatch.setattr(arrays, "write", held)
    yield opened
    opened.set()


def test_the_values_are_those_of_the_call(tmp_path, gate):
    """Donated, overwritten and deleted while the disk has not seen a byte."""
    state = value(1)
    with checkpoint.Saver(tmp_path) as saver:
        saver.save(1, state, {"at": 1}, score=0.5)
        assert checkpoint.latest(tmp_path) is None
        state["host"][:] = 99
        jax.jit(lambda x: x * 0, donate_argnums=0)(state["x"])
        assert state["x"].is_deleted()
        state["half"].delete()
        state["key"].delete()
        gate.set()
        saver.wait()
        got, meta = checkpoint.restore(tmp_path, value(0))
        assert meta == {"at": 1}
        same(got, value(1))
    saver.close()


def test_one_save_in_flight(tmp_path, gate):
    saver = checkpoint.Saver(tmp_path, keep=3)
    saver.save(1, value(1), {})
    second = threading.Thread(target=saver.save, args=(2, value(2), {}))
    second.start()
    second.join(0.2)
    assert second.is_alive()  # it waits for the first
    gate.set()
    second.join()
    saver.close()
    assert sorted(os.listdir(tmp_path)) == ["step_00000001", "step_00000002"]


def test_keeps_the_last_and_the_best(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: None, 4: 0.9, 5: -2.0, 6: 0.3, 7: None}
    left = {}
    with checkpoint.Saver(tmp_path, keep=2, keep_best=2) as saver:
        for step, score in scores.items():
            saver.save(step, {"x": jnp.float32(step)}, {}, score)
            saver.wait()
            left[step] = sorted(int(name[5:]) for name in os.listdir(tmp_path))
    assert left[3] == [1, 2, 3]
    assert left[5] == [2, 4, 5]
    assert left[7] == [2, 4, 6, 7]
    assert checkpoint.best(tmp_path) == 4  # the newest of equals
    got, _ = checkpoint.restore(tmp_path, {"x": jnp.float32(0)}, step=4)
    assert got["x"] == 4
    # A damaged table has no score.
    (tmp_path / "step_00000004" / "prpr.json").write_text("{")
    assert checkpoint.best(tmp_path) == 2
    assert checkpoint.best(tmp_path / "nowhere") is None
    checkpoint.save(tmp_path, 8, {"x": jnp.float32(8)}, {}, keep=1)
    assert checkpoint.best(tmp_path) is None


def save_and_fail(saver):
    with saver:
        saver.save(3, value(3), {})
        raise KeyError


def test_an_error_of_the_thread_is_raised_at_the_next_call(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk has gone\nlong")

    saver = checkpoint.Saver(tmp_path)
    saver.save(1, value(1), {})
    saver.wait()
    for call in (saver.wait, saver.close, lambda: saver.save(3, value(3), {})):
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "write", fail)
            saver.save(2, value(2), {})
            with pytest.raises(CheckpointError, match=r"cannot save step 2 in .*disk has gone$"):
                call()
        assert os.listdir(tmp_path) == ["step_00000001"]
    saver.save(2, value(2), {})  # told once
    saver.close()
    assert checkpoint.latest(tmp_path) == 2
    # What ends the run comes first; the lost save is a note on it.
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write", fail)
        with pytest.raises(KeyError) as caught:
            save_and_fail(checkpoint.Saver(tmp_path))
        assert "cannot save step 3" in caught.value.__notes__[0]
        with pytest.raises(CheckpointError, match="step 3"), checkpoint.Saver(tmp_path) as other:
            other.save(3, value(3), {})


def test_bad_arguments(tmp_path):
    for bad in ({"keep": 0}, {"keep_best": -1}):
        with pytest.raises(ValueError, match="keep"):
            checkpoint.Saver(tmp_path, **bad)
    with checkpoint.Saver(tmp_path) as saver:
        with pytest.raises(ValueError, match="finite, not nan"):
            saver.save(1, {}, {}, score=float("nan"))
        with pytest.raises(TypeError):
            saver.save(1, {}, {"x": object()})
        with pytest.raises(TypeError, match="arrays"):
            saver.save(1, {"a": "text"}, {})
        saver.save(5, {}, {})
        with pytest.raises(CheckpointError, match=r"cannot save step 4 .*step 5 is there"):
            saver.save(4, {}, {})
    assert os.listdir(tmp_path) == ["step_00000005"]


def test_an_inactive_saver_writes_nothing(tmp_path):
    with checkpoint.Saver(tmp_path / "x", active=False) as saver:
        saver.save(1, value(1), {})
        with pytest.raises(ValueError, match="step"):
            saver.save(-1, value(1), {})
    assert os.listdir(tmp_path) == []


# ---- a full disk ----------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit(limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def big(seed):
    return {"x": np.random.default_rng(seed).integers(0, 255, 400_000, np.uint8)}


def fails_for_lack_of_room(root, message, save):
    with pytest.raises(CheckpointError) as caught:
        save()
    text = str(caught.value)
    assert f"cannot save step 2 in {root}: {message}" in text
    assert "\n" not in text
    assert os.listdir(root) == ["step_00000001"]  # and the room it had taken is free again
    got, meta = checkpoint.restore(root, big(0))
    assert meta == {"at": 1}
    same(got, big(1))


def save_by_thread(root):
    with checkpoint.Saver(root) as saver:
        saver.save(2, big(2), {})


def test_a_file_that_may_not_grow(tmp_path, capfd, caplog):
    checkpoint.save(tmp_path, 1, big(1), {"at": 1})
    message = (
        "File too large; step 1 is whole. Make room: raise the limit on the size of a file "
        "(ulimit -f), or lower config.train.keep; then the same command goes on"
    )
    with file_size_limit(50_000):
        fails_for_lack_of_room(tmp_path, message, lambda: checkpoint.save(tmp_path, 2, big(2), {}))
        fails_for_lack_of_room(tmp_path, message, lambda: save_by_thread(tmp_path))
    with file_size_limit(50_000), pytest.raises(CheckpointError, match="nothing was saved before"):
        checkpoint.save(tmp_path / "new", 1, big(1), {})
    checkpoint.save(tmp_path, 2, big(2), {})
    assert checkpoint.latest(tmp_path) == 2
    assert capfd.readouterr() == ("", "")  # Orbax's threads kept quiet
    assert caplog.records == []


def test_a_full_disk(small_disk, capfd, caplog):
    checkpoint.save(small_disk, 1, big(1), {"at": 1})
    message = "No space left on device; step 1 is whole. Make room: free some space there, or lower"
    full = {"x": np.concatenate([big(2)["x"], big(3)["x"]])}
    fails_for_lack_of_room(small_disk, message, lambda: checkpoint.save(small_disk, 2, full, {}))
    checkpoint.save(small_disk, 2, big(2), {})
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


# ---- several devices and processes ----------------------------------------------------

# Two processes with two devices each. First both read what one device wrote, onto all four. Then
# process 0 saves by itself, twice; process 1 never makes the second call, and reads the result.
MEMBER = """
import os, sys, time
import jax, jax.numpy as jnp, numpy as np
from prpr import checkpoint
address, rank, one, four = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, rank)
mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))

def place(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree)

key = jax.random.key(0)
like = {"x": jnp.zeros((8, 3)), "key": key, "keys": jax.random.split(key, 2)}
like = place({**like, "bulk": jnp.zeros(65536)})
if rank:
    state, _ = checkpoint.restore(one, like)  # at different times: nothing is waited for
    time.sleep(0.5)
else:
    time.sleep(0.5)
    state, _ = checkpoint.restore(one, like)
assert all(x.sharding.is_equivalent_to(everywhere, x.ndim) for x in jax.tree.leaves(state))
assert not state["x"].is_fully_addressable

step = jax.jit(lambda s: {**s, "x": s["x"] * 2}, donate_argnums=0, out_shardings=everywhere)
state = step(state)
start = time.time()
with checkpoint.Saver(four) as saver:
    saver.save(1, state, {"by": rank})
    state = step(state)
if rank == 0:
    with checkpoint.Saver(four) as saver:
        saver.save(2, state, {"by": rank})
checkpoint.save(four + "-sync", 1, state, {"by": rank})
took = time.time() - start
assert took < 15, took  # a barrier would time out after more
part = jax.make_array_from_callback((8,), split, lambda index: np.arange(8)[index])
try:
    checkpoint.save(four, 3, {"x": part}, {})
except ValueError as error:
    assert "x is split over processes" in str(error)
else:
    raise AssertionError
while (checkpoint.latest(four) or 0) < 2 or checkpoint.latest(four + "-sync") is None:
    time.sleep(0.05)
if rank:
    back, meta = checkpoint.restore(four, like)
    assert meta == {"by": 0}
    np.testing.assert_array_equal(back["x"].addressable_data(1), state["x"].addressable_data(1))
print("done", flush=True)
jax.distributed.shutdown()
"""


def test_between_one_device_and_two_processes_of_two(tmp_path):
    want = {
        "x": jnp.arange(24, dtype=jnp.float32).reshape(8, 3),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4), 2),
        # 256 KiB that do not compress: the sizes compared below are these, not a few KiB of
        # metadata, whose length varies from save to save.
        "bulk": jax.random.normal(jax.random.key(5), 65536),
    }
    checkpoint.save(tmp_path / "one", 0, want, {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    places = [str(tmp_path / "one"), str(tmp_path / "four")]
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, address, str(rank), *places],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outs = [member.communicate(timeout=90)[0] for member in members]
    finally:
        for member in members:
            member.kill()
    assert [out.strip() for out in outs] == ["done", "done"]
    for folder, step, factor in (("four", 1, 2), ("four", 2, 4), ("four-sync", 1, 4)):
        got, meta = checkpoint.restore(tmp_path / folder, want, step=step)
        assert meta == {"by": 0}
        same(got, {**want, "x": want["x"] * factor})
    # One copy on disk, however many devices held it.
    sizes = [
        sum(p.stat().st_size for p in (tmp_path / f).rglob("*") if p.is_file())
        for f in ("one/step_00000000", "four/step_00000001")
    ]
    assert sizes[1] < sizes[0] * 1.1


def test_leaves_on_several_devices_of_one_process(tmp_path):
    """Replicated is stored once, split is gathered; here with all the devices that there are."""
    code = f"""
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 3)
from prpr import checkpoint
from prpr.checkpoint import leaves
mesh = jax.make_mesh((3,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
def put(x, *spec):
    return jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))
x = jnp.arange(12.0).reshape(6, 2)
mapped = jax.pmap(lambda a: a + 2)(x.reshape(3, 2, 2))
second = jax.device_put(x + 3, jax.devices()[1])
state = {{"replicated": put(x), "split": put(x + 1, "batch"), "mapped": mapped}}
state |= {{"second": second, "free": x + 4}}
taken = leaves.raw(state)[0]
assert [name for name in taken if len(taken[name].devices()) > 1] == ["mapped", "split"]
with checkpoint.Saver({str(tmp_path)!r}) as saver:
    saver.save(1, state, {{}})
    jax.tree.map(lambda a: a.delete(), state)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    want = {"replicated": x, "split": x + 1, "mapped": x.reshape(3, 2, 2) + 2}
    want |= {"second": x + 3, "free": x + 4}
    got, _ = checkpoint.restore(tmp_path, want)
    same(got, want)
