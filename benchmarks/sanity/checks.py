"""The synthetic checks of a metric of fidelity or diversity: pairs of samples, and what must hold.

Notation: real (N, D) and fake (M, D) samples; a check has cases (such as D = 1, 8, 64), a case
a sweep, and a metric one value at each point of it: the mean over repeats.

The list of checks, their sizes and the rules are those of Räisä, van Breugel and van der Schaar,
"Position: All Current Generative Fidelity and Diversity Metrics are Flawed" (ICML 2025, arXiv
2505.22450), read from its repository DPBayes/position-fidelity-diversity-metrics-flawed:
what is drawn from sanity_checks/, the rules from check_pass_fails.py, the thresholds from
sanity_check_criteria.py. Each rule belongs to one of the paper's desiderata:

  D1b purpose          the value moves as fidelity or diversity does
  D2  hyperparameters  more fakes do not move it once there are enough
  D3  data             more samples do not move it once there are enough
  D4  bounds           1 for equal distributions, 0 for disjoint ones, to 0.05
  D5  invariance       units of a column do not move it

A diversity metric may call a fake distribution that is too wide all-covering ("high") or too
thin where the real samples are ("low"); both pass, in all cases of a check the same one.

What differs from that repository:
- Seeds come from CRC-32 of names. There they came from Python's hash() of strings, which is salted
  anew in every process, so that no run could be repeated; its README says that 6 checks change
  their verdict with the seeds mended (branch fixed-rng-seeding).
- All metrics see the same draws; there each metric had its own.
- Ten well separated modes of `mode-invention` stand where we put them, not where theirs do.
- Sweeps have fewer points, unless `PAPER` is asked for.
- Metrics of other kinds than the paper's have rules of ours: see `sanity.rules`.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from sanity import draws
from sanity.draws import LATE, OVERLAP, Case, Plan
from sanity.rules import (
    LEFT,
    RIGHT,
    Judge,
    Rule,
    Verdict,
    View,
    bell,
    by_case,
    by_kind,
    falls,
    falls_by,
    flat,
    low_or_high,
    near,
    rises,
    settles,
    wide,
)

DESIDERATA = {
    "D1b": "purpose",
    "D2": "hyperparameters",
    "D3": "data",
    "D4": "bounds",
    "D5": "invariance",
}


class Check(NamedTuple):
    name: str
    title: str
    cases: Callable[[Plan], tuple[Case, ...]]
    rules: tuple[Rule, ...]

    def verdicts(self, view: View) -> list[Verdict]:
        """One a rule; a metric without a finite value at every point fails all that apply."""
        finite = bool(np.isfinite(view.values).all())
        if finite:
            return [rule.judge(view) for rule in self.rules]
        blank = view._replace(values=np.full(len(view.sweep), 0.5))
        return [None if rule.judge(blank) is None else False for rule in self.rules]

    def desiderata(self) -> tuple[str, ...]:
        return tuple(sorted({rule.desideratum for rule in self.rules}))


def pairs(
    check: Check, case: Case, seed: int, repeat: int
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(point of the sweep, real (N, D), fake (M, D)); the same array `real` unless case.fresh."""
    key = zlib.crc32(f"{check.name}/{case.name}".encode())
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, key, repeat])))
    real = None
    for at in case.sweep:
        if real is None or case.fresh:
            real = case.real(rng, float(at))
        yield float(at), real, case.fake(rng, float(at))


def _shift_rules() -> tuple[Rule, ...]:
    return (
        Rule("D4", "1 where the means agree", near(0, 1)),
        Rule("D4", "0 at the leftmost mean", near(LEFT, 0)),
        Rule("D4", "0 at the rightmost mean", near(RIGHT, 0)),
        Rule("D1b", "a bell around equal means", bell(0)),
    )


def _drop_rules(middle: float) -> tuple[Rule, ...]:
    late = falls_by(middle)
    return (
        Rule("D4", "1 with all modes", near(LEFT, 1)),
        Rule("D4", "fidelity: 1 with one mode", by_kind(fidelity=near(RIGHT, 1))),
        Rule(
            "D1b",
            "fidelity: flat; diversity: falls, by 0.1 before the end",
            by_kind(fidelity=flat, diversity=late, overall=late),
        ),
    )


def _always_zero(desideratum: str) -> tuple[Rule, ...]:
    return (
        Rule(desideratum, "a flat line", flat),
        Rule("D4", "0 at the left end", near(LEFT, 0)),
        Rule("D4", "0 at the right end", near(RIGHT, 0)),
    )


def _discrete_end(at: float) -> Judge:
    return by_case(
        discrete=by_kind(fidelity=near(at, 0), diversity=wide(at), overall=near(at, 0)),
        continuous=by_kind(fidelity=near(at, 1), diversity=near(at, 0), overall=near(at, 0)),
    )


CHECKS = (
    Check("mean", "Gaussian, mean shifted", draws.mean, _shift_rules()),
    Check("mean-outlier", "the same, with one outlier", draws.outlier, _shift_rules()),
    Check(
        "std",
        "Gaussian, other deviation",
        draws.std,
        (
            Rule("D4", "1 where deviations agree", near(1, 1)),
            Rule(
                "D4",
                "fidelity 1 and diversity 0 for narrow fakes",
                by_kind(fidelity=near(LEFT, 1), diversity=near(LEFT, 0), overall=near(LEFT, 0)),
            ),
            Rule(
                "D4",
                "fidelity 0 and diversity 0 or 1 for wide fakes",
                by_kind(fidelity=near(RIGHT, 0), diversity=wide(RIGHT), overall=near(RIGHT, 0)),
            ),
            Rule(
                "D1b",
                "fidelity falls with the deviation; diversity is a bell (low) or rises (high)",
                by_kind(fidelity=falls, diversity=low_or_high(bell(1), rises), overall=bell(1)),
            ),
        ),
    ),
    Check("drop-simultaneous", "modes dropped together", draws.simultaneous, _drop_rules(LATE)),
    Check("drop-sequential", "modes dropped in turn", draws.sequential, _drop_rules(4)),
    Check(
        "mode-invention",
        "modes dropped, then invented",
        draws.invention,
        (
            Rule("D4", "1 with the real modes", near(5, 1)),
            Rule("D4", "fidelity: 1 with one real mode", by_kind(fidelity=near(LEFT, 1))),
            Rule("D4", "diversity: 1 with ten modes", by_kind(diversity=near(RIGHT, 1))),
            Rule(
                "D1b",
                "fidelity falls, diversity rises with the number of modes",
                by_kind(fidelity=falls, diversity=rises, overall=bell(5)),
            ),
        ),
    ),
    Check(
        "sphere",
        "sphere, other radius",
        draws.sphere,
        (
            Rule("D4", "1 at equal radii", near(1, 1)),
            Rule("D4", "0 at the smallest radius", near(LEFT, 0)),
            Rule("D4", "0 at the largest radius", near(RIGHT, 0)),
            Rule("D1b", "a bell around equal radii", bell(1)),
        ),
    ),
    Check(
        "cube-size",
        "overlapping cubes, N = M grow",
        draws.cube_size,
        (
            Rule("D3", "settles by the middle of the sweep", settles),
            Rule("D1b", "the overlap, 0.2, at the largest N", near(RIGHT, OVERLAP)),
        ),
    ),
    Check(
        "cube-fakes",
        "overlapping cubes, M grows",
        draws.cube_fakes,
        (
            Rule("D2", "settles by the middle of the sweep", settles),
            Rule("D1b", "the overlap, 0.2, at the largest M", near(RIGHT, OVERLAP)),
        ),
    ),
    Check(
        "sphere-torus",
        "sphere in the hole of a torus",
        draws.torus,
        (
            Rule("D1b", "settles by the middle of the sweep", settles),
            Rule("D4", "0 at the largest M", near(RIGHT, 0)),
        ),
    ),
    Check(
        "mode-collapse",
        "two modes against one",
        draws.collapse,
        (
            Rule(
                "D1b",
                "fidelity falls with the modes' distance; diversity too (low) or is flat (high)",
                by_kind(fidelity=falls, diversity=low_or_high(falls, flat), overall=falls),
            ),
            Rule("D4", "1 where the modes are one", near(LEFT, 1)),
        ),
    ),
    Check("scaling", "units of one column", draws.scaling, _always_zero("D5")),
    Check("mean-pareto", "mean shifted, beside a heavy tail", draws.pareto, _shift_rules()),
    Check(
        "disjoint-column", "one disjoint column, many alike", draws.disjoint, _always_zero("D1b")
    ),
    Check(
        "discrete",
        "whole numbers against real ones",
        draws.discrete,
        (
            Rule("D1b", "a flat line", flat),
            Rule("D4", "as the supports say, for few numbers", _discrete_end(LEFT)),
            Rule("D4", "as the supports say, for many numbers", _discrete_end(RIGHT)),
        ),
    ),
)


def get(name: str) -> Check:
    """The check of that name."""
    return {check.name: check for check in CHECKS}[name]
