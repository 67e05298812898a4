"""The cost card: what a command will need and cost, as numbers and as text. Pure arithmetic.

Notation: a `Range` is (low, middle, high); seconds, bytes and money are sums of ranges end by end.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """low ≤ middle ≤ high."""

    low: float
    middle: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, by: float) -> "Range":
        return Range(self.low * by, self.middle * by, self.high * by)

    def contains(self, value: float) -> bool:
        """Whether a measured value lies in the range."""
        return self.low <= value <= self.high


ZERO = Range(0.0, 0.0, 0.0)


def between(low: float, high: float) -> Range:
    """The range with the geometric mean as its middle (the mean, where low is 0)."""
    return Range(low, math.sqrt(low * high) if low > 0 else 0.5 * (low + high), high)


def total(ranges: Any) -> Range:
    """The sum of ranges."""
    return sum(ranges, ZERO)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      generator, critic, average, optimiser: parameters and their running statistics; exact.
      gradients: of the network whose update needs most; exact.
      snapshot: the copy of the state that a checkpoint is written from; exact.
      activations: what an update adds to all that: activations, workspace, the batch, copies.
      capacity: of the device;  usable: what JAX gives a program there.
      start: the frozen start of a density, where its route keeps it; exact.
    """

    generator: int
    critic: int
    average: int
    optimiser: int
    gradients: int
    snapshot: int
    activations: Range
    capacity: float
    usable: float
    start: int = 0

    def times(self, runs: int) -> "Memory":
        """Of several runs on one device."""
        return dataclasses.replace(
            self,
            generator=self.generator * runs,
            critic=self.critic * runs,
            average=self.average * runs,
            optimiser=self.optimiser * runs,
            gradients=self.gradients * runs,
            snapshot=self.snapshot * runs,
            activations=self.activations * runs,
            start=self.start * runs,
        )

    @property
    def total(self) -> Range:
        """Peak bytes of an update."""
        state = self.generator + self.critic + self.average + self.optimiser + self.start
        fixed = state + self.gradients + self.snapshot
        return Range(fixed, fixed, fixed) + self.activations

    @property
    def fits(self) -> str:
        """ "yes", "tight" (the middle fits, the high end does not) or "no"."""
        need = self.total
        if need.high <= self.usable:
            return "yes"
        return "tight" if need.middle <= self.usable else "no"


@dataclasses.dataclass(frozen=True)
class Largest:
    """What fits: the largest power of two of one pass on a device, and the batch made of it."""

    micro: int
    batch: int
    accumulate: int | None


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Rejection at one acceptance against one fine-tuned model, `images` to break even."""

    acceptance: float
    source: str
    times: float
    images: Range | None


@dataclasses.dataclass(frozen=True)
class Budget:
    """What an amount of money buys of the last phase, beyond what comes before it and scores.

    Attributes:
      amount: of money;  hours: of all devices together, wall-clock.
      lams: values of λ at the configured number of steps (fewest, middle, most); None for a
        command without λ.
      steps: generator updates for each configured λ, or for the runs without one.
    """

    amount: float
    hours: float
    lams: tuple[int, int, int] | None
    steps: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Card:
    """All of it; `str(card)` is the page, `card.to_json()` the same as plain data."""

    name: str
    command: str
    device: str
    devices: int
    layout: str
    how: str
    batch: int
    micro: int
    accumulate: int
    dtype: str
    parameters: dict[str, int]
    flops: dict[str, float]
    memory: Memory
    largest: Largest
    seconds: dict[str, Range]
    hours: dict[str, Range]
    compile_seconds: Range
    images_per_second: float
    price: float
    budget: Budget | None
    sampling: dict[str, Range]
    rejection: list[Rejection]
    assumptions: list[str]
    warnings: list[str]

    @property
    def total_hours(self) -> Range:
        """Wall-clock hours of the whole command, compilation left out."""
        return total(self.hours.values())

    @property
    def money(self) -> Range | None:
        """Price of the whole command; None without a price."""
        return self.total_hours * (self.price * self.devices) if self.price else None

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the derived numbers."""
        plain = dataclasses.asdict(self)
        plain["memory"]["total"] = dataclasses.asdict(self.memory.total)
        plain["memory"]["fits"] = self.memory.fits
        plain["total_hours"] = dataclasses.asdict(self.total_hours)
        plain["money"] = dataclasses.asdict(self.money) if self.money else None
        return plain

    def __str__(self) -> str:
        return "\n".join(_page(self))


# --- text -----------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits, thousands by K, M, G, T."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("d", 172_800.0), ("h", 7200.0), ("min", 120.0), ("s", 1.0)):
        if seconds >= size:
            scale = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}[unit]
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _times(value: Range) -> str:
    return f"{duration(value.middle)}  ({duration(value.low)} to {duration(value.high)})"


def _size(value: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"


def _page(card: Card) -> list[str]:
    m, need = card.memory, card.memory.total
    lines = [
        f"{card.name}: {card.command} on {card.devices} x {card.device} ({card.how})",
        f"  parameters       generator {number(card.parameters['generator'])}, "
        f"critic {number(card.parameters['critic'])}; {card.dtype} activations",
        f"  batch            {card.batch} = {card.micro} a pass on a device"
        + (f" x {card.accumulate} passes" if card.accumulate > 1 else "")
        + (f" x {card.devices} devices" if card.layout == "data" else ""),
        f"  memory a device  {_size(need.middle)} ({_size(need.low)} to {_size(need.high)}) of "
        f"{_size(m.usable)} usable, {_size(m.capacity)} in all: {_FITS[m.fits]}",
        f"    networks {_size(m.generator + m.critic)}, moving average {_size(m.average)}, "
        + (f"frozen start {_size(m.start)}, " if m.start else "")
        + f"optimiser {_size(m.optimiser)},",
        f"    gradients {_size(m.gradients)}, copy for a checkpoint {_size(m.snapshot)}, "
        f"activations {_size(m.activations.middle)}",
        f"  largest batch    {card.largest.micro} a pass on a device, "
        f"{card.largest.batch} in all without accumulation" + _accumulation(card),
    ]
    lines += [f"  {name:<16} {_times(value)}" for name, value in card.seconds.items()]
    lines.append(f"  arithmetic       {number(card.flops['step'])}FLOP a step, all its updates")
    if card.images_per_second:
        lines.append(f"  data             {number(card.images_per_second)} images/s to keep up")
    lines.append(f"  compilation      {_times(card.compile_seconds)}, once, not in the sum below")
    lines += [f"  {name:<16} {_times(value * 3600)}" for name, value in card.hours.items()]
    lines.append(f"  in all           {_times(card.total_hours * 3600)}")
    lines += _money(card) + _rejection(card)
    lines += [f"  warning: {text}" for text in card.warnings]
    lines += ["  assumed:", *(f"    {text}" for text in card.assumptions)]
    return lines


_FITS = {
    "yes": "fits",
    "tight": "tight, may not fit",
    "no": "DOES NOT FIT",
}


def _accumulation(card: Card) -> str:
    if card.largest.accumulate is None:
        return "; this model does not fit at any batch"
    return f"; train.accumulate = {card.largest.accumulate} for a batch of {card.batch}"


def _money(card: Card) -> list[str]:
    if card.money is None:
        return ["  money            no price; --price=AMOUNT an hour and device gives it"]
    money = card.money
    lines = [
        f"  money            {money.middle:.4g}  ({money.low:.4g} to {money.high:.4g}), at "
        f"{card.price:g} an hour and device"
    ]
    if card.budget is not None:
        b = card.budget
        what = "the control" if card.command == "finetune" else "the configured runs"
        if b.lams is not None:
            low, middle, high = b.lams
            what = f"{middle} values of λ ({low} to {high}), or the configured ones"
        lines.append(
            f"  {b.amount:g} buys        {duration(b.hours * 3600)}: {what} at "
            f"{number(b.steps[1])} steps ({number(b.steps[0])} to {number(b.steps[2])})"
        )
    return lines


def _rejection(card: Card) -> list[str]:
    if not card.rejection:
        return []
    lines = ["  instead of training, rejection from the base (it cannot raise recall):"]
    for row in card.rejection:
        even = "never dearer"
        if row.images is not None:
            ends = f"{number(row.images.low)} to {number(row.images.high)}"
            even = f"as dear as one fine-tuned λ at {number(row.images.middle)} images ({ends})"
        lines.append(
            f"    acceptance {row.acceptance:.3g} ({row.source}): {row.times:.3g} times a plain "
            f"sample; {even}"
        )
    return lines


def table(cards: list[Card]) -> str:
    """Several devices, a line each; the last column where a budget is given."""
    rows = [["device", "memory", "fits", "micro", "step", "hours", "money", "budget buys"]]
    for card in cards:
        price = "-" if card.money is None else _ends(card.money)
        rows.append(
            [
                f"{card.devices} x {card.device}",
                _size(card.memory.total.middle),
                card.memory.fits,
                str(card.largest.micro),
                duration(card.seconds["step"].middle),
                _ends(card.total_hours),
                price,
                _bought(card.budget),
            ]
        )
    if not any(card.budget for card in cards):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _ends(value: Range) -> str:
    return f"{value.middle:.3g} ({value.low:.3g}-{value.high:.3g})"


def _bought(budget: Budget | None) -> str:
    if budget is None:
        return "-"
    if budget.lams is None:
        return f"{number(budget.steps[1])} steps"
    return f"{budget.lams[1]} λ ({budget.lams[0]}-{budget.lams[2]})"
