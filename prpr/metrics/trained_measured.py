"""The table "λ trained for" against "λ measured": does a run trained at λ do best at λ?

Notation: run i was trained at λ_i; α_i(λ) its measured frontier (`curves`), β = α/λ.

For each run: α_i(λ_i) and β_i(λ_i) with intervals; which run has the largest α at λ_i, and by how
much it is ahead, with a paired test where that is another run (all runs are measured on the same
real groups); and the λ_j at which run i does best relative to the others, the largest
α_i(λ_j)/max_k α_k(λ_j). The best of R runs is chosen on the samples that it is then tested on, and
of R equal runs one is always ahead; so its p is Holm's (1979) over the R − 1 others, and its
interval one of R − 1 that all hold at once (Bonferroni). Nothing corrects for the R rows.
Over all runs: Spearman's rank correlation of λ_i with the precision end
α_i(high) and the recall end β_i(low), 1 and −1 where training does what it promises; high and
low are the ends of the trained λ, or 10 and 1/10 where these are farther out.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prpr import errors
from prpr.metrics import curves, intervals
from prpr.metrics.family import Options
from prpr.metrics.intervals import Comparison, Estimate, Replicates
from prpr.metrics.statistics import Statistics

HIGH, LOW = 10.0, 0.1


class Row(NamedTuple):
    """One run.

    Attributes:
      lam: λ that it was trained for.
      alpha, beta: its frontier at that λ.
      winner: the λ of the run with the largest α at this λ.
      ahead: α of the winner minus α of this run, paired, with the interval and the p that allow
        for its having been chosen among all other runs; None where this run wins.
      best: the trained λ at which this run does best relative to the others.
      precision, recall: α at the table's `high` and β at its `low`.
    """

    lam: float
    alpha: Estimate
    beta: Estimate
    winner: float
    ahead: Comparison | None
    best: float
    precision: Estimate
    recall: Estimate


class Table(NamedTuple):
    """Rows in the order of λ; Spearman's correlations are None for fewer than three runs.

    `notes`: what to know before trusting the numbers.
    """

    rows: tuple[Row, ...]
    precision_order: float | None
    recall_order: float | None
    high: float
    low: float
    level: float
    notes: tuple[str, ...] = ()

    @property
    def wins(self) -> int:
        """How many runs are the best at the λ that they were trained for."""
        return sum(row.ahead is None for row in self.rows)


def table(
    runs: Mapping[float, tuple[Statistics, Statistics]],
    options: Options | None = None,
    estimator: str = "classifier",
) -> Table:
    """The table of runs {λ: (real, fake)}, all with the same real samples; raises as `of_each`."""
    return of_each(list(runs), runs.values(), options, estimator)


def of_each(
    lam: ArrayLike,
    runs: Iterable[tuple[Statistics, Statistics]],
    options: Options | None = None,
    estimator: str = "classifier",
) -> Table:
    """The table of runs that come one after the other: none is held when the next is made.

    Args:
      lam: λ > 0 that the runs were trained for, (R,).
      runs: (real, fake) of each, in the order of `lam`, all with the same real samples.
      options: level, groups, seed, progress.
      estimator: "classifier" or "knn".

    Raises:
      ConfigError: no run, a λ that is not positive and finite, an unknown estimator, a level
        outside (0, 1); all before the first run is asked for.
      DataError: runs with different real samples; else as `curves.curve`.
    """
    options = options or Options()
    if np.size(lam) == 0:
        raise errors.ConfigError("runs={}: a table of λ needs one trained λ at least")
    lam = curves.check_lam(lam)
    intervals.check_level(options.level)
    if estimator not in curves.ESTIMATORS:
        raise errors.unknown_name("estimator", estimator, curves.ESTIMATORS)
    order = np.argsort(lam)
    lam = lam[order]
    ends = max(HIGH, float(lam[-1])), min(LOW, float(lam[0]))
    grid = np.concatenate([lam, ends])
    made: list[list[Replicates]] = []
    first: Statistics | None = None
    for real, fake in runs:
        first = real if first is None else first
        _check_same(first, real)
        made.append(curves.frontier(real, fake, grid, options, estimator))
        del real, fake  # or they would be held until the next are there
    if len(made) != len(lam):
        raise ValueError(f"{len(lam)} λ and {len(made)} runs")
    found = [made[one] for one in order]
    alpha = np.array([[one.theta[0, 0] for one in row[: len(lam)]] for row in found])
    winner = np.argmax(alpha, axis=0)
    # Where a run is as good as the best it wins, too.
    winner = np.where(np.diag(alpha) >= alpha.max(axis=0), np.arange(len(lam)), winner)
    relative = alpha / np.maximum(alpha.max(axis=0), np.finfo(np.float64).tiny)
    rows = []
    for i, row in enumerate(found):
        own = intervals.estimate(row[i], options.level)
        high = intervals.estimate(row[-2], options.level)
        low = intervals.estimate(row[-1], options.level)
        first_at = int(winner[i])
        there = [one[i] for one in found]
        # Where several are as good, the nearest to the λ that it was trained for.
        ties = np.flatnonzero(relative[i] == relative[i].max())
        best = ties[np.argmin(np.abs(np.log(lam[ties] / lam[i])))]
        rows.append(
            Row(
                float(lam[i]),
                own,
                _scaled(own, 1 / lam[i]),
                float(lam[first_at]),
                _ahead(there, first_at, i, options.level) if first_at != i else None,
                float(lam[best]),
                high,
                _scaled(low, 1 / ends[1]),
            )
        )
    return Table(
        tuple(rows),
        _spearman(lam, [row.precision.value for row in rows]),
        _spearman(lam, [row.recall.value for row in rows]),
        *ends,
        options.level,
        tuple(dict.fromkeys(note for row in found for one in row for note in one.notes)),
    )


def _check_same(first: Statistics, real: Statistics) -> None:
    """DataError unless two runs are measured on the same real samples: the test is paired."""
    if first is real:
        return
    sizes = {first.n, real.n}
    if len(sizes) > 1:
        raise errors.DataError(
            f"runs have {sorted(sizes)} real samples: measure all of them on one set"
        )
    if not np.array_equal(first.needed("real"), real.needed("real")):
        raise errors.DataError(
            f"runs have different real samples, {first.n} each: measure all of them on one set, "
            "in one order"
        )


def _ahead(there: list[Replicates], winner: int, i: int, level: float) -> Comparison:
    """Winner minus run i, of the replicates of all R runs at one λ; see the module's head."""
    rivals = len(there) - 1
    level = 1 - (1 - level) / rivals
    each = {j: intervals.compare(one, there[i], level) for j, one in enumerate(there) if j != i}
    # Holm: the smallest of m p-values times m, the next times m − 1, and never below the last.
    p = 0.0
    for rank, j in enumerate(sorted(each, key=lambda j: each[j].p)):
        p = max(p, (rivals - rank) * each[j].p)
        if j == winner:
            break
    return each[winner]._replace(p=min(1.0, p))


def to_json(found: Table) -> dict[str, Any]:
    """The table as numbers, strings, lists and dicts; `notes` are left to the caller."""

    def number(one: Estimate) -> dict[str, float]:
        return {"value": one.value, "low": one.low, "high": one.high, "level": found.level}

    def compared(one: Comparison) -> dict[str, float]:
        return {**one._asdict(), "level": found.level}

    return {
        "rows": [
            {
                "lam": row.lam,
                "alpha": number(row.alpha),
                "beta": number(row.beta),
                "winner": row.winner,
                "wins": row.ahead is None,
                "ahead": None if row.ahead is None else compared(row.ahead),
                "best": row.best,
                "precision_end": number(row.precision),
                "recall_end": number(row.recall),
            }
            for row in found.rows
        ],
        "wins": found.wins,
        "high": found.high,
        "low": found.low,
        "spearman_precision": found.precision_order,
        "spearman_recall": found.recall_order,
    }


def to_text(found: Table) -> str:
    """The table for a terminal; "*" marks a run that is the best at the λ it was trained for."""
    head = (
        "trained λ",
        "α(λ)",
        "β(λ)",
        "best run there",
        "does best at",
        f"α({found.high:g})",
        f"β({found.low:g})",
    )
    lines: list[tuple[str, ...]] = [head]
    for row in found.rows:
        mark = "*" if row.ahead is None else f"{row.winner:g} (p={row.ahead.p:.2g})"
        numbers = [_cell(one) for one in (row.alpha, row.beta, row.precision, row.recall)]
        lines.append((f"{row.lam:g}", *numbers[:2], mark, f"{row.best:g}", *numbers[2:]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    out = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    order = [
        "–" if one is None else f"{one:+.2f}" for one in (found.precision_order, found.recall_order)
    ]
    if found.wins < len(found.rows):
        out.append(f"p is Holm's, of the best of {len(found.rows) - 1} other runs.")
    out.append(
        f"{found.wins} of {len(found.rows)} runs are the best at their λ. Spearman's correlation "
        f"of λ with α({found.high:g}): {order[0]}, with β({found.low:g}): {order[1]}."
    )
    return "\n".join(line.rstrip() for line in out)


def _cell(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _scaled(one: Estimate, by: float) -> Estimate:
    return Estimate(one.value * by, one.low * by, one.high * by, one.k)


def _spearman(lam: np.ndarray, values: list[float]) -> float | None:
    """Rank correlation, None for fewer than three runs or values that are all equal."""
    from scipy.stats import rankdata

    if len(lam) < 3 or len(set(values)) == 1:
        return None
    return float(np.corrcoef(rankdata(lam), rankdata(values))[0, 1])
