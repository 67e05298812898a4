"""Runs over devices: stacking here, two devices in one subprocess (pytest itself has one)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import objectives, parallel, ratio, train
from prpr.errors import ConfigError
from prpr.models import small

LAMS = (0.3, 1.0, 4.0)
STEPS = 3


def test_setup_takes_no_more_devices_than_there_are_and_runs_need():
    found = jax.local_device_count()  # starts JAX, so that setup cannot make more
    assert parallel.setup(0, runs=5) == min(found, 5)
    assert parallel.setup(0, runs=1) == 1
    assert parallel.setup(1, runs=5) == 1
    # More than there are, but the runs do not need them either.
    assert parallel.setup(found + 1, runs=1) == 1
    with pytest.raises(ConfigError, match=f"config.train.devices = {found + 1}.*has {found} cpu"):
        parallel.setup(found + 1, runs=found + 3)


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_stack_pads_and_unstack_drops(runs):
    fleet = parallel.Fleet(1)
    fleet.width = 3
    trees = [{"a": np.full((2,), i), "b": jnp.float32(i)} for i in range(runs)]
    full = fleet.stack(trees)
    assert full["a"].shape == (3, 2)
    assert isinstance(full["a"], np.ndarray)  # host arrays stay there
    np.testing.assert_array_equal(full["b"][runs - 1 :], runs - 1)
    back = fleet.unstack(full, runs)
    assert len(back) == runs
    for old, new in zip(trees, back, strict=True):
        np.testing.assert_array_equal(new["a"], old["a"])
        np.testing.assert_array_equal(new["b"], old["b"])


def system() -> train.System:
    return train.System(
        generator=small.Generator(2, width=8, depth=1),
        critic=small.Critic(width=8, depth=1),
        critic_loss=ratio.get("logistic"),
        objective=objectives.get("envelope"),
        # Momentum, a state to be stacked; Optax's Adam does not run with strict dtypes.
        critic_tx=optax.sgd(0.05, momentum=0.5),
        generator_tx=optax.sgd(0.05, momentum=0.5),
        dim_z=2,
        num_classes=1,
    )


def states() -> list[train.TrainState]:
    make = jax.jit(
        lambda key, lam: train.init(
            system(), key, jnp.zeros((4, 2)), {"lam": lam, "tau": jnp.float32(0.5)}
        )
    )
    return [make(jax.random.key(i), jnp.float32(lam)) for i, lam in enumerate(LAMS)]


def batch(run: int, step: int) -> dict[str, np.ndarray]:
    image = np.random.default_rng((run, step)).standard_normal((1, 16, 2)).astype(np.float32)
    return {"image": image, "label": np.zeros((1, 16), np.int32)}


def flat(state: Any) -> np.ndarray:
    leaves = jax.tree.leaves((state.critic, state.generator, state.ema, state.generator_opt))
    return np.concatenate([np.asarray(leaf, np.float32).ravel() for leaf in leaves])


def child(path: str) -> None:
    """What the subprocess runs: three runs in two groups over two devices, one compilation."""
    assert parallel.setup(5, runs=2) == 2
    assert jax.local_device_count() == 2  # and no more than the runs can use
    fleet = parallel.Fleet(2)
    assert fleet.width == 2
    runs = states()
    traces, compiled = [], []
    step = train.make_step(system())

    def counted(state: train.TrainState, items: train.Batch) -> Any:
        traces.append(1)
        return step(state, items)

    mapped = fleet.map(counted)

    def on_compile(event: str, _: float, **__: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(on_compile)
    results, counts = [], []
    for first in (0, 2):
        group = range(first, min(first + 2, 3))
        state = fleet.stack([runs[i] for i in group])
        for s in range(STEPS):
            state, scalars = mapped(state, fleet.stack([batch(i, s) for i in group]))
        assert scalars["finite"].shape == (2,)
        results += [flat(one) for one in fleet.unstack(state, len(group))]
        counts.append((len(traces), len(compiled)))
    assert counts[0][1] > 0
    np.savez(path, results=np.stack(results), counts=np.array(counts))


def test_two_devices_give_the_numbers_of_single_runs_with_one_compilation(tmp_path):
    path = tmp_path / "out.npz"
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = [{str(here)!r}]; import conftest, test_parallel; "
        f"test_parallel.child({str(path)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    out = np.load(path)
    np.testing.assert_array_equal(out["counts"][:, 0], 1)
    assert out["counts"][0, 1] == out["counts"][1, 1]

    step = jax.jit(train.make_step(system()))
    for i, state in enumerate(states()):
        for s in range(STEPS):
            state, _ = step(state, batch(i, s))
        np.testing.assert_array_equal(out["results"][i], flat(state))
