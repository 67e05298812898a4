"""What fine-tuning may reach, from runs that are finished: shifts of precision and recall with λ.

Notation: v a metric of a run, Δ(λ) = logit v(λ) − logit v(base), the mean over its seeds, linear in
log λ between the values that were trained; n runs.

  guess      logit v = logit v(base) + mean_n Δ(λ)
  interval   ± t_{n−1} s √(1 + 1/n), s the standard deviation of Δ(λ) over runs: of one more run

A shift of logits keeps a share within (0, 1), and moves it less where less is left. This is a rule
of thumb about runs like these, not a bound; one run has no interval but (0, 1).

`MEASURED` was made by `python benchmarks/predictions.py` (its head says with which settings). Each
left out in turn and guessed from the other four: the interval held 22 of 24 precisions and 23 of 24
recalls; mean |error| .016 and .089, against .019 and .100 of saying that nothing changes. So the
interval can be believed, and the guess itself says little more than which way λ moves a metric.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

from prpr import choosing
from prpr.errors import DataError
from prpr.metrics import intervals

METRICS = ("precision", "recall")
_END = 2e-3  # logits of shares nearer to 0 or 1 are those of this
_WIDEST = 12.0  # of a logit: as good as anything from 0 to 1

Shift = tuple[float, float]  # of precision, of recall


class Finished(NamedTuple):
    """A finished fine-tune: what it was of, and {λ: Δ of precision and of recall}."""

    name: str
    shifts: Mapping[float, Shift]

    def at(self, lam: float) -> np.ndarray | None:
        """Δ(λ) (2,); None outside of what was trained."""
        lams = np.log(sorted(self.shifts))
        if not lams[0] - 1e-9 <= np.log(lam) <= lams[-1] + 1e-9:
            return None
        known = np.array([self.shifts[one] for one in sorted(self.shifts)])
        return np.array([np.interp(np.log(lam), lams, column) for column in known.T])


class Guess(NamedTuple):
    """Δ(λ) of one metric: its mean, half its interval at a level, and how many runs it is from."""

    shift: float
    half: float
    runs: int

    def of(self, value: float) -> tuple[float, float, float]:
        """(value, low, high) of a metric whose base has `value`."""
        at, half = logit(value) + self.shift, min(self.half, _WIDEST)
        ends = special.expit([at, at - half, at + half])
        return float(ends[0]), float(ends[1]), float(ends[2])


def logit(share: float) -> float:
    """log(v/(1 − v)), of v within [END, 1 − END]."""
    return float(special.logit(np.clip(share, _END, 1 - _END)))


def of_workdir(workdir: str | Path, name: str) -> Finished:
    """The shifts of a finished run.

    Raises:
      ConfigError: no finished run there.
      DataError: no base, or no λ, among its rows.
    """
    held = choosing.read([workdir])
    for row in held.rows:
        if not set(METRICS) <= set(row.metrics):
            raise DataError(f"{row.where} has no {' and no '.join(METRICS)}: score the run again.")
    base = {row.seed: row for row in held.rows if row.name == "base"}
    found: dict[float, list[list[float]]] = {}
    for row in held.rows:
        if row.lam is not None and row.seed in base:
            found.setdefault(row.lam, []).append(
                [
                    logit(row.metrics[m].value) - logit(base[row.seed].metrics[m].value)
                    for m in METRICS
                ]
            )
    if not found:
        raise DataError(
            f"{workdir}: experience is a base and λ of the same seeds, and its summary.json has "
            f"{len(base)} bases and λ {', '.join(f'{lam:g}' for lam in held.lams) or 'none'}."
        )
    return Finished(
        name, {lam: tuple(np.mean(each, axis=0).tolist()) for lam, each in found.items()}
    )


def guess(finished: Sequence[Finished], lam: float, level: float) -> tuple[Guess, Guess] | None:
    """Δ(λ) of precision and of recall of one more run; None where no run reaches this λ."""
    known = np.array([at for one in finished if (at := one.at(lam)) is not None])
    n = len(known)
    if n == 0:
        return None
    half = np.full(2, np.inf)
    if n > 1:
        half = intervals.quantile(level, n - 1) * known.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    mean = known.mean(axis=0)
    return Guess(float(mean[0]), float(half[0]), n), Guess(float(mean[1]), float(half[1]), n)


MEASURED: tuple[Finished, ...] = (
    Finished(
        "digits",
        {0.2: (-0.076, 1.609), 1.0: (0.147, 1.573), 5.0: (0.216, 1.301), 20.0: (0.468, 0.974)},
    ),
    Finished(
        "ring8",
        {
            0.05: (-1.075, 1.756),
            0.2: (-0.180, 1.126),
            1.0: (0.128, 0.976),
            5.0: (0.148, 1.111),
            20.0: (0.678, 0.131),
        },
    ),
    Finished(
        "two_moons",
        {
            0.05: (-0.361, 1.413),
            0.2: (0.220, 1.039),
            1.0: (0.297, 0.976),
            5.0: (0.451, 0.715),
            20.0: (0.122, 0.023),
        },
    ),
    Finished(
        "grid25",
        {
            0.05: (0.724, -0.348),
            0.2: (0.638, -0.358),
            1.0: (0.540, -0.761),
            5.0: (0.709, -0.398),
            20.0: (0.703, -0.359),
        },
    ),
    Finished(
        "skewed",
        {
            0.05: (0.026, 0.204),
            0.2: (0.069, 0.215),
            1.0: (0.080, 0.078),
            5.0: (0.174, -0.025),
            20.0: (0.462, -1.919),
        },
    ),
)
