"""Intervals for metrics of two samples: jackknife over groups, then a score interval.

Notation
  θ       the metric's values: θ[0, 0] on the whole samples, θ[g, h] without group g of the real
          and group h of the fake sample (0: nothing left out); shape (1 + G, 1 + H)
  G, H    number of groups that each sample is cut into, at random
  n       effective sample size: how many independent draws have the variance that was found
  t       two-sided Student quantile at `level`

A kNN metric of (real, fake) varies with both samples: each of them makes the balls or is
counted in them. A binomial interval on the counts alone is too narrow, and a bootstrap
draws points twice, which shrinks the balls (a duplicate has a neighbour at distance 0).
So the variance comes from the delete-a-group jackknife (Shao & Tu 1995),
with the sum over the two samples corrected for what both see:

  V_real = (G−1)/G Σ_g (θ[g, 0] − mean_g)²,   V_fake likewise over h,
  V_both = (G−1)(H−1)/(GH) Σ_gh (θ[g, h] − row mean − column mean + mean)²
  Var    = V_real + V_fake − V_both

Why minus: in the Hoeffding decomposition of θ over the groups, a term of a real and b fake
groups is counted a times in V_real, b times in V_fake and ab times in V_both (Efron & Stein
1981 for one sample), so a + b − ab times in Var: once when a or b is 1. A metric that knows its
terms of two samples of one set (a = 2, b = 0) has them taken off (`Replicates.twice`). Precision
and density are means over single fakes, recall over single reals, so only terms of one sample
alone (a >= 2, b = 0) count twice: the interval errs on the wide side. Coverage asks whether
ANY fake is in a ball made by several reals: terms with a, b >= 2 count too little or even below
0, and FLOOR · max(V_real, V_fake) is what stands.

Measured, N = M = 400, k = 3 and 5, G = 20, 300 replicates of Gaussians in 8 to 16 dimensions
(shifted, narrowed, widened) and of mixtures: 95 % intervals cover in 91 % to 99 % of the
replicates. Lower, 86 % to 89 %, when precision or recall is below 0.1 because the sets lie far
apart: a few large balls decide, and a draw without them shows neither value nor variance.

The variance is turned into n, and n into a score interval, which stays in the metric's range
and has a width even at 0 and 1:

  proportion in [0, 1]   Var = v(1−v)/n    Wilson 1927
  rate in [0, ∞)         Var = v/n         the same construction for a Poisson mean

What is covered is the metric's EXPECTATION AT THESE SAMPLE SIZES and this k, not its limit:
kNN metrics depend on N, and only numbers at equal N, k and encoder can be compared.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from prpr import errors

# By simulation: 1/2 leaves coverage's 95 % intervals at 91 % to 97 %, 1 makes them three times
# as wide as needed near 1. The other three metrics seldom meet it.
FLOOR = 2 / 3


class Estimate(NamedTuple):
    """A number and its interval: low <= value <= high; `k` neighbours where that applies."""

    value: float
    low: float
    high: float
    k: int | None = None


class Replicates(NamedTuple):
    """A metric's value and its leave-group-out replicates, before an interval is made of them.

    Attributes:
      theta: θ (1 + G, 1 + H), see the module's head; (1, 1) where nothing was left out.
      draws: how many samples the metric is a mean over.
      kind: "proportion" in [0, 1], "rate" in [0, ∞) whose variance grows with its mean, "real",
        or "capped": a rate of which θ[0, 0] is capped at `top` and the replicates are not, since
        a number that stays there whatever is left out would seem to have no error.
      k: neighbours, where that applies.
      notes: what to know before trusting the number.
      twice: for a metric whose terms are of one or two samples, the parts of V_real and V_fake
        that come from two of the SAME set and so are counted twice (`second_order`); None where
        terms may be of more samples.
      top: where a "capped" metric is capped.
    """

    theta: np.ndarray
    draws: float
    kind: str = "proportion"
    k: int | None = None
    notes: tuple[str, ...] = ()
    twice: tuple[float, float] | None = None
    top: float = 1.0


class Comparison(NamedTuple):
    """A difference first − second, its interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


def check_level(level: float) -> None:
    """Raises ConfigError unless 0 < level < 1."""
    if not 0.0 < level < 1.0:
        raise errors.ConfigError(
            f"level={level!r} of an interval must lie between 0 and 1, such as 0.95"
        )


def quantile(level: float, df: float = np.inf) -> float:
    """t with P(|T| <= t) = level, for Student's T with df degrees of freedom (inf: normal)."""
    check_level(level)
    tail = 0.5 + level / 2
    return float(special.ndtri(tail) if np.isinf(df) else special.stdtrit(df, tail))


def proportion(v: float, n: float, t: float) -> tuple[float, float]:
    """Wilson's interval {p : (v − p)² <= t² p(1−p)/n}, within [0, 1] (Wilson 1927).

    Args:
      v: observed proportion, in [0, 1].
      n: effective number of draws, > 0 (need not be whole).
      t: two-sided quantile, see `quantile`.
    """
    c = t * t / n
    centre = (v + c / 2) / (1 + c)
    half = np.sqrt(c * v * (1 - v) + c * c / 4) / (1 + c)
    low = max(0.0, float(centre - half))
    # At v = 1 rounding can leave the sum just below 1 (at v = 0 the difference is exact).
    high = 1.0 if v == 1 else min(1.0, float(centre + half))
    return low, high


def rate(v: float, n: float, t: float) -> tuple[float, float]:
    """Score interval {m : (v − m)² <= t² m/n} of a mean of counts, within [0, ∞)."""
    c = t * t / n
    half = np.sqrt(c * v + c * c / 4)
    return max(0.0, float(v + c / 2 - half)), float(v + c / 2 + half)


def jackknife_parts(theta: np.ndarray) -> tuple[float, float, float]:
    """V_real, V_fake, V_both of θ (1 + G, 1 + H), G and H >= 2: see the module's head."""
    theta = np.asarray(theta, np.float64)
    g, h = theta.shape[0] - 1, theta.shape[1] - 1
    real, fake, both = theta[1:, 0], theta[0, 1:], theta[1:, 1:]
    both = both - both.mean(axis=0) - both.mean(axis=1)[:, None] + both.mean()
    v_real = (g - 1) / g * np.sum((real - real.mean()) ** 2)
    v_fake = (h - 1) / h * np.sum((fake - fake.mean()) ** 2)
    v_both = (g - 1) * (h - 1) / (g * h) * np.sum(both**2)
    return float(v_real), float(v_fake), float(v_both)


def estimate(replicates: Replicates, level: float = 0.95) -> Estimate:
    """The interval of a metric of two independent samples, by the kind of its value.

    Raises:
      ConfigError: level outside (0, 1).
    """
    one = replicates
    if one.kind == "capped":
        return _capped(one, level)
    if one.kind == "real":
        value, (variance, df) = float(one.theta[0, 0]), _variance(one.theta, one.twice)
        half = quantile(level, df) * np.sqrt(variance)
        return Estimate(value, float(value - half), float(value + half), one.k)
    return two_sample(one.theta, one.draws, level, one.kind == "proportion", one.k, one.twice)


def compare(first: Replicates, second: Replicates, level: float = 0.95) -> Comparison:
    """The difference of one metric of two models measured against the same real groups.

    With θᵃ and θᵇ over the same G groups of the real sample and each model's own H groups:
    the real part of Var(a − b) is V_real of θᵃ[g, 0] − θᵇ[g, 0], in which what both owe to
    the real sample cancels; the fake parts add up, and so do what both sets make together.

    The interval is difference ± t √Var(a − b), but no model is surer of its own number than a score
    interval [low, high] of `draws` draws is, which has a width at 0 and 1:

      down² = t² Var(a − b) + max(0, (a − low_a)² − t² Var(a)) + max(0, (high_b − b)² − t² Var(b))

    and up² with the other sides. Where no replicate differs, that is Newcombe's interval (1998,
    method 10) of two independent numbers. p is that of |a − b| against t-fold down or up, whichever
    lies towards 0, so p < 1 − level just where 0 lies outside.

    Raises:
      ConfigError: level outside (0, 1).
      ValueError: replicates over different numbers of real groups.
    """
    check_level(level)
    a, b = (np.asarray(one.theta, np.float64) for one in (first, second))
    if len(a) != len(b):
        raise ValueError(f"replicates over {len(a) - 1} and {len(b) - 1} groups of real samples")
    shared = a[1:, 0] - b[1:, 0]
    g = len(shared)
    v_real = (g - 1) / g * float(np.sum((shared - shared.mean()) ** 2))
    parts = [jackknife_parts(one) for one in (a, b)]
    v_fake, v_both = sum(part[1] for part in parts), sum(part[2] for part in parts)
    # What counts twice in the difference of the real parts is not known: it errs on the wide side.
    twice = None
    if first.twice is not None and second.twice is not None:
        twice = first.twice[1] + second.twice[1]
    variance = _once(v_real, v_fake, v_both, twice)
    difference = float(a[0, 0] - b[0, 0])
    df = np.inf
    if variance > 0:
        own = [(part[1], len(x[0]) - 1) for part, x in zip(parts, (a, b), strict=True)]
        df = _freedom([(v_real, g), *own])
    t = quantile(level, df)
    down, up = np.sqrt(t * t * variance + _floors(first, second, t))
    towards = float(down if difference > 0 else up)
    if difference == 0 or towards == 0:
        p = float(difference == 0)
    else:
        p = 2 * float(special.stdtr(df, -t * abs(difference) / towards))
    low, high = float(difference - down), float(difference + up)
    if first.kind in ("proportion", "capped"):
        low, high = max(low, -first.top), min(high, first.top)
    return Comparison(difference, low, high, p)


def _floors(first: Replicates, second: Replicates, t: float) -> np.ndarray:
    """What the score intervals add to t² Var(a − b), downwards and upwards: (2,), see `compare`."""
    out = np.zeros(2)
    for one, turned in ((first, False), (second, True)):
        sides = np.square(_score_sides(one, t)) - t * t * _variance(one.theta, one.twice)[0]
        out += np.maximum(sides[::-1] if turned else sides, 0)
    return out


def _score_sides(one: Replicates, t: float) -> np.ndarray:
    """(value − low, high − value) of the score interval of `draws` draws; 0 for "real" ones."""
    top = one.top if one.kind == "capped" else 1.0
    value = float(one.theta[0, 0]) / top
    low, high = value, value
    if one.kind == "proportion":
        low, high = proportion(value, one.draws, t)
    elif one.kind != "real":
        low, high = rate(value, one.draws, t)
    if one.kind == "capped":
        low, high = min(low, proportion(1.0, one.draws, t)[0]) if value >= 1 else low, min(high, 1)
    return top * np.maximum([value - low, high - value], 0)


def _capped(one: Replicates, level: float) -> Estimate:
    """The interval of a rate θ, cut off at the top; never narrower there than Wilson's."""
    theta = np.array(one.theta, np.float64) / one.top
    value = float(theta[0, 0])
    if value >= 1:
        # How far θ itself is above 1 is known from the replicates alone.
        theta[0, 0] = max(1.0, float(theta[1:, 0].mean()))
    low, high = two_sample(theta, one.draws, level, bounded=False)[1:3]
    if value >= 1:
        low = min(low, proportion(1.0, one.draws, quantile(level))[0])
    value, low, high = (one.top * x for x in (value, min(low, value), max(value, min(high, 1.0))))
    return Estimate(value, low, high, one.k)


def second_order(q: np.ndarray) -> float:
    """The variance of a metric's terms of two samples of one set, which V counts twice.

    The metric is Σ_gh q[g, h] and terms of one group each, where q[g, h] is a symmetric
    bilinear form in what groups g and h deviate by. With independent groups that variance is
    2 G² E q[g, h]² over g != h, of which Himeno & Yamada's (2014) estimator of tr Σ² is free of
    bias whatever the groups' distribution, also when deviations are from the groups' own mean.

    Args:
      q: (G, G); 0 is returned for G < 4, where nothing can be told.
    """
    n = len(q)
    if n < 4:
        return 0.0
    q = q - q.mean(axis=0) - q.mean(axis=1)[:, None] + q.mean()
    own = np.diag(q)
    total = (n - 2) / (n - 1) * np.sum(q**2) + (np.sum(own) / (n - 1)) ** 2
    total -= n / (n - 1) * np.sum(own**2)
    return float(2 * n * (n - 1) / ((n - 2) * (n - 3)) * total)


def _once(v_real: float, v_fake: float, v_both: float, twice: float | None) -> float:
    """Var = V_real + V_fake − V_both − twice, where terms of at most two samples are known to be.

    It is a difference of estimates, which chance can make far too small, even negative. What is
    counted at most twice is at least half of its count; where nothing is known, FLOOR stands.
    """
    if twice is None:
        return max(v_real + v_fake - v_both, FLOOR * max(v_real, v_fake))
    return max(v_real + v_fake - v_both - twice, (v_real + v_fake) / 2)


def _variance(theta: np.ndarray, twice: tuple[float, float] | None = None) -> tuple[float, float]:
    """(Var of θ[0, 0], its degrees of freedom by Welch and Satterthwaite); (0, ∞) for none."""
    v_real, v_fake, v_both = jackknife_parts(theta)
    variance = _once(v_real, v_fake, v_both, None if twice is None else sum(twice))
    if not variance > 0:
        return 0.0, np.inf
    return variance, _freedom([(v_real, len(theta) - 1), (v_fake, len(theta[0]) - 1)])


def _freedom(parts: list[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances, each from its number of groups (Satterthwaite)."""
    return sum(v for v, _ in parts) ** 2 / sum(v**2 / (groups - 1) for v, groups in parts)


def two_sample(
    theta: np.ndarray,
    draws: float,
    level: float = 0.95,
    bounded: bool = True,
    k: int | None = None,
    twice: tuple[float, float] | None = None,
) -> Estimate:
    """The interval of a metric of two independent samples.

    Args:
      theta: θ, shape (1 + G, 1 + H) with G and H >= 2.
      draws: how many samples the metric is a mean over. n never exceeds it: when no replicate
        differs (v at 0 or 1), the interval is that of `draws` independent draws.
      level: probability of covering.
      bounded: True for a proportion, False for a rate, which may exceed 1.
      k: kept in the result.
      twice: see `Replicates`.

    Raises:
      ConfigError: level outside (0, 1).
    """
    value = float(theta[0, 0])
    variance, df = _variance(theta, twice)
    spread = value * (1 - value) if bounded else value
    if variance > 0 and spread > 0:
        n = min(draws, spread / variance)
    else:
        n, df = draws, np.inf
    low, high = (proportion if bounded else rate)(value, n, quantile(level, df))
    return Estimate(value, min(low, value), max(high, value), k)
