"""What a sweep's runs will need and cost: a card for each call of mode "here", and their sum."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prpr import config, planner, record
from prpr.errors import ConfigError
from prpr.sweep.here import merged, products
from prpr.sweep.tasks import Task, family_folder


class Call(NamedTuple):
    """One call of `run`: what it is, its configuration, its kind for `planner`, its workdir."""

    title: str
    config: config.Config
    command: str
    workdir: Path


def plan(root: Path, todo: Sequence[Task], holder: planner.Flags) -> None:
    """Prints the cards of runs that are neither done nor running, and the sum of hours and money.

    Args:
      root: the sweep's folder; nothing is written there.
      todo: those runs, bases among them.
      holder: from `planner.define_flags`, after parsing.

    Raises:
      ConfigError: see `planner.plan`.
    """
    devices = planner.parse_devices(holder.device.value)
    probe = bool(holder.probe.value)
    if probe and [name for name, _ in devices] != ["this"]:
        raise ConfigError(
            f"--plan_device={holder.device.value} --probe: a probe times the devices at hand; "
            "leave one of the two out."
        )
    if not todo:
        print("nothing is missing: nothing to plan")
        return
    pages = []
    for name, count in devices:
        cards = []
        for call in calls(root, todo):
            card = planner.plan(
                call.config,
                command=call.command,
                device=name,
                devices=count,
                price=holder.price.value,
                budget=holder.budget.value,
                probe=probe,
                workdir=str(call.workdir),
            )
            print(f"{call.title}\n{card}\n", flush=True)
            cards.append(card.to_json())
        print(_sum(f"{count}*{name}" if count else name, cards), flush=True)
        pages += cards
    if holder.json.value:
        record.write_json(holder.json.value, pages)


def calls(root: Path, todo: Sequence[Task]) -> list[Call]:
    """What mode "here" would call, in order."""
    found = [
        Call(_title([task]), task.config, "train", root / task.id) for task in todo if task.is_base
    ]
    for group in products([task for task in todo if not task.is_base]):
        folder = family_folder(root, group[0]) if len(group) > 1 else root / group[0].id
        found.append(Call(_title(group), merged(group), "finetune", folder))
    return found


def _title(group: Sequence[Task]) -> str:
    names = ", ".join(dict.fromkeys(task.name for task in group))
    seeds = ", ".join(map(str, sorted({seed for task in group for seed in task.seeds})))
    knobs = "".join(f" {name}={value}" for name, value in group[0].knobs.items())
    return f"# {names} at seed {seeds}{knobs}"


def _sum(device: str, cards: Sequence[dict[str, Any]]) -> str:
    hours = _range([card["total_hours"] for card in cards])
    money = [card["money"] for card in cards]
    price = "no price" if None in money else f"money {_range(money)}"
    return f"sum on {device}, one call after the other ({len(cards)}): {hours} hours, {price}\n"


def _range(parts: Sequence[dict[str, float]]) -> str:
    low, middle, high = (sum(part[end] for part in parts) for end in ("low", "middle", "high"))
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"
