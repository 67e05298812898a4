"""Before you spend: what a command will need, take and cost, without doing it.

    python experiments/finetune_biggan.py --config=... --plan      # the devices here, on paper
    ... --plan --plan_device=8*h100-sxm --price=3.5 --budget=500   # devices that are not here
    ... --plan --plan_device=all                                   # the whole table
    ... --plan --probe                                             # times real steps here

    holder = planner.define_flags()               # in an experiment
    if holder.wanted: planner.main(cfg, "finetune", workdir, holder)

    card = planner.plan(cfg, device="h100-sxm", devices=8, price=3.5)
    print(card); card.to_json()

On paper: arithmetic and traffic are counted exactly on the traced updates (`prpr.planner.flops`,
`prpr.planner.footprint`) and divided by peak rates (`prpr.planner.device_table`) at an assumed
utilisation; every assumption is printed. A probe times the updates themselves
(`prpr.planner.probe`). Nothing is written to the workdir, and no data set on disk is read without
--probe.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from prpr.errors import ConfigError

# Flags that are defined here belong to the experiment that calls, also in --help.
flags.disclaim_key_flags()

_FIT = {"tight": "may not fit", "no": "does not fit"}


class Flags(NamedTuple):
    """The holders of the planner's flags."""

    plan: Any
    probe: Any
    device: Any
    price: Any
    budget: Any
    json: Any

    @property
    def wanted(self) -> bool:
        """Whether the command is to be planned and not run."""
        return bool(self.plan.value or self.probe.value)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Flags:
    """Defines --plan, --probe, --plan_device, --price, --budget and --plan_json."""

    def add(define: Any, name: str, default: Any, help_text: str) -> Any:
        return define(name, default, help_text, flag_values=flag_values)

    return Flags(
        add(flags.DEFINE_bool, "plan", False, "print what the command needs and costs, and end"),
        add(flags.DEFINE_bool, "probe", False, "with --plan: time real steps on the devices here"),
        add(
            flags.DEFINE_string,
            "plan_device",
            "this",
            "devices to plan for, such as 8*h100-sxm or tpu-v5e,l4, or all, or this",
        ),
        add(flags.DEFINE_float, "price", None, "money an hour and device; default: the table's"),
        add(flags.DEFINE_float, "budget", None, "also say what this amount of money buys"),
        add(flags.DEFINE_string, "plan_json", None, "also write the cards to this file"),
    )


def main(cfg: Any, command: str, workdir: str, holder: Flags) -> None:
    """Prints the cards that the flags ask for.

    Args:
      cfg: a configuration.
      command: "finetune" or "train".
      workdir: where earlier runs' acceptances are looked for; nothing is written there.
      holder: from `define_flags`, after parsing.

    Raises:
      ConfigError: flags that do not go together, an unknown device, a negative price.
    """
    probe = bool(holder.probe.value)
    wanted = parse_devices(holder.device.value)
    if probe and [name for name, _ in wanted] != ["this"]:
        raise ConfigError(
            f"--plan_device={holder.device.value} --probe: a probe times the devices at hand; "
            "leave one of the two out."
        )
    tracer, cards = None, []
    for name, count in wanted:
        money = (holder.price.value, holder.budget.value)
        page, tracer = _plan(cfg, Request(command, name, count, *money, probe, workdir), tracer)
        cards.append(page)
    print(_text(cards))
    if holder.json.value:
        from prpr import record

        record.write_json(holder.json.value, [page.to_json() for page in cards])


def _text(cards: list[Any]) -> str:
    """One or two pages whole, more as a table with what they all assume."""
    if len(cards) < 3:
        return "\n\n".join(map(str, cards))
    from prpr.planner import card

    shared = [text for text in cards[0].assumptions if all(text in c.assumptions for c in cards)]
    lines = [card.table(cards), "peaks and their sources: prpr/device_table.py"]
    return "\n".join([*lines, *(f"assumed: {text}" for text in shared)])


def parse_devices(text: str) -> list[tuple[str, int]]:
    """ "8*h100-sxm,l4" -> [("h100-sxm", 8), ("l4", 1)]; "all" is the table.

    The number of "this" is 0 if none is given: as many as the command would use.

    Raises:
      ConfigError: not such a list, or a name that the table does not have.
    """
    from prpr.planner import device_table

    if text.strip() == "all":
        return [(name, 1) for name in device_table.DEVICES]
    found = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*(?:(\d+)\s*\*\s*)?([^*]+?)\s*", item)
        if not match or match[1] == "0":
            raise ConfigError(
                f"--plan_device={text}: write devices as NAME or NUMBER*NAME, such as 8*h100-sxm."
            )
        name = match[2].lower()
        if name != "this":
            name = device_table.get(name).name
        found.append((name, int(match[1]) if match[1] else (0 if name == "this" else 1)))
    return found


class Request(NamedTuple):
    """What is asked for; see `plan`."""

    command: str
    device: str
    devices: int
    price: float | None = None
    budget: float | None = None
    probe: bool = False
    workdir: str | None = None


def plan(
    cfg: Any,
    *,
    command: str = "finetune",
    device: str = "this",
    devices: int = 0,
    price: float | None = None,
    budget: float | None = None,
    probe: bool = False,
    workdir: str | None = None,
) -> Any:
    """The cost card of a command; see `prpr.card.Card`.

    Args:
      cfg: a configuration.
      command: "finetune" (base, control and λ) or "train".
      device: a name of `device_table.DEVICES`, or "this" (rates measured here).
      devices: how many; 0: one, or as many as the command would use here.
      price: money an hour and device; None: the table's example (nothing for "this").
      budget: an amount of money; needs a price.
      probe: time real updates here.
      workdir: of earlier runs, whose acceptances are used.

    Raises:
      ConfigError: a configuration that cannot be built, an unknown device, a bad price.
    """
    return _plan(cfg, Request(command, device, devices, price, budget, probe, workdir))[0]


def _plan(cfg: Any, want: Request, tracer: Any = None) -> tuple[Any, Any]:
    """The card, and what was traced for it, of use for other devices."""
    from prpr import build, config, parallel
    from prpr.planner import estimate

    config.validate(cfg)
    _check_money(want.price, want.budget)
    todo = estimate.phases(cfg, want.command)
    if not todo:
        raise ConfigError("config.lams is empty and config.control is False: nothing to plan.")
    together = cfg.train.layout == parallel.DATA
    jobs = max(phase.jobs for phase in todo)
    row, devices = _device(cfg, want, 0 if together else jobs)
    price = row.price if want.price is None else want.price
    if want.budget is not None and not price:
        raise ConfigError(f"--budget={want.budget:g}: needs --price, money an hour and device.")

    tracer = tracer or estimate.Tracer(estimate.shape_of(cfg))
    items = build.share(cfg, devices if together else 1)
    memory, most, warnings = _memory(cfg, todo, tracer, row, devices, items)
    if not together and devices > jobs:
        warnings.append(
            f"{devices - jobs} of {devices} devices have no run; config.train.layout = 'data' "
            "shares out the batch of one run"
        )
    if want.probe:
        from prpr.planner import probe as prober

        last = tracer(todo[-1], items)
        differs = estimate.disagreement(todo[-1], tracer.shape, items, last)
        warnings += [differs] * bool(differs)
        times, notes = prober.timing(cfg, todo, devices)
    else:
        traced = {phase.name: tracer(phase, items) for phase in todo}
        times = estimate.timing(cfg, todo, tracer.shape, row, devices, traced)
        notes = _paper(row)
    notes = [tracer.shape.note] * bool(tracer.shape.note) + notes
    width = 1 if together else devices
    fixed = {
        "name": cfg.name,
        "command": want.command,
        "device": row.name,
        "devices": devices,
        "layout": cfg.train.layout,
        "how": "measured here" if want.probe else "on paper",
        "batch": cfg.train.batch,
        "micro": items // cfg.train.accumulate,
        "accumulate": cfg.train.accumulate,
        "dtype": cfg.model.dtype,
        "memory": memory,
        "largest": most,
        "price": price,
        "assumptions": notes,
        "warnings": warnings,
    }
    share = devices if together else 1
    last = tracer(todo[-1], items)
    return _card(cfg, want, todo, times, last, width, share, fixed), tracer


def _device(cfg: Any, want: Request, runs: int) -> tuple[Any, int]:
    """The row and the number of devices that are asked for; "this" is set up as a run would."""
    from prpr import parallel
    from prpr.planner import device_table

    if want.device != "this":
        return device_table.get(want.device), max(want.devices, 1)
    devices = parallel.setup(want.devices or cfg.train.devices, runs)
    return device_table.here(), devices


def _memory(
    cfg: Any, todo: Any, tracer: Any, row: Any, devices: int, items: int
) -> tuple[Any, Any, list[str]]:
    """Memory of the configured batch, the largest that fits, and warnings."""
    from prpr import parallel
    from prpr.planner import estimate, flops

    sharing = devices if row.name.startswith("this (cpu") else 1
    snapshot = cfg.train.layout == parallel.DATA

    def at(phase: Any, of: int) -> Any:
        return estimate.memory(tracer(phase, of), row, share=sharing, snapshot=snapshot)

    memory = max((at(phase, items) for phase in todo), key=lambda m: m.total.high)
    most = estimate.largest(
        cfg, lambda n: at(todo[-1], n * cfg.train.accumulate), devices, tracer.shape.size
    )
    warnings = []
    if memory.fits != "yes":
        warnings.append(
            f"a pass of {items // cfg.train.accumulate} items on a device {_FIT[memory.fits]}; the "
            f"largest that does is {most.micro}"
            + (f": train.accumulate = {most.accumulate}" if most.accumulate else "")
        )
    found = tracer(todo[-1], items)
    unknown = flops.cost(found.critic).uncounted | flops.cost(found.generator).uncounted
    if unknown:
        warnings.append(f"arithmetic of {', '.join(sorted(unknown))} is not counted")
    path = cfg.base.path
    given = todo[-1].name != "train" and (path or cfg.base.required)
    if given and not (path and Path(path).expanduser().exists()):
        warnings.append(f"config.base.path = {path!r} is not here: taken for a base with a critic")
    return memory, most, warnings


def _card(
    cfg: Any,
    want: Request,
    todo: Any,
    times: Any,
    traced: Any,
    width: int,
    share: int,
    fixed: dict[str, Any],
) -> Any:
    """Puts the card together: `share` devices share a batch, `width` runs go side by side."""
    import jax

    from prpr.planner import card, estimate, flops, tradeoff

    last = todo[-1]
    critic, generator = times.updates[last.name]
    step = tradeoff.step(last, times)
    spent = estimate.hours(cfg, todo, times, width)
    work = {
        "critic update": flops.cost(traced.critic).flops * share,
        "generator update": flops.cost(traced.generator).flops * share,
    }
    work["step"] = work["critic update"] * last.cfg.critic.steps + work["generator update"]
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
        flops=work,
        seconds={
            "critic update": critic,
            "generator update": generator,
            "step": step,
            "checkpoint": times.checkpoint,
            "scoring of a run": times.scoring,
        },
        hours=spent,
        compile_seconds=times.compilation,
        images_per_second=cfg.train.batch * last.cfg.critic.steps * width / step.middle,
        budget=bought,
        sampling={"generator": times.generator, "critic": times.critic},
        rejection=tradeoff.rejection(last, times, want.workdir),
    )


def _check_money(price: float | None, budget: float | None) -> None:
    import math

    for name, value in (("price", price), ("budget", budget)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name}={value}: must be a finite number above 0.")


def _paper(row: Any) -> list[str]:
    """The assumptions of an estimate on paper."""
    from prpr.planner import device_table, estimate

    low, high = row.utilisation
    share = row.bandwidth_share
    return [
        f"peaks of {row.name}: {row.source}",
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
