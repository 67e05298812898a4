"""What can be done with a frozen generator, what each would give, and which one a wish asks for.

  leave          as it is
  truncate       fewer latents
  reject         by the fitted critic, K draws for a sample, for ever
  fine-tune      at a λ: a guess, from runs that are finished (`experience`)
  fine-tune low, reject high    train for recall, buy precision when sampling: a guess twice over,
                 the shift of rejection at the base put on the fine-tuned guess

The first three are measured. An option that costs more is recommended only where it is better with
probability `WORTH`: what is guessed with wide intervals must be much better on average.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prpr.choosing import curves, decision, promises, wishes
from prpr.choosing.points import Point, Reading, f_score, point
from prpr.choosing.wishes import Target, Wish
from prpr.errors import ConfigError
from prpr.predict.experience import METRICS, Guess, logit

LEAVE, TRUNCATE, REJECT, TUNE = "leave", "truncate", "reject", "fine-tune"
BOTH = "fine-tune low, reject high"
WORTH = 0.8
_SEED = 20_261_201


class Option(NamedTuple):
    """One thing to do.

    Attributes:
      action: of those in the module's head.
      lam, sampler: of what is trained, and how it is drawn; None where not.
      precision, recall: a reading a seed; one alone of a guess.
      calls: of the generator for one sample.
      measured: or guessed.
    """

    action: str
    lam: float | None
    sampler: str | None
    precision: tuple[Reading, ...]
    recall: tuple[Reading, ...]
    calls: float
    measured: bool

    @property
    def name(self) -> str:
        """Short, and unique."""
        parts = [] if self.lam is None else [f"fine-tune at λ = {self.lam:g}"]
        return ", ".join([*parts, *([self.sampler] if self.sampler else [])]) or LEAVE

    @property
    def trained(self) -> bool:
        """Whether it needs training."""
        return self.lam is not None

    def point(self, target: Target) -> Point:
        """What is known of a metric: precision, recall, or f_b."""
        if target.metric in METRICS:
            return point(getattr(self, target.metric), proportion=True)
        b = float(target.metric.removeprefix("f_"))
        both = zip(self.precision, self.recall, strict=True)
        return point([f_score(b, p, r) for p, r in both], proportion=True)

    def to_json(self, level: float) -> dict[str, Any]:
        """Plain values."""
        shown = {}
        for metric in METRICS:
            one = self.point(Target(metric))
            shown[metric] = dict(
                zip(("value", "low", "high"), (one.value, *one.interval(level)), strict=True)
            )
        return {
            "action": self.action,
            "option": self.name,
            "lam": self.lam,
            "sampler": self.sampler,
            **shown,
            "calls": self.calls,
            "measured": self.measured,
        }


def guessed(base: Option, lam: float, shifts: tuple[Guess, Guess], level: float) -> Option:
    """Fine-tuning at λ."""
    found = [
        (Reading(*one.of(base.point(Target(metric)).value), level),)
        for metric, one in zip(METRICS, shifts, strict=True)
    ]
    return Option(TUNE, lam, None, found[0], found[1], 1.0, measured=False)


def rejected(tuned: Option, base: Option, reject: Option, shifts: tuple[Guess, Guess]) -> Option:
    """A guess of rejection from a fine-tuned model: moved as rejection moved the base.

    Its interval is as wide as that of the fine-tuned guess and the whole of that move together.
    """
    found = []
    for metric, one in zip(METRICS, shifts, strict=True):
        moved = logit(reject.point(Target(metric)).value) - logit(base.point(Target(metric)).value)
        level = getattr(tuned, metric)[0].level
        both = one._replace(shift=one.shift + moved, half=float(np.hypot(one.half, moved)))
        found.append((Reading(*both.of(base.point(Target(metric)).value), level),))
    return Option(BOTH, tuned.lam, reject.sampler, found[0], found[1], reject.calls, measured=False)


class Advice(NamedTuple):
    """What to do for a wish.

    Attributes:
      wish: as it was understood.
      option: the one.
      probability: that the wish holds there, as if it had been the only one; None without bounds.
      verdict: "promised" (at `level`, the choice allowed for; never of a guess), "likely",
        "unlikely".
      sure: the best of those that are promised, where that is another one; None if there is none.
      beats: {other option: probability that this one is better}, for those that meet the wish.
    """

    wish: Wish
    option: Option
    probability: float | None
    verdict: str
    sure: Option | None
    beats: dict[str, float]


def advise(
    options: Sequence[Option], costs: Sequence[float], wish: str | Wish, level: float
) -> Advice:
    """The option for a wish.

    Args:
      options: what can be done, at least one.
      costs: of each, in any unit.
      wish: of precision, recall, f_b or costs of both.
      level: of a promise.

    Raises:
      ConfigError: a wish that cannot be read, or of other metrics.
    """
    wish = check_wish(wish)
    m = len(options)
    points: list[Mapping[Target, Point]] = [
        {target: one.point(target) for target in wish.targets} for one in options
    ]
    rng = np.random.default_rng(_SEED)
    values = {t: np.array([one[t].value for one in points]) for t in wish.targets}
    drawn = {
        t: np.stack([one[t].draw(rng, curves.DRAWS) for one in points], axis=-1)
        for t in wish.targets
    }
    tested = [{c: [one[c.target]] for c in wish.constraints} for one in points]
    p = promises.doubts(wish.constraints, tested)
    measured = np.array([one.measured for one in options])
    adjusted = np.ones(m)
    adjusted[measured] = promises.holm(p[measured])
    estimated = decision.holds(wish.constraints, values, m)
    met = estimated & (p <= 1 - WORTH)
    aims = decision.score(wish, values, m)
    possible = decision.score(wish, drawn, m)
    order = [int(i) for i in np.argsort(costs, kind="stable") if met[i]]
    if not order:
        order = [int(np.lexsort((-decision.score(wish._replace(aim=None), values, m), p))[0])]
    best = order[0]
    # Without an aim a wish that is met is met: what is cheapest does.
    for i in order[1:] if wish.aim is not None else ():
        if np.mean(possible[:, i] > possible[:, best]) >= WORTH:
            best = i
    sure = None
    promised = (adjusted <= 1 - level) & bool(wish.constraints)
    if promised.any() and not promised[best]:
        sure = options[int(np.argmax(np.where(promised, aims, -np.inf)))]
    verdict = "promised" if promised[best] else ("likely" if estimated[best] else "unlikely")
    beats = {
        options[i].name: float(np.mean(possible[:, best] > possible[:, i]))
        for i in order
        if i != best
    }
    return Advice(
        wish,
        options[best],
        float(1 - p[best]) if wish.constraints else None,
        verdict,
        sure,
        beats,
    )


def _is_f(metric: str) -> bool:
    """Whether a metric is f_b of precision and recall, b > 0."""
    try:
        return metric.startswith("f_") and 0 < float(metric[2:]) < np.inf
    except ValueError:
        return False


def check_wish(wish: str | Wish) -> Wish:
    """The wish, of what is predicted; ConfigError for another."""
    found = wishes.parse(wish) if isinstance(wish, str) else wish
    for target in found.targets:
        known = target.metric in METRICS or _is_f(target.metric)
        if target.of is not None or not known:
            raise ConfigError(
                f"the wish {str(found)!r} asks about {str(target)!r}: precision, recall, f_b and "
                "their costs can be predicted; for others fine-tune, and ask "
                "experiments/choose_lambda.py."
            )
    return found
