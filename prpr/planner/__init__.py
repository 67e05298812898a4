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
(`prpr.planner.probe`). What is finished in the workdir is left out. Nothing is written there, and
no data set on disk is read without --probe.
"""

import re
from typing import Any, NamedTuple

from absl import flags

from prpr.errors import ConfigError

# Flags that are defined here belong to the experiment that calls, also in --help.
flags.disclaim_key_flags()


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
      workdir: of the command: what is finished there is left out; nothing is written.
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
    from prpr.planner import make

    tracer, cards = None, []
    for name, count in wanted:
        money = (holder.price.value, holder.budget.value)
        request = make.Request(command, name, count, *money, probe, workdir)
        page, tracer = make.make(cfg, request, tracer)
        cards.append(page)
    print(_text(cards))
    if holder.json.value:
        from prpr import record

        record.write_json(holder.json.value, [page.to_json() for page in cards])


def _text(cards: list[Any]) -> str:
    """One or two pages whole, more as a table with their warnings and what they all assume."""
    if len(cards) < 3:
        return "\n\n".join(map(str, cards))
    from prpr.planner import card

    shared = [text for text in cards[0].assumptions if all(text in c.assumptions for c in cards)]
    lines = [card.table(cards), "peaks and their sources: prpr/planner/device_table.py"]
    for text in dict.fromkeys(text for page in cards for text in page.warnings):
        of = [f"{page.devices} x {page.device}" for page in cards if text in page.warnings]
        lines.append(f"warning: {text}" + f" ({', '.join(of)})" * (len(of) < len(cards)))
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
    """The cost card of a command; see `prpr.planner.card.Card`.

    Args:
      cfg: a configuration.
      command: "finetune" (base, control and λ) or "train".
      device: a name of `device_table.DEVICES`, or "this" (rates measured here).
      devices: how many; 0: one, or as many as the command would use here.
      price: money an hour and device; None: the table's example (nothing for "this").
      budget: an amount of money; needs a price.
      probe: time real updates here.
      workdir: of the command; what is finished there is left out, and the acceptances that its
        runs recorded are used. None: one that is empty.

    Raises:
      ConfigError: a configuration that cannot be built, an unknown device, a bad price.
      CheckpointError: a damaged checkpoint in the workdir.
    """
    from prpr.planner import make

    request = make.Request(command, device, devices, price, budget, probe, workdir)
    return make.make(cfg, request)[0]
