"""Are promises kept? Simulated frontiers, records of them, and what `choosing.choose` says.

    python benchmarks/choosing.py [--frontiers 500] [--seeds 1] [--lams 8] [--n 500] [--wiggle 0.01]

A frontier is a random one: precision rises and recall falls with log λ along logistic curves, with
a wiggle of its own at every λ, so that it is not monotone. Records are shares of n draws, one or
more seeds a λ which differ by `--between`. Wishes have random bounds within what the frontier
spans. For each kind of wish:

  promised    share of the frontiers in which something was promised
  kept        share of the promises that are true of the true frontier (aim: at least .95)
  broken      share of all frontiers with a promise that is not true (what .05 really bounds)
  point       the same share of truths where λ is chosen by the point estimates instead
  regret      what the truly best λ has more of the aim than the promised one, on average
  point's     regret of the choice by point estimates, where its λ meets the wish

Printed are also the same with --monotone's smoothing.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prpr import choosing
from prpr.choosing import points
from prpr.choosing.records import Records, Row
from prpr.errors import ConfigError
from prpr.metrics import intervals

WISHES = (
    "precision >= {p}",
    "recall >= {r}",
    "precision >= {p} and recall >= {r}",
    "precision >= {p} and max f_2",
)


class Frontier(NamedTuple):
    """True precision and recall at each λ, (m,) each."""

    lams: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def frontier(rng: np.random.Generator, m: int, wiggle: float) -> Frontier:
    """A random one over λ in [.05, 20]."""
    lams = np.geomspace(0.05, 20, m)
    x = np.log(lams)

    def curve(low: float, high: float) -> np.ndarray:
        middle, width = rng.uniform(-2, 2), rng.uniform(0.5, 3)
        share = 1 / (1 + np.exp(-(x - middle) / width))
        return np.clip(low + (high - low) * share + wiggle * rng.standard_normal(m), 0, 1)

    least, most = rng.uniform(0.4, 0.85), rng.uniform(0.86, 0.99)
    fewest, all_ = rng.uniform(0.1, 0.5), rng.uniform(0.55, 0.95)
    return Frontier(lams, curve(least, most), curve(all_, fewest))


def measured(
    rng: np.random.Generator, truth: Frontier, seeds: int, n: int, between: float
) -> Records:
    """Records of it: shares of n draws with Wilson's intervals."""
    t, rows = intervals.quantile(0.95), []
    for i, lam in enumerate(truth.lams):
        for seed in range(seeds):
            metrics = {}
            for name in ("precision", "recall"):
                own = getattr(truth, name)[i] + between * rng.standard_normal() * (seeds > 1)
                value = rng.binomial(n, np.clip(own, 0, 1)) / n
                low, high = intervals.proportion(value, n, t)
                metrics[name] = points.Reading(value, min(low, value), max(high, value))
            rows.append(Row(f"lam{lam:g}", float(lam), seed, metrics, {}, "simulated"))
    return Records(tuple(rows), {})


def values(truth: Frontier, name: str) -> np.ndarray:
    """(m,) a metric of the truth."""
    if not name.startswith("f_"):
        return getattr(truth, name)
    b2 = float(name.removeprefix("f_")) ** 2
    p, r = truth.precision, truth.recall
    return (1 + b2) * p * r / (b2 * p + r)


class Tally(NamedTuple):
    """Of one kind of wish: see the module's head."""

    wishes: int
    promised: int
    kept: int
    regret: float
    point_wishes: int
    point_kept: int
    point_regret: float


def simulate(
    form: str,
    frontiers: int,
    seeds: int,
    m: int,
    n: int,
    wiggle: float,
    between: float,
    monotone: bool,
) -> Tally:
    """Promises of one kind of wish over random frontiers."""
    promised = kept = asked = point_kept = 0
    regrets: list[float] = []
    point_regrets: list[float] = []
    for i in range(frontiers):
        rng = np.random.default_rng([i, seeds, m, n])
        truth = frontier(rng, m, wiggle)
        p, r = (rng.uniform(v.min(), v.max()) for v in (truth.precision, truth.recall))
        wish = choosing.parse(form.format(p=f"{p:.4f}", r=f"{r:.4f}"))
        held = measured(rng, truth, seeds, n, between)
        answer = choosing.choose(held, wish, monotone=monotone)
        good = np.ones(m, bool)
        for one in wish.constraints:
            good &= values(truth, one.target.metric) >= one.bound
        aim = wish.aim
        reach = values(truth, aim.target.metric) if isinstance(aim, choosing.Aim) else np.ones(m)
        best = reach[good].max() if good.any() else np.nan
        at = int(np.argmin(np.abs(truth.lams - answer.lam)))
        if answer.feasible:
            promised += 1
            kept += int(good[at])
            if good[at]:
                regrets.append(float(best - reach[at]))
        seen = by_estimates(held, wish)
        if seen is not None:
            asked += 1
            point_kept += int(good[seen])
            if good[seen]:
                point_regrets.append(float(best - reach[seen]))
    means = [float(np.mean(one)) if one else np.nan for one in (regrets, point_regrets)]
    return Tally(frontiers, promised, kept, means[0], asked, point_kept, means[1])


def by_estimates(held: Records, wish: choosing.Wish) -> int | None:
    """The λ that point estimates would choose, or None where they see none."""
    lams = held.lams
    seen = Frontier(
        np.asarray(lams),
        *(
            np.asarray([np.mean([row.metrics[name].value for row in held.at(lam)]) for lam in lams])
            for name in ("precision", "recall")
        ),
    )
    good = np.ones(len(lams), bool)
    for one in wish.constraints:
        good &= values(seen, one.target.metric) >= one.bound
    if not good.any():
        return None
    aim = wish.aim
    reach = values(seen, aim.target.metric) if isinstance(aim, choosing.Aim) else np.ones(len(lams))
    return int(np.argmax(np.where(good, reach, -np.inf)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frontiers", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lams", type=int, default=8)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--wiggle", type=float, default=0.01)
    parser.add_argument("--between", type=float, default=0.01)
    given = parser.parse_args(arguments)
    if min(given.frontiers, given.seeds, given.n) < 1 or given.lams < 2:
        raise ConfigError("--frontiers, --seeds and --n are at least 1, --lams at least 2")
    print(
        f"{given.frontiers} frontiers, {given.lams} λ, {given.seeds} seeds (between them "
        f"{given.between:g}), {given.n} draws, wiggle {given.wiggle:g}"
    )
    head = ("promised", "kept", "broken", "regret", "point kept", "point's regret")
    print(f"{'wish':36}{'monotone':>9}" + "".join(f"{one:>15}" for one in head))
    for form in WISHES:
        for monotone in (False, True):
            one = simulate(
                form,
                given.frontiers,
                given.seeds,
                given.lams,
                given.n,
                given.wiggle,
                given.between,
                monotone,
            )
            shares = (
                one.promised / one.wishes,
                one.kept / max(one.promised, 1),
                (one.promised - one.kept) / one.wishes,
                one.regret,
                one.point_kept / max(one.point_wishes, 1),
                one.point_regret,
            )
            name = form.format(p="p", r="r")
            print(f"{name:36}{monotone!s:>9}" + "".join(f"{x:>15.3f}" for x in shares), flush=True)


if __name__ == "__main__":
    main()
