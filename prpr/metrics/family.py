"""What every metric is to the rest: a family of names that are computed together.

A family turns two `Statistics` into `Replicates`: the value, and the values without each of
some groups of samples, from which `intervals` makes an interval or compares two models.
"""

from collections.abc import Callable
from typing import NamedTuple

from prpr.metrics.intervals import Replicates
from prpr.metrics.statistics import Statistics

# (what is being computed, steps done, steps in all)
Progress = Callable[[str, int, int], None]


class Options(NamedTuple):
    """The settings of a measurement; each family uses those that it names.

    Attributes:
      k: neighbours for precision and recall.
      k_dc: neighbours for density and coverage.
      level: probability that an interval covers.
      groups: G of the jackknife; random groups that are the same for all metrics and models.
      seed: of the groups, the folds, the clusterings.
      progress: called as work is done, or None.
      backend: of distances, "auto", "numpy" or "jax", see `neighbours.within`; no number changes,
        but for the last digits of p_precision and p_recall where balls are dense.
    """

    k: int = 3
    k_dc: int = 5
    level: float = 0.95
    groups: int = 20
    seed: int = 0
    progress: Progress | None = None
    backend: str = "auto"

    def tick(self, what: str, done: int, total: int) -> None:
        """Tells the progress."""
        if self.progress is not None:
            self.progress(what, done, total)


class Family(NamedTuple):
    """Metrics that share one computation.

    Attributes:
      title: of the family, in words.
      names: as a user writes them; "alpha_<λ>" stands for every λ.
      owns: whether a name such as "alpha_5" is one of the family's; ConfigError for one that
        begins as the family's do and cannot be read ("alpha_x", "beta_-1").
      replicates: (real, fake, names, options) -> {name: Replicates}; of these names alone.
      expects: (real, fake, names) -> how many neighbours of every sample it will ask for, so that
        the family that is computed first finds as many in the same pass, and pairs in the balls of
        both sets; 0 for none.
    """

    title: str
    names: tuple[str, ...]
    owns: Callable[[str], bool]
    replicates: Callable[[Statistics, Statistics, tuple[str, ...], Options], dict[str, Replicates]]
    expects: Callable[[Statistics, Statistics, tuple[str, ...]], int] | None = None
