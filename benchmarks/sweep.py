"""K values of λ in one command against K commands; and in one program, which mapping is fastest.

    python benchmarks/sweep.py commands [--counts 1,2,4,8] [--steps 200] [--config FILE]
    python benchmarks/sweep.py steps [--counts 1,2,4,8,16] [--model digits,plane] [--rounds 5]

commands: wall-clock time of experiments/finetune_biggan.py at K values of λ from a finished base,
  against K such commands of one λ each, one after the other and two at a time. All sides have a
  compile cache of their own, which is empty at the start (so the second separate command finds
  what the first compiled), and score what they train. Printed: one command's time over the others';
  aim: at most .6 at K = 8 on two cores.

steps: time of one step (critic updates and a generator update) of K runs on one device: a program
  called for each run in turn, one program with lax.map over the runs, one with vmap. Printed: their
  times over that of turns. What `prpr.parallel` does: turns by default, with train.together > 1
  lax.map on a CPU and vmap elsewhere. Aim on a GPU: vmap at most 1/3 at digits' size.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


# ---- commands -------------------------------------------------------------------------


def lams_of(count: int) -> list[float]:
    """`count` values of λ from .05 to 20."""
    return [round(0.05 * 400 ** (i / max(count - 1, 1)), 4) for i in range(count)]


def command(config: str, lams: Sequence[float], base: Path, workdir: Path, steps: int) -> list[str]:
    return [
        sys.executable,
        "experiments/finetune_biggan.py",
        f"--config={config}",
        f"--config.lams={','.join(map(str, lams))}",
        f"--config.base.path={base}",
        "--config.control=False",
        f"--config.train.steps={steps}",
        f"--workdir={workdir}",
    ]


def timed(commands: Sequence[list[str]], jobs: int, cache: Path) -> float:
    """Seconds of all commands, `jobs` at a time; ends the program where one fails."""
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    start, running, todo = time.perf_counter(), [], list(commands)
    while todo or running:
        while todo and len(running) < jobs:
            running.append(
                subprocess.Popen(
                    todo.pop(0),
                    cwd=ROOT,
                    env=env,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        done = running.pop(0)
        _, err = done.communicate()
        if done.returncode:
            sys.exit(f"{' '.join(done.args[1:])} failed:\n{err}")
    return time.perf_counter() - start


def commands(counts: Sequence[int], steps: int, config: str) -> None:
    """Prints a line for each K."""
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        base = folder / "base"
        timed(
            [
                [
                    sys.executable,
                    "experiments/train_gan.py",
                    f"--config={config}:base",
                    f"--config.train.steps={steps}",
                    f"--workdir={base}",
                ]
            ],
            1,
            folder / "cache-base",
        )
        print(
            f"{'K':>3} {'one, s':>8} {'K in turn, s':>13} {'ratio':>6} {'two at a time':>14} ratio"
        )
        for count in counts:
            lams = lams_of(count)
            each = [[lam] for lam in lams]
            sides = {"one": [lams], "turn": each, "two": each}
            took = {}
            for name, groups in sides.items():
                many = [
                    command(config, group, base, folder / f"{name}-{count}-{i}", steps)
                    for i, group in enumerate(groups)
                ]
                took[name] = timed(
                    many, 2 if name == "two" else 1, folder / f"cache-{name}-{count}"
                )
            turn, two = took["one"] / took["turn"], took["one"] / took["two"]
            print(
                f"{count:3} {took['one']:8.1f} {took['turn']:13.1f} {turn:6.2f} "
                f"{took['two']:14.1f} {two:5.2f}",
                flush=True,
            )


# ---- steps ----------------------------------------------------------------------------


def configured(model: str):
    """Our configuration of a model's size."""
    import importlib.util

    name, argument = {"digits": ("digits", ""), "plane": ("toy_2d", "gan")}[model]
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def clock(call: Callable[[], None], seconds: float) -> float:
    """Seconds of a call, the mean over about so many."""
    call()
    start = time.perf_counter()
    call()
    times = max(1, round(seconds / max(time.perf_counter() - start, 1e-6)))
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def steps(counts: Sequence[int], model: str, rounds: int, seconds: float) -> None:
    """Prints a line for each K of one model."""
    import jax
    import jax.numpy as jnp

    from prpr import build, train

    cfg = configured(model)
    dataset = build.splits(cfg).train
    system = build.system(cfg, dataset)
    example = build.example(system, dataset)
    batches = build.batches(cfg, dataset, 0)
    items = [batches.batch(i) for i in range(system.reads)]
    critic = jax.jit(lambda s, b: train.critic_update(system, s, b), donate_argnums=0)
    moves = build.generator_step(system, build.share(cfg, 1))
    dials = build.dials(cfg, 1.0)
    makes = jax.jit(lambda key: train.init(system, key, example, dials))

    def stacked(tree, count: int):
        return jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * count), tree)

    def side(kind: str, count: int) -> Callable[[], None]:
        states = [makes(jax.random.key(i)) for i in range(count)]
        placed = [
            {**item, "index": jnp.int32(i), "advance": jnp.int32(0)} for i, item in enumerate(items)
        ]
        if kind == "turns":
            generator = jax.jit(moves, donate_argnums=0)

            def turns() -> None:
                for i, state in enumerate(states):
                    for item in placed[: system.critic_steps]:
                        state, _ = critic(state, item)
                    states[i], _ = generator(state)
                jax.block_until_ready(states)

            return turns

        def mapped(fn):
            if kind == "vmap":
                return jax.vmap(fn)
            return lambda *given: jax.lax.map(lambda own: fn(*own), given)

        own = jax.jit(mapped(lambda s, b: train.critic_update(system, s, b)), donate_argnums=0)
        last = jax.jit(mapped(moves), donate_argnums=0)
        whole = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)]
        wide = [stacked(item, count) for item in placed]

        def one() -> None:
            state = whole[0]
            for item in wide[: system.critic_steps]:
                state, _ = own(state, item)
            whole[0], _ = last(state)
            jax.block_until_ready(whole[0])

        return one

    for count in counts:
        kinds = ("turns", "map", "vmap")
        sides = {kind: side(kind, count) for kind in kinds}
        took: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, call in sides.items():
                took[kind].append(clock(call, seconds))
        base = statistics.median(took["turns"])
        ratios = {
            kind: statistics.median(a / b for a, b in zip(took[kind], took["turns"], strict=True))
            for kind in kinds[1:]
        }
        print(
            f"{model:8} {count:3} {1e3 * base:10.2f} {ratios['map']:8.2f} {ratios['vmap']:8.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("commands", "steps"))
    parser.add_argument("--counts", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=200, help="of every run, and of the base")
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--model", default="digits,plane")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in a round")
    given = parser.parse_args()
    counts = [int(one) for one in given.counts.split(",")]
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    if given.what == "commands":
        print(f"{given.config}, {given.steps} steps a run; {load}")
        commands(counts, given.steps, given.config)
        return
    import jax

    print(f"{jax.devices()[0].device_kind}, one device; {load}")
    print(f"{'model':8} {'K':>3} {'turns, ms':>10} {'lax.map':>8} {'vmap':>8}")
    for model in given.model.split(","):
        steps(counts, model, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
