"""Times the parts of a command on the devices at hand: a few real steps, after compilation.

What is timed is what a run does, by the same functions: batches from the data through
`data.Loader`, updates mapped over the devices by `prpr.parallel` with the state donated, a
checkpoint through `checkpoint.Saver`, one row by `score.Scorer`. Everything goes to a temporary
folder that is removed.

A measured part is timed in bursts: several calls that the devices run without waiting, then one
wait. The range is (fastest · (1 − MARGIN), median, slowest · (1 + MARGIN)) over the bursts, since a
long run meets what a short one does not: heat, other users, the disk.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prpr import build, checkpoint, config, data, parallel, sampling, score, train
from prpr.planner.card import ZERO, Range, between
from prpr.planner.estimate import Timing
from prpr.planner.phases import Phase

MARGIN = 0.15
BURSTS, BURST_SECONDS = 7, 0.5  # of each kind of update
_SCORED = 2000  # images of the row that is timed; the rest is extrapolated
_MOST = 10**6  # batches that a loader may be asked for


def bursts(call: Callable[[], Any], count: int = BURSTS, length: float = BURST_SECONDS) -> Range:
    """Seconds of one call, which returns arrays that may still be under way.

    Args:
      call: what is timed; called until compiled code is warm, then in bursts.
      count: how many bursts.
      length: seconds that a burst should take; at least one call.
    """
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    once = time.perf_counter() - start
    calls = max(1, min(1000, round(length / max(once, 1e-6))))
    found = []
    for _ in range(count):
        start = time.perf_counter()
        for _ in range(calls - 1):
            call()
        jax.block_until_ready(call())
        found.append((time.perf_counter() - start) / calls)
    return spread(found)


def spread(found: Sequence[float]) -> Range:
    """The range of measured seconds; see the module."""
    return Range(min(found) * (1 - MARGIN), statistics.median(found), max(found) * (1 + MARGIN))


class _Runs:
    """One group of runs of one program on the devices, ready to be stepped."""

    def __init__(self, cfg: config.Config, parts: build.Splits, devices: int):
        self.fleet = parallel.fleet(cfg.train.layout, devices, cfg.train.together)
        self._cfg, self._parts = cfg, parts
        self.system = build.system(cfg, parts.train, self.fleet.axis_name)
        alone = build.system(cfg, parts.train)
        example = build.example(alone, parts.train)
        first = jax.jit(lambda key: train.init(alone, key, example, build.dials(cfg, None)))
        states = [first(jax.random.key(i)) for i in range(self.fleet.width)]
        self.state = self.fleet.place(states)
        items = build.share(cfg, self.fleet.share)
        self._critic = self.fleet.map(
            lambda state, batch: train.critic_update(self.system, state, batch), donate=True
        )
        self._generator = self.fleet.map(build.generator_step(self.system, items), donate=True)
        self._held_out = self.fleet.map(
            lambda state, batch: train.held_out(self.system, state, batch)
        )

    def stream(self) -> data.Loader:
        """The batches of all runs on the devices, prepared as a run prepares them."""
        train_set, width = self._parts.train, self.fleet.width
        sources = [build.batches(self._cfg, train_set, seed) for seed in range(width)]
        return build.stream(self._cfg, self.fleet, sources, range(_MOST), lambda _: (0, False))

    def critic(self, loader: data.Loader) -> Any:
        """One critic update of every run, its batches included."""
        self.state, scalars = self._critic(self.state, next(loader)[1])
        return scalars

    def generator(self, loader: data.Loader) -> Any:
        """One generator update of every run, with its batch where it reads one."""
        batch = (next(loader)[1],) if self.system.reads_data else ()
        self.state, scalars = self._generator(self.state, *batch)
        return scalars

    def check(self) -> tuple[Callable[[], Any], int]:
        """A piece of every run's held-out check, as the trainer makes it, and how many it has."""
        valid, share = self._parts.valid, self.fleet.share
        size = min(self._cfg.train.diagnose_size, valid.size)
        items = build.share(self._cfg, share) // self.system.accumulate
        piece = min(items * share, size // share * share)
        batch = {**valid.read(build.spread(valid.size, piece)), "index": np.int32(0)}
        placed = self.fleet.batch([batch] * self.fleet.width)
        pieces = size // piece * (1 + self.system.has_ratio)  # of training data as many
        return lambda: self._held_out(self.state, placed), pieces


def timing(cfg: config.Config, todo: Sequence[Phase], devices: int) -> tuple[Timing, list[str]]:
    """Measured seconds of every part, and what was done to get them.

    Args:
      cfg: a valid configuration.
      todo: from `phases.work`; base and control share a program, and are timed once where they
        have one batch.
      devices: from `parallel.setup`.
    """
    parts = build.check(cfg, devices)
    updates: dict[str, tuple[Range, Range]] = {}
    checks: dict[str, Range] = {}
    compiled, timed = 0.0, {}
    last: _Runs | None = None
    for phase in todo:
        program = (phase.name == "λ", phase.cfg.train.batch)
        if program in timed:
            updates[phase.name], checks[phase.name] = timed[program]
            continue
        last = _Runs(phase.cfg, parts, devices)
        check, pieces = last.check()
        with last.stream() as loader:
            start = time.perf_counter()
            if phase.critic_updates:
                jax.block_until_ready(last.critic(loader))
            jax.block_until_ready(last.generator(loader))
            jax.block_until_ready(check())
            compiled += time.perf_counter() - start
            critic = ZERO
            if phase.critic_updates:
                critic = bursts(lambda runs=last, loader=loader: runs.critic(loader))
            generator = bursts(lambda runs=last, loader=loader: runs.generator(loader))
        timed[program] = (critic, generator), bursts(check, 3, 0.2) * pieces
        updates[phase.name], checks[phase.name] = timed[program]
    assert last is not None
    alone = _batch_alone(cfg, parts)
    with tempfile.TemporaryDirectory(prefix="prpr-probe-") as folder:
        saved = _checkpoint(last, Path(folder) / "checkpoints")
        fit, row, generator, critic_pass = _scoring(cfg, parts, last, Path(folder))
    programs = sum(2 + (pair[0] is not ZERO) for pair, _ in timed.values())
    notes = [
        f"measured: {BURSTS} bursts of {BURST_SECONDS:g} s of each update, on random networks; "
        f"ranges are the fastest and slowest burst, widened by {MARGIN:.0%}",
        "updates were timed with the data that they read; a batch alone takes "
        f"{alone * 1e3:.3g} ms",
        f"compilation of {programs} programs took {compiled:.3g} s, less where JAX had cached them",
    ]
    return (
        Timing(
            updates=updates,
            data=ZERO,
            checkpoint=saved,
            diagnosis=checks,
            scoring=row,
            preparing=fit,
            generator=generator,
            critic=critic_pass,
            compilation=Range(compiled, compiled, 2 * compiled),
        ),
        notes,
    )


def _batch_alone(cfg: config.Config, parts: build.Splits) -> float:
    """Seconds of one batch on the host when nothing else runs."""
    batches = build.batches(cfg, parts.train, 0)
    seconds = []
    for step in range(5):
        start = time.perf_counter()
        batches.batch(step)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _checkpoint(runs: _Runs, folder: Path) -> Range:
    """One checkpoint of one run: what `save` takes at least, and with the writing at most."""
    stalls, wholes = [], []
    with checkpoint.Saver(folder) as saver:
        for step in range(3):
            jax.block_until_ready(runs.state)
            start = time.perf_counter()
            saver.save(step, runs.fleet.copies(runs.state, 1)[0], {})
            stalls.append(time.perf_counter() - start)
            saver.wait()
            wholes.append(time.perf_counter() - start)
    return between(min(stalls), max(wholes))


def _scoring(
    cfg: config.Config, parts: build.Splits, runs: _Runs, folder: Path
) -> tuple[Range, Range, Range, Range]:
    """Seconds before the first row, of a row, of one generated image, of one critic's answer."""
    small = cfg.copy_and_resolve_references()
    # Exactly as `score` does where that is quick, else on fewer images.
    with small.unlocked():
        small.score.repeats = 1
        real = cfg.score.n_real or min(parts.held_out(cfg.score.split).size, 10_000)
        fake = cfg.score.n_fake or real
        small.score.n_real = min(real, _SCORED)
        small.score.n_fake = min(fake, _SCORED)
    start = time.perf_counter()
    scorer = score.Scorer(small, parts, folder)
    fit = time.perf_counter() - start
    system = runs.system._replace(
        **dict(zip(("generator", "critic"), _unmapped(cfg, parts), strict=True))
    )
    (state,) = runs.fleet.fetch(runs.state, 1)
    rows = []
    for number in range(3):
        start = time.perf_counter()
        scorer.add(system, f"probe{number}", None, 0, state.ema)
        rows.append(time.perf_counter() - start)
    row = min(rows[1:])  # the first one compiles
    ratio = fake / small.score.n_fake
    # Sampling grows with the number of images, neighbours with its square.
    each = between(row * ratio * (1 - MARGIN), row * ratio**2 * (1 + MARGIN))
    each = each * cfg.score.repeats
    before = between(fit * (1 - MARGIN), fit * ratio**2 * (1 + MARGIN))
    labels = np.resize(parts.train.take(np.arange(1)).labels, 256)
    x = sampling.sample(system, state.ema, labels, jax.random.key(0))
    z = jax.random.normal(jax.random.key(0), (256, system.dim_z))
    g = jax.jit(lambda net, z, y: train.apply_frozen(system.generator, net, z, y))
    c = jax.jit(lambda net, x, y: train.apply_frozen(system.critic, net, x, y))
    generator = bursts(lambda: g(state.ema, z, labels), 3, 0.2) * (1 / 256)
    critic = bursts(lambda: c(state.critic, x, labels), 3, 0.2) * (1 / 256)
    return before, each, generator, critic


def _unmapped(cfg: config.Config, parts: build.Splits) -> tuple[Any, Any]:
    """Generator and critic without the devices' axis, for evaluation on one of them."""
    alone = build.system(cfg, parts.train)
    return alone.generator, alone.critic
