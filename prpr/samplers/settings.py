"""The samplers by name: what each can be told, what it costs, and what is refused. No JAX here."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from prpr.errors import ConfigError, unknown_name

LIMIT = 10_000  # draws for one label


class Cost(NamedTuple):
    """Calls that were made, an item each: rows that fill up a batch are not counted.

    Attributes:
      items: samples that came of it.
      generator, critic: forward passes.
      gradient: backward passes through both; their forward passes are counted above.
      once: generator calls before the first item, such as for a threshold; each is one of the
        critic's too. Not part of the others.
      once_critic: likewise, of the critic.
    """

    items: int
    generator: int
    critic: int = 0
    gradient: int = 0
    once: int = 0
    once_critic: int = 0

    @property
    def per_item(self) -> dict[str, float]:
        """{"generator", "critic", "gradient"}: calls an item."""
        return {
            name: getattr(self, name) / self.items for name in ("generator", "critic", "gradient")
        }

    def to_text(self) -> str:
        """In words."""
        calls = ", ".join(f"{value:.4g} {name}" for name, value in self.per_item.items() if value)
        once = f"; before them {self.once} generator, {self.once_critic} critic"
        return f"calls a sample: {calls}{once if self.once or self.once_critic else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "per_item": self.per_item,
            "items": self.items,
            "once": {"generator": self.once, "critic": self.once_critic},
        }


@dataclasses.dataclass(frozen=True)
class Truncation:
    """Latents with |z| <= `at`, a coordinate."""

    at: float
    name: ClassVar[str] = "truncation"
    needs_ratio: ClassVar[bool] = False

    def check(self, place: str) -> None:
        """Raises ConfigError for what cannot be used; so do the others'."""
        _positive(place, at=self.at)


@dataclasses.dataclass(frozen=True)
class Reject:
    """Rejection with min(c r̂, 1); c by the budget, or given as `lam`.

    Attributes:
      budget: calls of the generator for one accepted sample.
      lam: c itself, in place of a budget.
      limit: draws for one label at most.
    """

    budget: float | None = None
    lam: float | None = None
    limit: int = LIMIT
    name: ClassVar[str] = "reject"
    needs_ratio: ClassVar[bool] = True

    def check(self, place: str) -> None:
        if (self.budget is None) == (self.lam is None):
            raise ConfigError(f"{place}: name one of budget and lam, as in reject:budget=4")
        if self.budget is not None and not 1 <= self.budget < math.inf:
            raise ConfigError(
                f"{place}: budget={self.budget:g} must be a number >= 1, the calls for one "
                "accepted sample"
            )
        if self.lam is not None:
            _positive(place, lam=self.lam)
        _whole(place, limit=self.limit)


@dataclasses.dataclass(frozen=True)
class Drs:
    """Discriminator rejection sampling.

    Attributes:
      gamma: which percentile of F̂ at γ = 0 is taken for γ, in [0, 1): higher accepts fewer.
      burn_in: draws for r̂_M and the percentile.
      limit: draws for one label at most.
    """

    gamma: float = 0.8
    burn_in: int = 10_000
    limit: int = LIMIT
    name: ClassVar[str] = "drs"
    needs_ratio: ClassVar[bool] = True

    def check(self, place: str) -> None:
        if not 0 <= self.gamma < 1:
            raise ConfigError(
                f"{place}: gamma={self.gamma:g} must be in [0, 1): a percentile, as .8"
            )
        _whole(place, burn_in=self.burn_in, limit=self.limit)


@dataclasses.dataclass(frozen=True)
class Mh:
    """Metropolis-Hastings with `steps` independent proposals a chain."""

    steps: int = 100
    name: ClassVar[str] = "mh"
    needs_ratio: ClassVar[bool] = True

    def check(self, place: str) -> None:
        _whole(place, steps=self.steps)


@dataclasses.dataclass(frozen=True)
class Ddls:
    """`steps` Langevin steps of size ε = `size` in the latent."""

    steps: int = 50
    size: float = 0.01
    name: ClassVar[str] = "ddls"
    needs_ratio: ClassVar[bool] = True

    def check(self, place: str) -> None:
        _whole(place, steps=self.steps)
        _positive(place, size=self.size)


Sampler = Truncation | Reject | Drs | Mh | Ddls
_KINDS: Mapping[str, Any] = {kind.name: kind for kind in (Truncation, Reject, Drs, Mh, Ddls)}
NAMES: tuple[str, ...] = tuple(_KINDS)


def _positive(place: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{place}: {name}={value:g} must be a finite number above 0")


def _whole(place: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{place}: {name}={value} must be a whole number >= 1")


def text(sampler: Sampler) -> str:
    """The inverse of `parse`; limits and burn-ins are left out where they are the defaults."""
    told = [
        f"{field.name}={_short(value)}"
        for field in dataclasses.fields(sampler)
        if (value := getattr(sampler, field.name)) is not None
        and not (field.name in ("limit", "burn_in") and value == field.default)
    ]
    return f"{sampler.name}:{','.join(told)}"


def _short(value: float) -> str:
    short = f"{value:g}"
    return short if not isinstance(value, int) and float(short) == value else repr(value)


def settings(sampler: Sampler) -> dict[str, Any]:
    """{setting: value}, defaults too; those that were left out are not there."""
    return {k: v for k, v in dataclasses.asdict(sampler).items() if v is not None}


def parse(given: str, flag: str = "--sampler") -> Sampler:
    """NAME or NAME:setting=value,setting=value.

    Args:
      given: as in "reject:budget=4".
      flag: for messages.

    Raises:
      ConfigError: an unknown name or setting, or a value that cannot be used.
    """
    place = f"{flag}={given}"
    name, _, rest = given.partition(":")
    if name not in _KINDS:
        raise unknown_name(f"sampler in {place},", name, NAMES)
    kind = _KINDS[name]
    whole = {field.name: field.type is int for field in dataclasses.fields(kind)}
    values: dict[str, float] = {}
    for part in rest.split(",") if rest else ():
        key, _, value = part.partition("=")
        key = key.strip()
        if key not in whole:
            raise unknown_name(f"setting of {name} in {place},", key, whole)
        if key in values:
            raise ConfigError(f"{place}: {key} is given twice; leave one out")
        values[key] = _number(place, key, value, whole[key])
    try:
        made = kind(**values)
    except TypeError:
        raise ConfigError(f"{place}: {name} needs at=, as in truncation:at=.7") from None
    made.check(place)
    return made


def _number(place: str, key: str, value: str, whole: bool) -> float:
    try:
        return int(value) if whole else float(value)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{place}: {key}={value!r} is not {kind}") from None


def several(given: str, flag: str = "--samplers") -> list[str]:
    """ "reject,ddls:steps=50,size=.01" -> ["reject", "ddls:steps=50,size=.01"].

    What follows a comma belongs to the sampler before it where it is setting=value.
    """
    out: list[str] = []
    for part in filter(None, (part.strip() for part in given.split(","))):
        if "=" in part and ":" not in part:
            if not out:
                raise ConfigError(f"{flag}={given}: {part} has no sampler before it")
            out[-1] += (":" if ":" not in out[-1] else ",") + part
        else:
            out.append(part)
    return out


def check_ratio(sampler: Sampler, model: str, *, loss: str, has_ratio: bool) -> None:
    """Refuses a model without a ratio.

    Args:
      sampler: what is to draw.
      model: for messages.
      loss: the name of its critic's loss; "hinge" determines no ratio.
      has_ratio: whether its training rests on an estimated ratio at all (`System.has_ratio`).

    Raises:
      ConfigError: it has none, and the sampler needs one.
    """
    if not sampler.needs_ratio or (has_ratio and loss != "hinge"):
        return
    why = "its critic's loss is hinge, which determines none" if has_ratio else "it has no critic"
    raise ConfigError(
        f"{model} has no ratio p/q, which every sampler but truncation needs: {why}. Take "
        "truncation:at=.7, or a run at a λ (?lam=1), whose critic estimates that run's"
    )
