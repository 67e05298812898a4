"""What must hold of a metric over a sweep: the rules of the synthetic checks in `sanity.checks`.

A judge is given a metric's values over a sweep and says True, False, "low" or "high" (two ways
to pass that a diversity metric has), or None where it asks nothing of this kind of metric.

The thresholds are those of sanity_check_criteria.py in the repository of arXiv 2505.22450
(DPBayes/position-fidelity-diversity-metrics-flawed), written anew. It judges metrics of fidelity
and of diversity. For two more kinds the rules are ours: "overall" (one number for both, such as
an F-score: low when either is lost) and "distance" (0 is best, no upper bound, so that absolute
targets say nothing about it). A distance v is judged by 1 − v/v_bad, where v_bad is its least
value at the ends of the sweep where it must be large, and as a flat line by v/max v.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

KINDS = ("fidelity", "diversity", "overall", "distance")
NEAR = 0.05  # of a target, and the height of a flat line
DROP, SLACK = 0.2, 0.1  # what a change must reach; how far from the extreme an end may be
LEFT, RIGHT = -np.inf, np.inf  # the ends of a sweep

Verdict = bool | str | None


class View(NamedTuple):
    """What a rule is given: the kind of metric, the case's name, and values over the sweep."""

    kind: str
    case: str
    sweep: np.ndarray
    values: np.ndarray

    def place(self, at: float) -> int:
        """Of the sweep's point next to `at`."""
        if np.isinf(at):
            return 0 if at < 0 else len(self.sweep) - 1
        return int(np.abs(self.sweep - at).argmin())

    def scores(self, *bad: int) -> np.ndarray:
        """Values, high is good; a distance is turned over, 0 at the least of its bad ends."""
        if self.kind != "distance":
            return self.values
        return 1 - self.values / max(float(self.values[list(bad)].min()), 1e-300)


Judge = Callable[[View], Verdict]


class Rule(NamedTuple):
    desideratum: str
    words: str
    judge: Judge


def together(verdicts: list[Verdict]) -> Verdict:
    """All rules of one desideratum in all cases: False beats all, low with high is False."""
    said = [v for v in verdicts if v is not None]
    if not said:
        return None
    if not all(said) or ("low" in said and "high" in said):
        return False
    return next((v for v in said if isinstance(v, str)), True)


# --- what a rule asks -------------------------------------------------------------------


def _close(x: float, target: float) -> bool:
    return bool(abs(x - target) <= NEAR + 1e-12)


def near(at: float, target: float) -> Judge:
    """Within 0.05 of the target at a point of the sweep; ±inf are its ends."""
    return lambda v: None if v.kind == "distance" else _close(float(v.values[v.place(at)]), target)


def wide(at: float) -> Judge:
    """1 ("high") or 0 ("low") at a point."""

    def judge(v: View) -> Verdict:
        x = float(v.values[v.place(at)])
        return "high" if _close(x, 1) else "low" if _close(x, 0) else False

    return judge


def bell(mid: float) -> Judge:
    """The middle 0.2 above both ends, within 0.1 of the top; an end within 0.1 of the least."""

    def judge(v: View) -> Verdict:
        s = v.scores(0, -1)
        top = s[v.place(mid)]
        return bool(
            min(top - s[0], top - s[-1]) >= DROP
            and s.max() - top <= SLACK
            and min(s[0], s[-1]) - s.min() <= SLACK
        )

    return judge


def _falling(s: np.ndarray) -> bool:
    return bool(s[0] - s[-1] >= DROP and s.max() - s[0] <= SLACK and s[-1] - s.min() <= SLACK)


def falls(v: View) -> Verdict:
    """From left to right by 0.2 or more; both ends within 0.1 of the extremes."""
    return _falling(v.scores(-1))


def rises(v: View) -> Verdict:
    return _falling(v.scores(0)[::-1])


def falls_by(at: float) -> Judge:
    """Falls, and is 0.1 below its start at this point already."""

    def judge(v: View) -> Verdict:
        s = v.scores(-1)
        return _falling(s) and bool(s[0] - s[v.place(at)] >= SLACK)

    return judge


def _height(v: View, some: np.ndarray) -> float:
    values = v.values[some]
    scale = max(float(np.abs(values).max()), 1e-300) if v.kind == "distance" else 1.0
    return float(np.ptp(values)) / scale


def flat(v: View) -> Verdict:
    """All values within 0.05."""
    return _height(v, np.ones(len(v.sweep), bool)) <= NEAR


def settles(v: View) -> Verdict:
    """Within 0.05 from the middle of the sweep on."""
    return _height(v, v.sweep >= np.median(v.sweep)) <= NEAR


def low_or_high(low: Judge, high: Judge) -> Judge:
    """The shape of a diversity metric that calls wide fakes "low", or the one of "high"."""
    return lambda v: "low" if low(v) else "high" if high(v) else False


def by_kind(**judges: Judge) -> Judge:
    """Another question for each kind; none: the rule does not apply. Distances go as overall."""

    def judge(v: View) -> Verdict:
        found = judges.get("overall" if v.kind == "distance" else v.kind)
        return None if found is None else found(v)

    return judge


def by_case(**judges: Judge) -> Judge:
    return lambda v: judges[v.case](v)
