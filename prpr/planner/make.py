"""Makes a card: puts phases, programs, memory and times together."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from prpr import build, config, parallel
from prpr.errors import ConfigError
from prpr.planner import (
    card,
    device_table,
    estimate,
    flops,
    phases,
    programs,
    shapes,
    tradeoff,
)

_FIT = {"tight": "may not fit", "no": "does not fit"}


class Request(NamedTuple):
    """What is asked for; see `prpr.planner.plan`."""

    command: str
    device: str
    devices: int
    price: float | None = None
    budget: float | None = None
    probe: bool = False
    workdir: str | None = None


def make(
    cfg: config.Config, want: Request, tracer: programs.Tracer | None = None
) -> tuple[card.Card, programs.Tracer]:
    """The card, and what was traced for it, of use for other devices."""
    config.validate(cfg)
    _check_money(want.price, want.budget)
    work = phases.work(cfg, want.command, want.workdir)
    todo = work.todo
    if not todo:
        raise ConfigError("config.lams is empty and config.control is False: nothing to plan.")
    together = cfg.train.layout == parallel.DATA
    jobs = max(phase.jobs for phase in todo)
    row, devices = _device(cfg, want, 0 if together else jobs)
    row = device_table.among(row, devices if together else min(devices, jobs))
    price = row.price if want.price is None else want.price
    if want.budget is not None and not price:
        raise ConfigError(f"--budget={want.budget:g}: needs --price, money an hour and device.")

    tracer = tracer or programs.Tracer(shapes.shape_of(cfg))
    share = devices if together else 1  # devices that share a batch
    items = {phase.name: build.share(phase.cfg, share) for phase in todo}
    traced = {phase.name: tracer(phase, items[phase.name]) for phase in todo}
    last = todo[-1]
    memory, largest, warnings = _memory(cfg, todo, tracer, row, devices, items)
    warnings = work.warnings + warnings
    if not together and devices > jobs:
        warnings.append(
            f"{devices - jobs} of {devices} devices have no run; config.train.layout = 'data' "
            "shares out the batch of one run"
        )
    if want.probe:
        from prpr.planner import probe as prober

        differs = programs.disagreement(last, tracer.shape, items[last.name], traced[last.name])
        warnings += [differs] * bool(differs)
        times, notes = prober.timing(cfg, todo, devices)
    else:
        times = estimate.timing(cfg, todo, tracer.shape, row, devices, traced)
        notes = _paper(row)
    notes = [tracer.shape.note] * bool(tracer.shape.note) + work.notes + notes
    updates = [p for phase in todo for p in traced[phase.name].updates(phase)]
    most = max(map(flops.open_loops, updates))
    if most and want.probe:
        warnings.append(
            f"loops that end when they have converged, after {most:g} trips at most, take more in "
            "a trained network than in the random one that was timed"
        )
    elif most:
        notes.append(
            "a loop that ends when it has converged makes one trip at the low end and all that it "
            f"may, up to {most:g}, at the high one and in the count of the arithmetic"
        )
    # On paper runs that share a device take turns: as long as one after another.
    width = 1 if together else devices * (cfg.train.together if want.probe else 1)
    fixed = {
        "name": cfg.name,
        "command": want.command,
        "device": row.name,
        "devices": devices,
        "layout": cfg.train.layout,
        "how": "measured here" if want.probe else "on paper",
        "batch": last.cfg.train.batch,
        "micro": items[last.name] // last.cfg.train.accumulate,
        "accumulate": cfg.train.accumulate,
        "dtype": cfg.model.dtype,
        "memory": memory,
        "largest": largest,
        "price": price,
        "assumptions": notes,
        "warnings": warnings,
    }
    return _card(cfg, want, work, times, traced[last.name], width, share, fixed), tracer


def _device(cfg: config.Config, want: Request, runs: int) -> tuple[device_table.Device, int]:
    """The row and the number of devices that are asked for; "this" is set up as a run would."""
    if want.device != "this":
        return device_table.get(want.device), max(want.devices, 1)
    devices = parallel.setup(want.devices or cfg.train.devices, runs)
    return device_table.here(), devices


def _memory(
    cfg: config.Config,
    todo: Sequence[phases.Phase],
    tracer: programs.Tracer,
    row: device_table.Device,
    devices: int,
    items: Mapping[str, int],
) -> tuple[card.Memory, card.Largest, list[str]]:
    """Memory of the configured batch, the largest that fits, and warnings."""
    snapshot = cfg.train.layout == parallel.DATA

    def at(phase: phases.Phase, of: int) -> card.Memory:
        critic = phase.critic_updates > 0
        one = estimate.memory(tracer(phase, of), row, snapshot=snapshot, critic=critic)
        return one if snapshot else one.times(cfg.train.together)

    last = todo[-1]
    needs = [(at(phase, items[phase.name]), items[phase.name]) for phase in todo]
    memory, of = max(needs, key=lambda need: need[0].total.high)
    most = estimate.largest(
        last.cfg, lambda n: at(last, n * cfg.train.accumulate), devices, tracer.shape.size
    )
    warnings = []
    if memory.fits != "yes":
        warnings.append(
            f"a pass of {of // cfg.train.accumulate} items on a device {_FIT[memory.fits]}; the "
            f"largest that does is {most.micro}"
            + (f": train.accumulate = {most.accumulate}" if most.accumulate else "")
        )
    updates = tracer(last, items[last.name]).updates(last)
    unknown = frozenset().union(*(flops.cost(update).uncounted for update in updates))
    if unknown:
        warnings.append(f"arithmetic of {', '.join(sorted(unknown))} is not counted")
    path = cfg.base.path
    given = last.name != "train" and (path or cfg.base.required)
    if given and not (path and Path(path).expanduser().exists()):
        warnings.append(f"config.base.path = {path!r} is not here: taken for a base with a critic")
    return memory, most, warnings


def _card(
    cfg: config.Config,
    want: Request,
    work: phases.Work,
    times: estimate.Timing,
    traced: programs.Traced,
    width: int,
    share: int,
    fixed: dict[str, Any],
) -> card.Card:
    """Puts the card together: `share` devices share a batch, `width` runs go side by side."""
    last = work.todo[-1]
    critic, generator = times.updates[last.name]
    step = tradeoff.step(last, times)
    spent, reads = estimate.hours(cfg, work, times, width), traced.system.reads
    steps, counted = build.critic_steps(last.cfg), {}
    if last.critic_updates:
        counted["critic update"] = flops.cost(traced.critic).flops * share
    counted["generator update"] = flops.cost(traced.generator).flops * share
    counted["step"] = counted.get("critic update", 0.0) * steps + counted["generator update"]
    nets = {"generator": traced.state.generator, "critic": traced.state.critic}
    bought = None
    if want.budget is not None:
        hourly = fixed["price"] * fixed["devices"]
        bought = tradeoff.budget(want.budget, hourly, cfg, last, spent, times, width)
    return card.Card(
        **fixed,
        parameters={
            name: sum(leaf.size for leaf in jax.tree.leaves(net.params))
            for name, net in nets.items()
        },
        flops=counted,
        seconds={
            **({"critic update": critic} if last.critic_updates else {}),
            "generator update": generator,
            "step": step,
            "checkpoint": times.checkpoint,
            "scoring of a run": times.scoring,
        },
        hours=spent,
        compile_seconds=times.compilation,
        images_per_second=last.cfg.train.batch * reads * width / step.middle,
        budget=bought,
        sampling={"generator": times.generator, "critic": times.critic},
        rejection=tradeoff.rejection(last, times, share, want.workdir),
    )


def _check_money(price: float | None, budget: float | None) -> None:
    for name, value in (("price", price), ("budget", budget)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name}={value}: must be a finite number above 0.")


def _paper(row: device_table.Device) -> list[str]:
    """The assumptions of an estimate on paper."""
    low, high = row.utilisation
    share = row.bandwidth_share
    return [
        f"peaks of {row.name}: {row.source}"
        + f", shared by {row.sharing} devices" * (row.sharing > 1),
        f"contractions at {low:.0%} to {high:.0%} of the peak, other kernels at {share[0]:.0%} to "
        f"{share[1]:.0%} of the bandwidth: an assumption, not measured on this device",
        f"{row.launch[0] * 1e6:g} to {row.launch[1] * 1e6:g} µs a kernel and "
        f"{device_table.DISPATCH[0] * 1e3:g} to {device_table.DISPATCH[1] * 1e3:g} ms an update",
        f"data ready in time; one core decodes {estimate.DECODE[0]:g} to {estimate.DECODE[1]:g} "
        "JPEGs a second",
        f"checkpoints at {estimate.DISK[0] / 1e9:g} to {estimate.DISK[1] / 1e9:g} GB/s, kNN "
        f"metrics at {estimate.HOST[0] / 1e9:g} to {estimate.HOST[1] / 1e9:g} GFLOP/s of the "
        "host; the encoder's own time is left out",
        "the table's prices are examples: pass --price",
    ]
