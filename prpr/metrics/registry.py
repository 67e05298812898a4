"""All metrics by name: measure one model, or compare two on the same reference."""

import importlib
from collections.abc import Iterable
from typing import NamedTuple

from prpr import errors
from prpr.metrics import checks, intervals, neighbours
from prpr.metrics.family import Family, Options
from prpr.metrics.intervals import Comparison, Estimate, Replicates
from prpr.metrics.statistics import Statistics

# Modules with a FAMILY, in the order of tables; a metric is added by its module's name here.
MODULES = (
    "prdc",
    "frechet",
    "kernel",
    "inception_score",
    "vendi",
    "probabilistic",
    "clipped",
    "topological",
    "symmetric",
    "authenticity",
    "curves",
    "sajjadi",
)


class Measured(NamedTuple):
    """{name: Estimate} in the order that was asked for, and what to know before trusting it."""

    metrics: dict[str, Estimate]
    warnings: tuple[str, ...]


class Compared(NamedTuple):
    """{name: Comparison} of two models, first minus second, and the warnings of both."""

    metrics: dict[str, Comparison]
    warnings: tuple[str, ...]


def families() -> tuple[Family, ...]:
    """Every family, in the order of tables."""
    return tuple(importlib.import_module(f"prpr.metrics.{name}").FAMILY for name in MODULES)


def known() -> tuple[str, ...]:
    """Every name, as a user writes it; "alpha_<λ>" stands for every λ."""
    return tuple(name for one in families() for name in one.names)


def family_of(name: str) -> Family:
    """The family that computes a metric; ConfigError for a name that none has."""
    for one in families():
        if one.owns(name):
            return one
    raise errors.unknown_name("metric", name, known())


def replicates(
    names: Iterable[str], real: Statistics, fake: Statistics, options: Options | None = None
) -> dict[str, Replicates]:
    """{name: Replicates} in the order of `names`; each family is computed once.

    Raises:
      ConfigError: an unknown name, or settings that cannot be used.
      DataError: statistics of two encoders or widths, too few samples, or without what a
        metric needs.
    """
    names, options = tuple(dict.fromkeys(names)), options or Options()
    intervals.check_level(options.level)
    neighbours.check_backend(options.backend)  # also where the answer is known already
    owners = {name: family_of(name) for name in names}
    check_pair(real, fake)
    asked = [
        (one, own)
        for one in families()
        if (own := tuple(name for name in names if owners[name].title == one.title))
    ]
    for one, own in asked:
        if one.expects is not None:
            k = one.expects(real, fake, own)
            for stats in (real, fake) if k > 0 else ():
                neighbours.expect(stats, k)
    found: dict[str, Replicates] = {}
    for one, own in asked:
        found |= one.replicates(real, fake, own, options)
    return {name: found[name] for name in names}


def measure(
    names: Iterable[str], real: Statistics, fake: Statistics, options: Options | None = None
) -> Measured:
    """The metrics of a model's samples against real ones, with intervals.

        measure(("precision", "alpha_5", "fid"), statistics(real), statistics(fake))

    Args:
      names: see `known`.
      real: statistics of real samples (P), always first.
      fake: statistics of generated samples (Q), from the same encoder.
      options: neighbours, level, seed.

    Raises: as `replicates`.
    """
    options = options or Options()
    found = replicates(names, real, fake, options)
    return Measured(
        {name: intervals.estimate(one, options.level) for name, one in found.items()},
        _notes(found),
    )


def compare(
    names: Iterable[str],
    real: Statistics,
    first: Statistics,
    second: Statistics,
    options: Options | None = None,
) -> Compared:
    """Two models on the SAME real samples: the difference first − second, as a paired test.

    What the real sample does to both is taken out of the difference's variance: both lose the
    same groups of real samples in turn. The models' own samples are independent.

    Raises: as `replicates`.
    """
    options = options or Options()
    names = tuple(names)
    a, b = (replicates(names, real, fake, options) for fake in (first, second))
    return Compared(
        {name: intervals.compare(a[name], b[name], options.level) for name in a},
        tuple(dict.fromkeys(_notes(a) + _notes(b))),
    )


def check_pair(real: Statistics, fake: Statistics) -> None:
    """DataError unless both come from one encoder, as far as their names and widths tell."""
    checks.check_widths(real.width, fake.width)
    if real.encoder != fake.encoder:
        raise errors.DataError(
            f"real features come from {real.encoder!r} and fake ones from {fake.encoder!r}: "
            "numbers under two encoders cannot be compared; encode both with one"
        )


def _notes(found: dict[str, Replicates]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for one in found.values() for note in one.notes))
