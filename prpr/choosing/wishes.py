"""What a person wishes of a model, read from one line of text.

    precision >= 0.9                         and then as much recall as possible
    recall >= 60% and max precision
    fid <= 12 and max precision
    worst recall >= .3                       the class that has least
    precision[7] >= .8                       of one class
    cost: bad=5 missing=1                    a bad sample costs 5, a kind that is missing 1

Clauses are joined by "and" (or a comma). A constraint is METRIC >= NUMBER or METRIC <= NUMBER; an
aim is `max METRIC`, `min METRIC` or a cost. There is at most one aim; without one, the counterpart
of what is constrained is as large as possible.
"""

import math
import re
from typing import NamedTuple, NoReturn

from prpr.errors import ConfigError

LOWER_IS_BETTER = ("fid", "fd", "kid", "fd_dinov2", "fid_infinity", "fid_infinity_both")
# Metrics that lie in [0, 1]. What is not here may have any value.
PROPORTIONS = (
    "precision",
    "recall",
    "coverage",
    "p_precision",
    "p_recall",
    "clipped_density",
    "clipped_coverage",
    "topp",
    "topr",
    "precision_symmetric",
    "recall_symmetric",
    "precision_complement",
    "precision_sajjadi",
    "recall_sajjadi",
    "authenticity",
)
# Quality, which λ raises, and variety, which it lowers.
_QUALITY = ("precision", "density", "p_precision", "clipped_density", "topp")
_VARIETY = ("recall", "coverage", "p_recall", "clipped_coverage", "topr")
_FAMILIES = ("_symmetric", "_sajjadi", "_complement", "_knn")

_TOKEN = re.compile(
    r"\s*(?:(?P<op>>=|<=|≥|≤|>|<|=)"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:\s*%)?)(?![\w.])"
    r"|(?P<name>[A-Za-z_][\w.]*)"
    r"|(?P<mark>[:,;\[\]]))"
)


class Target(NamedTuple):
    """A metric: of all samples, of one class, or of the worst class (`of` = "worst")."""

    metric: str
    of: str | None = None

    def __str__(self) -> str:
        if self.of is None:
            return self.metric
        return f"worst {self.metric}" if self.of == "worst" else f"{self.metric}[{self.of}]"


class Constraint(NamedTuple):
    """`target` is at least (or, unless `least`, at most) `bound`."""

    target: Target
    least: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.target} {'>=' if self.least else '<='} {self.bound:.4g}"


class Cost(NamedTuple):
    """Expected cost of a sample: bad·(1 − precision) + missing·(1 − recall)."""

    bad: float
    missing: float

    def __str__(self) -> str:
        return f"cost: bad={self.bad:g} missing={self.missing:g}"


class Aim(NamedTuple):
    """`target` as large (or, unless `largest`, as small) as possible."""

    target: Target
    largest: bool

    def __str__(self) -> str:
        return f"{'max' if self.largest else 'min'} {self.target}"


class Wish(NamedTuple):
    """Constraints that must hold, and what is then best; `aim` None: the wish's probability."""

    constraints: tuple[Constraint, ...]
    aim: Aim | Cost | None
    stated: bool  # whether the aim is the person's own

    def __str__(self) -> str:
        parts = [str(one) for one in self.constraints]
        return " and ".join([*parts, str(self.aim)] if self.aim is not None else parts)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every metric that is read, once, in the order of the text."""
        found = [one.target for one in self.constraints]
        if isinstance(self.aim, Cost):
            found += [Target("precision"), Target("recall")]
        elif self.aim is not None:
            found.append(self.aim.target)
        return tuple(dict.fromkeys(found))


def lower_is_better(metric: str) -> bool:
    """Whether a model is better where this metric is smaller."""
    return metric in LOWER_IS_BETTER


def is_proportion(metric: str) -> bool:
    """Whether a metric lies in [0, 1]."""
    return metric in PROPORTIONS or bool(re.fullmatch(r"f(_knn)?_[\d.eE+-]+", metric))


def direction(metric: str) -> int:
    """How λ moves a metric: +1 quality, −1 variety, 0 not known (a distance, an F score)."""
    name = metric
    for family in _FAMILIES:
        name = name.replace(family, "")
    return int(name in _QUALITY) - int(name in _VARIETY)


def parse(text: str) -> Wish:
    """A `Wish` from its text; see the module's head.

    Raises:
      ConfigError: text that cannot be read (with the place marked), numbers that the metric
        cannot have, wishes that contradict each other.
    """
    return _check(text, _Reader(text).wish())


class _Reader:
    """The tokens of a wish, taken one after the other."""

    def __init__(self, text: str):
        if not text.strip():
            raise ConfigError(
                "the wish is empty; write one such as --wish='precision >= 0.9', or "
                "'recall >= 0.5 and max precision'"
            )
        self.text, self.tokens = text, []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                self.fail(start, f"{text[start]!r} is not part of a wish")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match[kind], match.start(kind)))
            at = match.end()
        self.at = 0

    def fail(self, place: int, why: str) -> NoReturn:
        shown = self.text[:place] + ">>>" + self.text[place:]
        raise ConfigError(
            f"the wish cannot be read at character {place + 1}: {why}. In {shown!r}, at >>>"
        )

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "", len(self.text))

    def take(self, kind: str, what: str) -> str:
        found, value, place = self.peek()
        if found != kind:
            self.fail(place, f"{what} is missing" + (f" before {value!r}" if value else ""))
        self.at += 1
        return value

    def wish(self) -> Wish:
        constraints: list[Constraint] = []
        aims: list[tuple[Aim | Cost, int]] = []
        while True:
            kind, value, place = self.peek()
            if value.lower() in ("max", "min"):
                self.at += 1
                aims.append((Aim(self.target(), value.lower() == "max"), place))
            elif value.lower() == "cost":
                self.at += 1
                aims.append((self.cost(), place))
            elif kind == "name":
                constraints.append(self.constraint())
            else:
                self.fail(place, "a metric, max, min or cost is missing")
            if len(aims) > 1:
                self.fail(aims[1][1], f"there is an aim already, {str(aims[0][0])!r}; keep one")
            kind, value, place = self.peek()
            if not kind:
                break
            if value.lower() not in ("and", ",", ";"):
                self.fail(place, f"'and' is missing before {value!r}")
            self.at += 1
        return Wish(tuple(constraints), aims[0][0] if aims else None, bool(aims))

    def target(self) -> Target:
        name = self.take("name", "a metric")
        if name.lower() == "worst":
            return Target(self.take("name", "a metric").lower(), "worst")
        if self.peek()[1] != "[":
            return Target(name.lower())
        self.at += 1
        kind, value, place = self.peek()
        if kind not in ("name", "number"):
            self.fail(place, "the name of a class is missing")
        self.at += 1
        self.take_mark("]")
        return Target(name.lower(), value)

    def take_mark(self, mark: str) -> None:
        _, value, place = self.peek()
        if value != mark:
            self.fail(place, f"{mark!r} is missing")
        self.at += 1

    def number(self) -> tuple[float, int]:
        place = self.peek()[2]
        text = self.take("number", "a number")
        value = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
        if not math.isfinite(value):
            self.fail(place, f"{text} is not finite")
        return value, place

    def constraint(self) -> Constraint:
        target = self.target()
        _, op, place = self.peek()
        op = self.take("op", f"'>=' or '<=' after {str(target)!r}")
        if op == "=":
            self.fail(place, "'=' cannot be promised of an estimate; write >= or <=")
        bound, at = self.number()
        if is_proportion(target.metric) and not 0 <= bound <= 1:
            mend = f"; did you mean {bound:g}%?" if 1 < bound <= 100 else ""
            self.fail(at, f"{target.metric} lies between 0 and 1, not at {bound:g}{mend}")
        return Constraint(target, op in (">=", ">", "≥"), bound)

    def cost(self) -> Cost:
        self.take_mark(":")
        found: dict[str, float] = {}
        while self.peek()[1] in ("bad", "missing"):
            _, name, place = self.peek()
            self.at += 1
            if name in found:
                self.fail(place, f"{name} is given twice")
            if self.take("op", f"'=' after {name!r}") != "=":
                self.fail(place, f"a cost is written {name}=NUMBER")
            value, at = self.number()
            if value <= 0:
                self.fail(at, f"the cost {name}={value:g} must be above 0")
            found[name] = value
        for name in ("bad", "missing"):
            if name not in found:
                self.fail(self.peek()[2], f"{name}=NUMBER is missing: cost: bad=5 missing=1")
        return Cost(found["bad"], found["missing"])


def _check(text: str, wish: Wish) -> Wish:
    """The wish, with an aim where none was stated; ConfigError for contradictions."""
    bounds: dict[Target, dict[bool, float]] = {}
    for one in wish.constraints:
        own = bounds.setdefault(one.target, {})
        if one.least in own:
            raise ConfigError(
                f"the wish {text!r} bounds {one.target} twice on one side; keep the stricter one"
            )
        own[one.least] = one.bound
        if len(own) == 2 and own[True] > own[False]:
            raise ConfigError(
                f"the wish {text!r} contradicts itself: {one.target} cannot be at least "
                f"{own[True]:g} and at most {own[False]:g}"
            )
    if isinstance(wish.aim, Aim):
        metric = wish.aim.target.metric
        if wish.aim.largest == lower_is_better(metric):
            other = "min" if wish.aim.largest else "max"
            raise ConfigError(
                f"the wish {text!r} asks for the worst model: {metric} is better where it is "
                f"{'lower' if wish.aim.largest else 'higher'}; write '{other} {metric}'"
            )
    if wish.aim is not None:
        return wish
    return wish._replace(aim=_counterpart(wish.constraints))


def _counterpart(constraints: tuple[Constraint, ...]) -> Aim | None:
    """Variety where quality is asked for, and the other way round; None where both are."""
    asked = {direction(one.target.metric) for one in constraints if one.least}
    if asked == {1}:
        return Aim(Target("recall"), True)
    if asked == {-1}:
        return Aim(Target("precision"), True)
    metrics = {one.target.metric for one in constraints}
    if len(metrics) == 1 and lower_is_better(*metrics):
        return Aim(constraints[0].target, False)
    return None
