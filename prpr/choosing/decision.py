"""From records and a wish to the λ to take, with the certainty that the wish holds there.

    records = choosing.read(["runs/digits"])
    answer = choosing.choose(records, "precision >= 0.85")
    answer.lam, answer.probability, answer.feasible

The λ is one that was trained. "Promised" means: the wish holds at this λ with probability `level`
at least, the choice among all λ allowed for (`prpr.choosing.promises`). Among the promised λ the
aim decides, by its estimate. Where nothing can be promised the answer is the λ at which the wish is
likeliest, with the strongest wish of the same form that could be promised.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prpr.choosing import curves, promises, records, wishes
from prpr.choosing.points import Point, point
from prpr.choosing.records import Records
from prpr.choosing.wishes import Aim, Constraint, Cost, Target, Wish
from prpr.errors import ConfigError
from prpr.metrics import intervals

VERDICTS = ("promised", "likely", "unlikely", "refuted", "best")
_SEED = 20_261_130


class Answer(NamedTuple):
    """What to do.

    Attributes:
      wish: as it was understood.
      verdict: "promised"; "likely" where the estimates meet the wish at `lam`, but not surely;
        "unlikely" where they do not; "refuted" where no λ can meet it, at `level`. Of a wish
        without constraints: "best", or "likely" where another λ may be better.
      feasible: whether it is promised; without constraints, True.
      lam: the λ to take.
      interval: between which values of λ the best one for the wish lies, at `level`; λ that were
        not trained are seen by interpolation. None where no curve that may be true meets it.
      probability: that the wish holds at `lam`, with the choice among λ allowed for; without
        constraints, that `lam` is the best of those that were trained.
      alone: the same if `lam` had been the only λ.
      metrics: {target: (value, low, high)} at `lam`.
      given_up: {target: {"here", "best", "at", "difference", "low", "high"}} of the metrics without
        a bound: what the λ that is best for it has more. `difference` is best − here, with the
        interval of two independent estimates, which errs on the wide side: both were measured
        against the same data. "control": what the control has more, where there is one.
      nearest_feasible: {"lam", "wish"}: what could be promised instead; None where the wish is.
      next_lam, next_why: the λ to train (or to measure better) next.
      level: of the promise and of the intervals.
      asked: whether `lam` was asked about instead of chosen.
      rows: of every λ {"lam", "metrics", "seeds", "probability", "alone"}.
      cost: {λ: expected cost} for a wish with costs.
      notes: what to know before trusting it.
    """

    wish: Wish
    verdict: str
    feasible: bool
    lam: float
    interval: tuple[float, float] | None
    probability: float
    alone: float
    metrics: dict[str, tuple[float, float, float]]
    given_up: dict[str, dict[str, float]]
    nearest_feasible: dict[str, Any] | None
    next_lam: float | None
    next_why: str
    level: float
    rows: tuple[dict[str, Any], ...]
    asked: bool = False
    cost: dict[float, float] | None = None
    notes: tuple[str, ...] = ()


def choose(
    held: Records,
    wish: str | Wish,
    *,
    level: float = 0.95,
    monotone: bool = False,
    only: float | None = None,
) -> Answer:
    """The λ for a wish.

    Args:
      held: from `records.read`.
      wish: a text (see `prpr.choosing.wishes`) or what `wishes.parse` made of it.
      level: probability with which a promise holds and an interval covers.
      monotone: whether precision is known to rise with λ and recall to fall: estimates are then
        smoothed by pooled adjacent violators. Promises rest on the records alone, either way.
      only: answer for this trained λ instead of choosing one.

    Raises:
      ConfigError: a wish that cannot be read, a level outside (0, 1), fewer than two λ.
      DataError: metrics or intervals that the records lack.
    """
    intervals.check_level(level)
    wish = wishes.parse(wish) if isinstance(wish, str) else wish
    lams = held.lams
    if only is not None:
        check_lam(held, only)
    elif len(lams) < 2:
        raise ConfigError(
            f"the records hold {len(lams)} λ ({', '.join(f'{lam:g}' for lam in lams) or 'none'}): "
            "a choice needs two at least; train another, or ask about this one with --lam."
        )
    table = _Table(held, wish, monotone)
    p = table.doubts(wish.constraints)
    adjusted = p if only is not None else promises.adjusted(wish.constraints, p)
    aims = table.aims()
    chosen = _pick(lams, p, adjusted, aims, table.margins(), level, only)
    promised = bool(adjusted[chosen] <= 1 - level)
    possible = table.possible()
    found = _best_of_draws(table, possible)
    met = table.met()[chosen]
    best = found[np.isfinite(found)]
    interval = None
    if len(best) > (1 - level) * len(found):
        tails = np.quantile(best, [(1 - level) / 2, (1 + level) / 2], method="nearest")
        interval = (float(tails[0]), float(tails[1]))
    probability = float(1 - adjusted[chosen])
    if not wish.constraints:
        drawn = np.argmax(score(wish, possible, len(lams)), axis=-1)
        probability = float(np.mean(drawn == chosen))
        verdict = "best" if probability >= level else "likely"
    elif promised:
        verdict = "promised"
    elif interval is None:
        verdict = "refuted"
    else:
        verdict = "likely" if met else "unlikely"
    next_lam, why = _next(lams, chosen, promised, found, table)
    return Answer(
        wish=wish,
        verdict=verdict,
        feasible=promised,
        lam=lams[chosen],
        interval=interval,
        probability=probability,
        alone=float(1 - p[chosen]),
        metrics=table.shown(chosen, level),
        given_up=_given_up(table, chosen, level),
        nearest_feasible=None if promised else _nearest(table, level, only),
        next_lam=next_lam,
        next_why=why,
        level=level,
        rows=tuple(
            {**table.row(i, level), "probability": float(1 - adjusted[i]), "alone": float(1 - p[i])}
            for i in range(len(lams))
        ),
        asked=only is not None,
        cost=table.costs(),
        notes=(*held.notes, *table.notes),
    )


def check_lam(held: Records, lam: float) -> None:
    """ConfigError unless a model was trained at this λ."""
    if not any(np.isclose(lam, one, rtol=1e-9) for one in held.lams):
        known = ", ".join(f"{one:g}" for one in held.lams) or "none"
        raise ConfigError(f"--lam={lam:g}: the records hold no model of this λ; they have {known}.")


class _Table:
    """The points of every target that a wish reads, at every λ."""

    def __init__(self, held: Records, wish: Wish, monotone: bool):
        self.held, self.wish, self.lams = held, wish, held.lams
        self.monotone, self.notes = monotone, []
        counterparts = [Target("precision"), Target("recall")]
        wanted = [*wish.targets, *(t for t in counterparts if _has(held, t))]
        self.points: dict[Target, list[dict[str, Point]]] = {}
        for target in dict.fromkeys(wanted):
            proportion = wishes.is_proportion(target.metric)
            self.points[target] = [
                {
                    name: point(each, proportion)
                    for name, each in records.readings(held.at(lam), target).items()
                }
                for lam in self.lams
            ]
            if records.derived(held.at(self.lams[0]), target):
                self.notes.append(
                    f"{target} is taken from precision and recall, (1+b²)pr/(b²p+r); its interval "
                    "is as wide as both of theirs."
                )
        self.estimates = {target: self.values(target) for target in wish.targets}
        if all(
            one.seeds == 1 for each in self.points.values() for row in each for one in row.values()
        ):
            self.notes.append(
                "one seed a λ: what is promised is of the models that were measured, not of "
                "training again."
            )

    def doubts(self, constraints: Sequence[Constraint]) -> np.ndarray:
        """(m,) p of each λ that the constraints, of this wish's targets, do not hold there."""
        tested = [
            {one: list(self.points[one.target][i].values()) for one in constraints}
            for i in range(len(self.lams))
        ]
        return promises.doubts(constraints, tested)

    def values(self, target: Target) -> np.ndarray:
        """(m,) the estimates: of "worst", the smallest (or largest) over classes."""
        worst = np.max if wishes.lower_is_better(target.metric) else np.min
        each = np.asarray([[one.value for one in row.values()] for row in self.points[target]])
        return self._smooth(target, worst(each, axis=1))

    def _smooth(self, target: Target, values: np.ndarray) -> np.ndarray:
        if not self.monotone:
            return values
        middle = [next(iter(row.values())) for row in self.points[target]]
        return curves.monotone(values, middle, wishes.direction(target.metric))

    def possible(self) -> dict[Target, np.ndarray]:
        """{target: (n, m)}: draws of what its curve may be."""
        rng, out = np.random.default_rng(_SEED), {}
        for target in self.wish.targets:
            worst = np.max if wishes.lower_is_better(target.metric) else np.min
            drawn = np.stack(
                [
                    worst([one.draw(rng, curves.DRAWS) for one in row.values()], axis=0)
                    for row in self.points[target]
                ],
                axis=-1,
            )
            out[target] = self._smooth(target, drawn)
        return out

    def aims(self) -> np.ndarray:
        """(m,) what the aim is at each λ, larger being better."""
        return score(self.wish, self.estimates, len(self.lams))

    def margins(self) -> np.ndarray:
        """(m,) by how much the estimates meet the constraints, the least of them."""
        return score(self.wish._replace(aim=None), self.estimates, len(self.lams))

    def met(self) -> np.ndarray:
        """(m,) whether the estimates meet the constraints."""
        return holds(self.wish.constraints, self.estimates, len(self.lams))

    def costs(self) -> dict[float, float] | None:
        if not isinstance(self.wish.aim, Cost):
            return None
        return dict(zip(self.lams, (-self.aims()).tolist(), strict=True))

    def decisive(self, target: Target, i: int) -> Point:
        """At one λ, the class that is worst, or all samples."""
        worst = max if wishes.lower_is_better(target.metric) else min
        return worst(self.points[target][i].values(), key=lambda one: one.value)

    def shown(self, i: int, level: float) -> dict[str, tuple[float, float, float]]:
        """{target: (value, low, high)} of one λ."""
        out = {}
        for target in self.points:
            one = self.decisive(target, i)
            out[str(target)] = (one.value, *one.interval(level))
        return out

    def row(self, i: int, level: float) -> dict[str, Any]:
        return {
            "lam": self.lams[i],
            "metrics": self.shown(i, level),
            "seeds": max(one.seeds for row in self.points.values() for one in row[i].values()),
        }


def _has(held: Records, target: Target) -> bool:
    return all(target.metric in row.metrics for row in held.rows if row.lam is not None)


def holds(
    constraints: Sequence[Constraint], values: Mapping[Target, np.ndarray], m: int
) -> np.ndarray:
    """Whether all constraints are met, where `values` has (..., m) for each target."""
    out = np.ones(m, bool)
    for one in constraints:
        found = values[one.target]
        out = out & (found >= one.bound if one.least else found <= one.bound)
    return out


def score(wish: Wish, values: Mapping[Target, np.ndarray], m: int) -> np.ndarray:
    """What is to be largest: the aim, minus the cost, or the smallest margin of the constraints."""
    aim = wish.aim
    if isinstance(aim, Cost):
        return -expected_cost(aim, values[Target("precision")], values[Target("recall")])
    if isinstance(aim, Aim):
        return values[aim.target] if aim.largest else -values[aim.target]
    out = np.full(m, np.inf)
    for one in wish.constraints:
        margin = (values[one.target] - one.bound) * (1 if one.least else -1)
        out = np.minimum(out, margin / scale(one))
    return out


def scale(one: Constraint) -> float:
    """What a margin of a constraint is measured in."""
    return 1.0 if wishes.is_proportion(one.target.metric) else max(abs(one.bound), 1e-12)


def expected_cost(cost: Cost, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """bad·(1 − precision) + missing·(1 − recall)."""
    return cost.bad * (1 - precision) + cost.missing * (1 - recall)


def _pick(
    lams: Sequence[float],
    p: np.ndarray,
    adjusted: np.ndarray,
    aims: np.ndarray,
    margins: np.ndarray,
    level: float,
    only: float | None,
) -> int:
    if only is not None:
        return int(np.argmin(np.abs(np.log(lams) - np.log(only))))
    promised = adjusted <= 1 - level
    if promised.any():
        return int(np.argmax(np.where(promised, aims, -np.inf)))
    # The likeliest; of equally unlikely ones, the one that comes nearest.
    return int(np.lexsort((-margins, p))[0])


def _best_of_draws(table: _Table, possible: Mapping[Target, np.ndarray]) -> np.ndarray:
    """(n,) the best λ of every curve that may be true, NaN where none meets the wish."""
    at = curves.grid(table.lams)
    values = {target: curves.between(table.lams, drawn, at) for target, drawn in possible.items()}
    good = holds(table.wish.constraints, values, len(at))
    aims = score(table.wish, values, len(at))
    good, aims = np.broadcast_arrays(good, aims)
    best = np.argmax(np.where(good, aims, -np.inf), axis=-1)
    return np.where(good.any(axis=-1), at[best], np.nan)


def _given_up(table: _Table, chosen: int, level: float) -> dict[str, dict[str, float]]:
    bound = {one.target for one in table.wish.constraints}
    free = [target for target in table.points if target not in bound] or list(table.points)
    control = [row for row in table.held.rows if row.name == "control"]
    out = {}
    for target in free:
        way = -1.0 if wishes.lower_is_better(target.metric) else 1.0
        best = int(np.argmax(way * table.values(target)))
        here, there = table.decisive(target, chosen), table.decisive(target, best)
        half = 0.0
        if best != chosen:
            half = intervals.quantile(level) * float(np.sqrt(here.variance + there.variance))
        difference = there.value - here.value
        out[str(target)] = {
            "here": here.value,
            "best": there.value,
            "at": table.lams[best],
            "difference": difference,
            "low": difference - half,
            "high": difference + half,
        }
        if control and target.of is None and all(target.metric in row.metrics for row in control):
            mean = float(np.mean([row.metrics[target.metric].value for row in control]))
            out[str(target)]["control"] = mean - here.value
    return out


def _nearest(table: _Table, level: float, only: float | None) -> dict[str, Any] | None:
    """The least weakened wish that is promised: every bound gives way by the same part."""
    wish = table.wish
    if not wish.constraints:
        return None

    def weaker(by: float) -> tuple[Constraint, ...]:
        out = []
        for one in wish.constraints:
            moved = one.bound - by * scale(one) * (1 if one.least else -1)
            if wishes.is_proportion(one.target.metric):
                moved = min(max(moved, 0.0), 1.0)
            out.append(one._replace(bound=moved))
        return tuple(out)

    def promised(by: float) -> np.ndarray:
        constraints = weaker(by)
        p = table.doubts(constraints)
        adjusted = p if only is not None else promises.adjusted(constraints, p)
        found = adjusted <= 1 - level
        if only is not None:
            found &= np.isclose(table.lams, only)
        return found

    low, high = 0.0, 1.0
    for _ in range(60):
        if promised(high).any():
            break
        high *= 2
    else:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if promised(middle).any() else (middle, high)
    constraints = tuple(_outward(one) for one in weaker(high))
    found = promised(high)
    aims = np.where(found, table.aims(), -np.inf)
    at = int(np.argmax(aims))
    aim = wish.aim if wish.stated else None
    return {"lam": table.lams[at], "wish": str(Wish(constraints, aim, aim is not None))}


def _outward(one: Constraint) -> Constraint:
    """Rounded to four digits to the side on which it stays promised."""
    step = 1e-4 * scale(one)
    rounded = (np.floor if one.least else np.ceil)(
        one.bound / step + (1e-9 if one.least else -1e-9)
    )
    return one._replace(bound=float(rounded * step))


def _next(
    lams: Sequence[float],
    chosen: int,
    promised: bool,
    found: np.ndarray,
    table: _Table,
) -> tuple[float | None, str]:
    """The λ whose result would say most about where the best one is, and why."""
    best = found[np.isfinite(found)]
    if len(best) == 0:
        way = _outside(lams, table)
        if way is None:
            return None, "no λ nearby would help; another model or more training might"
        return way, "the nearest models are at the end of the λ that were trained: go on beyond it"
    middle = float(np.exp(np.median(np.log(best))))
    gap = np.abs(np.log(lams) - np.log(middle))
    nearest = int(np.argmin(gap))
    spacing = float(np.median(np.diff(np.log(lams)))) if len(lams) > 1 else 1.0
    if gap[nearest] > 0.15 * spacing:
        return round_lam(
            middle
        ), "half of the curves that may be true have their best λ on each side of it"
    lam = lams[nearest]
    if promised and nearest == chosen:
        return lam, "this λ is the likeliest best one; more seeds or samples there make it surer"
    return lam, "here the records are too unsure to decide; add seeds or samples at this λ"


def _outside(lams: Sequence[float], table: _Table) -> float | None:
    """A λ beyond an end towards which the margins still grow."""
    margin = table.margins()
    if len(lams) < 2:
        return None
    if np.argmax(margin) == len(lams) - 1:
        return round_lam(lams[-1] ** 2 / lams[-2])
    if np.argmax(margin) == 0:
        return round_lam(lams[0] ** 2 / lams[1])
    return None


def round_lam(lam: float) -> float:
    """Two significant digits."""
    return float(f"{lam:.2g}")
