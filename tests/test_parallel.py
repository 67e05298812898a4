"""Devices and processes: real ones, in subprocesses (pytest itself has one device)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prpr import objectives, parallel, processes, ratio, train
from prpr.errors import ConfigError, Preempted
from prpr.models import biggan, layers, small
from prpr.models.flows.couplings import AffineCoupling
from prpr.models.flows.flow import Flow
from prpr.models.flows.residual import Residual

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
def test_placing_pads_and_fetching_drops(runs):
    fleet = parallel.Fleet(1)
    fleet.width = 3
    trees = [{"a": np.full((2,), i), "b": jnp.float32(i)} for i in range(runs)]
    full = fleet.place(trees)
    assert full["a"].shape == (3, 2)
    np.testing.assert_array_equal(full["b"][runs - 1 :], runs - 1)
    back = fleet.fetch(full, runs)
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


@pytest.mark.parametrize("mapping", [jax.lax.map, "vmap"])
def test_runs_that_share_a_device_are_those_that_have_one_each(mapping, monkeypatch):
    """One after another the same bits; side by side up to the order of sums."""
    if mapping == "vmap":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    fleet, traces = parallel.Fleet(1, together=2), []
    assert fleet.width == 2
    step = train.make_step(system())

    def counted(state: train.TrainState, items: train.Batch) -> Any:
        traces.append(1)
        return step(state, items)

    mapped, runs = fleet.map(counted), states()
    for group in ((0, 1), (2,)):
        state = fleet.place([runs[i] for i in group])
        for s in range(STEPS):
            state, scalars = mapped(state, fleet.batch([batch(i, s) for i in group]))
        assert [one["finite"] for one in fleet.fetch(scalars, len(group))] == [1.0] * len(group)
        for i, found in zip(group, fleet.fetch(state, len(group)), strict=True):
            alone = runs[i]
            for s in range(STEPS):
                alone, _ = jax.jit(step)(alone, batch(i, s))
            if mapping == "vmap":
                np.testing.assert_allclose(flat(found), flat(alone), rtol=1e-4, atol=1e-6)
            else:
                np.testing.assert_array_equal(flat(found), flat(alone))
    assert len(traces) == 1


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
        state = fleet.place([runs[i] for i in group])
        for s in range(STEPS):
            state, scalars = mapped(state, fleet.batch([batch(i, s) for i in group]))
        assert scalars["finite"].shape == (2,)
        results += [flat(one) for one in fleet.fetch(state, len(group))]
        counts.append((len(traces), len(compiled)))
    assert counts[0][1] > 0
    np.savez(path, results=np.stack(results), counts=np.array(counts))


def start(code: str, flags: str = "") -> subprocess.Popen:
    """A Python of its own, with this folder on its path and these flags of XLA, to run `code`."""
    here = Path(__file__).parent
    lines = f"import sys; sys.path[:0] = [{str(here)!r}]; import conftest, test_parallel; {code}"
    return subprocess.Popen(
        [sys.executable, "-c", lines],
        cwd=here.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "XLA_FLAGS": flags},
    )


def finish(*processes: subprocess.Popen) -> list[tuple[int, str]]:
    """(exit code, standard error) of each."""
    try:
        ended = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()  # one that hangs must not outlive its test
            process.wait()
            for pipe in (process.stdout, process.stderr):
                pipe.close()
    return [(p.returncode, err) for p, (_, err) in zip(processes, ended, strict=True)]


def test_two_devices_give_the_numbers_of_single_runs_with_one_compilation(tmp_path):
    path = tmp_path / "out.npz"
    ((code, err),) = finish(start(f"test_parallel.child({str(path)!r})"))
    assert code == 0, err
    out = np.load(path)
    np.testing.assert_array_equal(out["counts"][:, 0], 1)
    assert out["counts"][0, 1] == out["counts"][1, 1]

    step = jax.jit(train.make_step(system()))
    for i, state in enumerate(states()):
        for s in range(STEPS):
            state, _ = step(state, batch(i, s))
        np.testing.assert_array_equal(out["results"][i], flat(state))


# ---- one batch over devices and processes ---------------------------------------------------

B, TEAM_STEPS = 16, 20
# Compiling is nearly all of these children's time, and their programs run a few steps only.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes"


def team_system(axis_name: str | None, accumulate: int = 1) -> train.System:
    """A BigGAN with batch norm and spectral norm everywhere, and SGD: Adam would hide a factor."""
    style = layers.Style(axis_name=axis_name)
    return train.System(
        generator=biggan.Generator(
            8, 3, image_channels=1, ch=8, dim_z=8, shared_dim=3, attention_at=(8,), style=style
        ),
        critic=biggan.Critic(8, 3, ch=8, style=style),
        critic_loss=ratio.get("logistic", scale=3.0),
        objective=objectives.get("envelope"),
        critic_tx=optax.sgd(0.002),
        generator_tx=optax.sgd(0.002),
        dim_z=8,
        num_classes=3,
        ema=0.5,
        axis_name=axis_name,
        accumulate=accumulate,
    )


def team_batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    image = rng.integers(0, 256, (B, 8, 8, 1), np.uint8)  # as files give them
    label = rng.integers(0, 3, B).astype(np.int32)
    return {"image": image, "label": label, "index": np.int32(0), "advance": np.int32(0)}


def team_run(devices: int, accumulate: int = 1) -> dict[str, Any]:
    """Twenty steps on a team: losses, all weights, held-out log-ratios, replicas equal.

    In a process of its own, with smooth activations and small steps: at a ReLU's kink the order
    of a sum can flip a unit's gradient, and then the ends differ by far more than sums do.
    """
    jax.nn.relu = jax.nn.silu
    team = parallel.Team(devices)
    system = team_system(team.axis_name, accumulate)
    # One device's: the mapped axis has no name there.
    alone = team_system(None, accumulate)
    dials = {"lam": 2.0, "tau": 0.5}
    state = jax.jit(lambda key: train.init(alone, key, jnp.zeros((2, 8, 8, 1)), dials))(
        jax.random.key(1)
    )
    processes = jax.process_count()
    n = B // (team.share * processes)
    critic = team.map(lambda s, b: train.critic_update(system, s, b), donate=True)
    generator = team.map(lambda s: train.generator_update(system, s, n), donate=True)
    held_out = team.map(lambda s, b: train.held_out(system, s, b))

    def mine(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        part = {k: np.split(batch[k], processes)[jax.process_index()] for k in ("image", "label")}
        return {**batch, **part}

    placed, scalars = team.place([jax.device_get(state)]), []
    for step in range(TEAM_STEPS):
        placed, one = critic(placed, team.batch([mine(team_batch(step))]))
        placed, two = generator(placed)
        scalars.append([float(v) for v in jax.tree.leaves(team.fetch((one, two), 1))])
    log_r = team.fetch(held_out(placed, team.batch([mine(team_batch(99))])), 1)[0]
    assert log_r["data"].shape == log_r["samples"].shape == (B,)
    equal = team.equal(placed)
    (end,) = team.fetch(placed, 1)
    return {
        "scalars": np.array(scalars),
        "weights": np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves((end.critic, end.generator, end.ema))]
        ),
        "log_norm": np.asarray(end.log_norm),
        "data": np.sort(log_r["data"]),
        "samples": np.sort(log_r["samples"]),
        "equal": np.asarray(equal),
    }


def team_child(path: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    out = {}
    for name, devices, pieces in (
        ("1", 1, 1),
        ("2", 2, 1),
        ("4", 4, 1),
        ("1x2", 1, 2),
        ("2x2", 2, 2),
    ):
        out |= {f"{name}/{key}": value for key, value in team_run(devices, pieces).items()}
    # One replica that differs in a single bit of a single leaf is seen.
    team = parallel.Team(4)
    good = team.place([{"a": np.arange(6, dtype=np.float32), "k": jax.random.key(0)}])
    copies = [np.arange(6, dtype=np.float32) for _ in range(4)]
    copies[2][3] = np.nextafter(copies[2][3], np.float32(9))
    bad = jax.make_array_from_single_device_arrays(
        (6,),
        good["a"].sharding,
        [jax.device_put(c, d) for c, d in zip(copies, team.devices, strict=True)],
    )
    assert team.equal(good)
    assert not team.equal({**good, "a": bad})
    np.savez(path, **out)


def process_child(path: str, port: int, number: int) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    with processes.session(processes.Cluster(f"127.0.0.1:{port}", 2, number, silence=10)):
        assert jax.device_count() == 4
        assert jax.process_count() == 2
        processes.agree({"a": 1, "b": "x"})
        found = team_run(2)
        if processes.first():
            np.savez(path, **found)


def close(one: Any, other: Any, name: str) -> None:
    for key in ("scalars", "weights", "log_norm", "data", "samples"):
        # Each scalar by its own size: E_q[r̂] is billions at first, a loss is about one.
        scale = np.abs(other[key]).max(0)
        error = np.abs(one[key] - other[key]) / np.where(scale > 0, scale, 1)
        assert error.max() <= 1e-5, f"{name} {key}: {error.max():.1e} at {error.argmax()}"


@pytest.fixture(scope="module")
def teams(tmp_path_factory, free_port) -> dict[str, dict[str, np.ndarray]]:
    """name -> what `team_run` gave, in one process with 1, 2, 4 devices and in two processes."""
    folder = tmp_path_factory.mktemp("teams")
    port = free_port()
    one, two = str(folder / "one.npz"), str(folder / "two.npz")
    ((code, err),) = finish(start(f"test_parallel.team_child({one!r})", QUICK))
    assert code == 0, err
    ended = finish(
        *(start(f"test_parallel.process_child({two!r}, {port}, {i})", QUICK) for i in range(2))
    )
    assert [code for code, _ in ended] == [0, 0], ended
    found: dict[str, dict[str, np.ndarray]] = {"processes": dict(np.load(two))}
    for key, value in np.load(one).items():
        name, part = key.split("/")
        found.setdefault(name, {})[part] = value
    return found


@pytest.mark.parametrize("name", ["2", "4", "processes"])
def test_devices_and_processes_give_the_numbers_of_one_device(teams, name):
    close(teams[name], teams["1"], name)
    assert all(team["equal"] for team in teams.values())
    # And they are not the numbers of the start.
    assert np.ptp(teams["1"]["scalars"], axis=0).max() > 0.01


def test_pieces_and_devices_commute(teams):
    close(teams["2x2"], teams["1x2"], "two devices, two pieces")
    # Batch norm sees half the batch at a time: other numbers, for a known reason.
    assert np.abs(teams["1x2"]["weights"] - teams["1"]["weights"]).max() > 1e-4


def test_pieces_change_nothing_without_batch_norm():
    """Gradients, singular vectors and E_q[r̂] are those of the whole batch."""
    plain = system()
    items = {**batch(0, 0), "index": np.int32(0), "advance": np.int32(0)}
    items["image"], items["label"] = items["image"][0], items["label"][0]
    ends = []
    for pieces in (1, 4):
        pieced = plain._replace(accumulate=pieces)
        state = states()[0]
        for _ in range(2):
            state, scalars = train.critic_update(pieced, state, items)
            state, more = train.generator_update(pieced, state, 16)
        ends.append((flat(state), np.asarray(state.log_norm), scalars, more))
    for one, other in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


# ---- densities ------------------------------------------------------------------------------

ROUTES = ("likelihood", "data", "balanced", "implicit")


def density_system(route: Any, axis_name: str | None, accumulate: int = 1) -> train.System:
    """A flow on a grid of values; where no critic slows it, with probes for its log-determinant."""
    critic = route in ("data", "balanced")
    bijector = Residual((3,), width=8, depth=1, exact_dim=2)
    if critic:
        bijector = AffineCoupling((3,), width=8, depth=1)
    return train.System(
        generator=Flow((3,), bijector, 2, 4, levels=17),
        critic=small.Critic(2, width=8, depth=1),
        critic_loss=ratio.get("logistic"),
        objective=objectives.get("smoothed_pr" if route == "implicit" else "envelope"),
        critic_tx=optax.sgd(0.05),
        generator_tx=optax.sgd(0.2),
        dim_z=3,
        num_classes=2,
        critic_steps=int(critic),
        ema=0.5,
        axis_name=axis_name,
        accumulate=accumulate,
        route=route,
        exact=route == "data",
        reference=route in ("data", "implicit"),
        levels=17,
    )


def density_batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    image = (rng.integers(0, 17, (B, 3)) / 8 - 1).astype(np.float32)
    label = rng.integers(0, 2, B).astype(np.int32)
    return {"image": image, "label": label, "index": np.int32(0), "advance": np.int32(0)}


def density_run(route: str, devices: int, accumulate: int = 1) -> dict[str, Any]:
    """A few steps of a route on a team: scalars, all weights, each held-out item's values."""
    team = parallel.Team(devices)
    system = density_system(route, team.axis_name, accumulate)
    alone = density_system(route, None, accumulate)
    dials = {"lam": 2.0, "tau": 0.5, "epsilon": 0.1, "width": 1.0}
    state = jax.jit(lambda key: train.init(alone, key, jnp.zeros((2, 3)), dials))(jax.random.key(1))
    # Away from the identity, where every log-determinant is 0.
    moved = jax.tree.map(lambda leaf: leaf + 0.3, state.generator.params)
    state = state.replace(generator=state.generator.replace(params=moved))
    critic = team.map(lambda s, b: train.critic_update(system, s, b))
    generator = team.map(lambda s, b: train.generator_update(system, s, b))
    placed, scalars = team.place([jax.device_get(state)]), []
    for step in range(4):
        one: Any = {}
        if system.critic_steps:
            placed, one = critic(placed, team.batch([density_batch(step)]))
        placed, two = generator(placed, team.batch([density_batch(100 + step)]))
        scalars.append([float(v) for v in jax.tree.leaves(team.fetch((one, two), 1))])
    held_out = team.map(lambda s, b: train.held_out(system, s, b))
    found = team.fetch(held_out(placed, team.batch([density_batch(99)])), 1)[0]
    (end,) = team.fetch(placed, 1)
    leaves = jax.tree.leaves((end.critic.params, end.generator.params, end.ema.params))
    return {
        "scalars": np.array(scalars),
        "weights": np.concatenate([np.ravel(leaf) for leaf in leaves]),
        # A norm is one number a device.
        **{f"held_out_{k}": values for k, values in found.items() if not k.endswith("_norm")},
    }


def density_child(path: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    out = {}
    for route in ROUTES:
        # Of the balanced route a baseline is the mean of a piece: pieces give other numbers.
        cuts = (4, 1) if route == "balanced" else (2, 2)
        for name, (devices, pieces) in (("whole", (1, 1)), ("cut", cuts)):
            for key, value in density_run(route, devices, pieces).items():
                out[f"{route}/{name}/{key}"] = value
    np.savez(path, **out)


@pytest.fixture(scope="module")
def densities(tmp_path_factory) -> dict[str, np.ndarray]:
    path = str(tmp_path_factory.mktemp("densities") / "out.npz")
    ((code, err),) = finish(start(f"test_parallel.density_child({path!r})", QUICK))
    assert code == 0, err
    return dict(np.load(path))


@pytest.mark.parametrize("route", ROUTES)
def test_a_density_learns_alike_on_devices_and_in_pieces(densities, route):
    """Noise, latents and probes are an item's own, wherever it is computed."""
    keys = {"scalars", "weights", "held_out_log_likelihood"}
    if route in ("data", "balanced"):
        keys |= {
            f"held_out_{one}{seen}"
            for one in ("data", "samples")
            for seen in ("", "_seen", "_prior")
        }
    assert {name for name in densities if name.startswith(route)} == {
        f"{route}/{cut}/{key}" for cut in ("whole", "cut") for key in keys
    }
    for key in keys:
        whole, cut = (densities[f"{route}/{name}/{key}"] for name in ("whole", "cut"))
        atol = 2e-5 * np.abs(whole).max()
        np.testing.assert_allclose(cut, whole, rtol=2e-5, atol=atol, err_msg=key)
        assert key.endswith("_prior") or np.ptp(whole, axis=0).max() > 0.01, key


def disagree_child(port: int, number: int) -> None:
    with processes.session(processes.Cluster(f"127.0.0.1:{port}", 2, number, silence=10)):
        processes.agree({"config.lams": (0.2,) if number else (0.5,), "config.seeds": (0,)})


def test_processes_that_disagree_end_and_say_on_what(free_port):
    port = free_port()
    ended = finish(*(start(f"test_parallel.disagree_child({port}, {i})") for i in range(2)))
    for number, (code, err) in enumerate(ended):
        assert code == 2, err
        assert f"error: process {number}: the processes disagree on config.lams" in err
        assert "config.seeds" not in err


def waiting_child(port: int, number: int) -> None:
    """Process 1 ends without a word while process 0 waits for it."""
    with processes.session(processes.Cluster(f"127.0.0.1:{port}", 2, number, silence=10)):
        processes.wait("begun")
        if number:
            os._exit(3)


def preempted_child(port: int, number: int) -> None:
    """Process 0 is asked for an end, and process 1 has nothing left to do."""
    with processes.session(processes.Cluster(f"127.0.0.1:{port}", 2, number, silence=10)):
        if not number:
            raise Preempted("saved in runs/x")


def test_a_process_that_waits_for_a_dead_one_says_so(free_port):
    port = free_port()
    ended = finish(*(start(f"test_parallel.waiting_child({port}, {i})") for i in range(2)))
    assert [code for code, _ in ended] == [1, 3], ended
    assert "error: process 0: process 0 of 2 ends: another process died" in ended[0][1]
    assert "Traceback" not in ended[0][1]


def test_one_preempted_process_ends_all_in_order(free_port):
    port = free_port()
    ended = finish(*(start(f"test_parallel.preempted_child({port}, {i})") for i in range(2)))
    assert [code for code, _ in ended] == [75, 75], ended
    assert "stopped by SIGTERM; saved in runs/x" in ended[0][1]


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (processes.Cluster("localhost:1"), "go together: 'localhost:1', 0, -1"),
        (processes.Cluster("localhost:1", 2, 2), "--process_id=2: must be below --processes=2"),
        # JAX would end in a traceback, a segmentation fault, and never.
        (processes.Cluster("localhost", 2, 0), "--coordinator=localhost: must be HOST:PORT"),
        (
            processes.Cluster("localhost:one", 2, 0),
            "--coordinator=localhost:one: must be HOST:PORT",
        ),
        (processes.Cluster(":", 2, 0), "--coordinator=:: must be HOST:PORT"),
        (processes.Cluster("localhost:65536", 2, 0), "a port from 1 to 65535"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(cluster, message):
    with pytest.raises(ConfigError, match=message):
        processes.join(cluster)
