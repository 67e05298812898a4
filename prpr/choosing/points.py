"""A metric at one λ, from all records of that λ: its value, and how sure it is.

Notation: S seeds with values v_s; w² the mean variance of one run's value, from its interval.

  value = mean_s v_s        Var = s²/S + w²        s² the seeds' variance, S − 1 below

w² is not divided by S: runs of prpr share held-out data and latents, so that what these do to one
run they do to all. With one seed the number is that model's own; with more it is what training at
this λ gives on average. t has the degrees of freedom of s²/S + w² (Satterthwaite).

A proportion's variance is turned into n = v(1 − v)/Var draws and its tests are score tests,

  P(θ <= x) = P(t >= (v − x)/√(x(1 − x)/n)),

as Wilson's interval is, so that 1 from 20 samples is not certain. Others are normal.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from prpr.metrics import intervals


class Reading(NamedTuple):
    """A value of one run, with the interval at `level` where there is one."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95


class Point(NamedTuple):
    """A metric at one λ.

    Attributes:
      value: mean over seeds.
      variance: of that mean, see the module's head.
      df: degrees of freedom of the variance.
      draws: n of a proportion, None for others.
      seeds: how many.
    """

    value: float
    variance: float
    df: float
    draws: float | None
    seeds: int

    def distance(self, x: float) -> float:
        """Standard errors by which the value is above x; ±inf where there is no error."""
        variance = self.variance
        if self.draws is not None:
            # At 0 and 1 the hypothesis has no variance: nothing but that value is compatible.
            variance = x * (1 - x) / self.draws
        apart = self.value - x
        if variance <= 0:
            return float(np.sign(apart) * np.inf) if apart else 0.0
        return apart / float(np.sqrt(variance))

    def doubt(self, x: float, least: bool) -> float:
        """p of "the metric is not (at least, or at most) x", one-sided; small: it surely is."""
        t = self.distance(x)
        if np.isinf(t):
            return float((t < 0) == least)
        return float(special.stdtr(self.df, -t if least else t))

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided, at `level`."""
        t = intervals.quantile(level, self.df)
        if self.draws is not None:
            return intervals.proportion(self.value, self.draws, t)
        half = t * float(np.sqrt(self.variance))
        return self.value - half, self.value + half

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n,) values that the metric may have: of a proportion, by inverting its score test."""
        t = rng.standard_t(self.df, n) if np.isfinite(self.df) else rng.standard_normal(n)
        if self.draws is None:
            return self.value + t * np.sqrt(self.variance)
        c = t * t / self.draws
        half = np.sqrt(c * self.value * (1 - self.value) + c * c / 4)
        return np.clip((self.value + c / 2 + np.sign(t) * half) / (1 + c), 0, 1)


def point(readings: Sequence[Reading], proportion: bool) -> Point:
    """All readings of one metric at one λ, one a seed.

    Args:
      readings: at least one; either all with intervals, or at least two of them.
      proportion: whether the metric lies in [0, 1].
    """
    values = np.asarray([one.value for one in readings], np.float64)
    seeds, value = len(values), float(values.mean())
    between = float(values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    each = [_variance(one, proportion) for one in readings]
    within = float(np.mean([one for one, _ in each]))
    variance = between + within
    df = np.inf
    if between > 0:
        df = max(1.0, (seeds - 1) * (variance / between) ** 2)
    if not proportion:
        return Point(value, variance, df, None, seeds)
    # Where nothing varies, the interval alone says how many draws there were.
    most = min(n for _, n in each)
    spread = value * (1 - value)
    draws = min(most, spread / variance) if spread > 0 and variance > 0 else most
    if not np.isfinite(draws):
        return Point(value, variance, df, None, seeds)
    return Point(value, variance, df, draws, seeds)


def _variance(one: Reading, proportion: bool) -> tuple[float, float]:
    """(variance of a run's value, draws): from its interval; (0, ∞) where there is none."""
    if one.low is None or one.high is None:
        return 0.0, np.inf
    t = intervals.quantile(one.level)
    if not proportion:
        half = max(one.value - one.low, one.high - one.value)
        return (half / t) ** 2, np.inf
    # (v − p)² = t² p(1 − p)/n at both ends of Wilson's interval; the wider one decides.
    per_draw = [
        (one.value - end) ** 2 / (t * t * end * (1 - end))
        for end in (one.low, one.high)
        if 0 < end < 1
    ]
    if not per_draw or max(per_draw) == 0:
        return 0.0, np.inf
    n = 1 / max(per_draw)
    return one.value * (1 - one.value) / n, n


def f_score(b: float, precision: Reading, recall: Reading) -> Reading:
    """F_b = (1 + b²)pr/(b²p + r) of a run's precision p and recall r.

    F_b rises in both, so that it lies between its values at the ends of their intervals: a box,
    which covers at least as often as both of them do, and is the wider for it.
    """

    def f(p: float, r: float) -> float:
        return (1 + b * b) * p * r / (b * b * p + r) if p > 0 and r > 0 else 0.0

    value = f(precision.value, recall.value)
    if None in (precision.low, precision.high, recall.low, recall.high):
        return Reading(value, level=precision.level)
    low, high = (f(getattr(precision, e), getattr(recall, e)) for e in ("low", "high"))
    return Reading(value, low, high, min(precision.level, recall.level))
