"""checkpoint under SIGKILL: nothing that has a name is broken, and no reported save is lost."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prpr import checkpoint

KILLS = 20  # kills


def assert_identical(got, want):
    assert got["x"].dtype == want["x"].dtype
    np.testing.assert_array_equal(got["x"], want["x"])


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code may catch it."""


@pytest.mark.parametrize("again", [False, True], ids=["next_step", "same_step"])
def test_killed_before_each_change_of_the_directory(tmp_path, monkeypatch, again):
    """Deterministic: stop before the 1st, 2nd, ... rename or removal, until none is left."""
    new = 20 if again else 30
    rmtree = shutil.rmtree

    def tiny(seed):
        return {"x": np.full(3, seed)}

    for step in (10, 20):
        checkpoint.save(tmp_path / "start", step, tiny(step), {"at": step})
    for calls in range(20):
        root = tmp_path / str(calls)
        shutil.copytree(tmp_path / "start", root)
        left = [calls]

        def stopping(function, left=left):
            def call(*args, **kwargs):
                if not left[0]:
                    if function is rmtree:  # killed in the middle of it
                        next(p for p in sorted(Path(args[0]).rglob("*")) if p.is_file()).unlink()
                    raise Killed
                left[0] -= 1
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", stopping(os.rename))
            patch.setattr(shutil, "rmtree", stopping(rmtree))
            try:
                checkpoint.save(root, new, tiny(99), {"at": 99}, keep=1)
                finished = True
            except Killed:
                finished = False
        newest = checkpoint.latest(root)
        named = {int(name[5:13]) for name in os.listdir(root) if name.startswith("step_")}
        assert newest == max(named)
        for step in named:  # nothing that looks like a checkpoint is half of one
            got, meta = checkpoint.restore(root, tiny(0), step=step)
            assert meta["at"] in ({step, 99} if step == new else {step})
            assert_identical(got, tiny(meta["at"]))
        checkpoint.save(root, 40, tiny(40), {}, keep=1)
        assert os.listdir(root) == ["step_00000040"]
        if finished:
            break
    assert finished
    assert calls >= 4


# One process imports everything once, then forks a child for each line "delay" on its standard
# input, kills it that long after its first durable save, and answers with what the child reported.
# JAX itself starts in the children only, so the fork is safe.
NURSERY = """
import os, signal, sys, time
import jax, jax.numpy as jnp
from orbax import checkpoint as ocp
from prpr import checkpoint
directory = sys.argv[1]

def save_for_ever(report):
    step = checkpoint.latest(directory) or 0
    state = {"x": jnp.full((40, 50), step, jnp.float32), "y": [jnp.full(3, step)] * 3}
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + x.dtype.type(1), s), donate_argnums=0)
    state["y"] = [jnp.array(y) for y in state["y"]]
    with checkpoint.Saver(directory, keep=2, keep_best=1) as saver:
        while True:
            state = advance(state)
            step += 1
            saver.save(step, state, {"step": step}, score=-abs(step % 7 - 3))
            if step % 3 == 0:
                state = advance(jax.tree.map(lambda x: x - x.dtype.type(1), state))
                saver.save(step, state, {"step": step}, score=-abs(step % 7 - 3))
            if step % 2 == 0:
                saver.wait()
                os.write(report, b"%d\\n" % step)

for line in sys.stdin:
    out, report = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            save_for_ever(report)
        finally:
            os._exit(1)
    os.close(report)
    first = os.read(out, 1)
    time.sleep(float(line))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(out, "rb") as file:
        print((first + file.read()).split()[-1].decode(), flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL in the midst of a `Saver`'s work, 20 times, each time going on from what is left."""
    rng = random.Random(0)
    like = {"x": np.zeros((40, 50), np.float32), "y": [np.zeros(3, np.int32)] * 3}
    caught = 0
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        done = 0
        for _ in range(KILLS):
            nursery.stdin.write(f"{rng.uniform(0.0, 0.2)}\n")
            nursery.stdin.flush()
            answer = nursery.stdout.readline()
            assert answer, "the nursery died"
            assert int(answer) >= done
            done = int(answer)
            step = checkpoint.latest(tmp_path)
            assert step is not None
            assert done <= step <= done + 2  # whole, but not reported yet
            names = os.listdir(tmp_path)
            caught += any(name.startswith("tmp.") for name in names)
            named = {int(name[5:13]) for name in names if name.startswith("step_")}
            assert len(named) >= min(step, 2)
            for known in named:
                state, meta = checkpoint.restore(tmp_path, like, step=known)
                assert meta == {"step": known}
                assert np.all(state["x"] == known)
                assert all(np.all(y == known) for y in state["y"])
        nursery.stdin.close()
    assert caught >= KILLS // 4  # else the kills came between saves and show nothing
    checkpoint.save(tmp_path, step + 1, like, {}, keep=2)
    assert not [name for name in os.listdir(tmp_path) if not name.startswith("step_")]
