"""Random groups of samples, the same for every metric and every model of one seed."""

from typing import NamedTuple

import numpy as np

from prpr import errors
from prpr.metrics import checks

REAL, FAKE = 0, 1


class Groups(NamedTuple):
    """`order` (n,) is a permutation; group g is order[cut[g] : cut[g + 1]]; sizes differ by ≤ 1."""

    order: np.ndarray
    cut: list[int]

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.cut)

    def labels(self) -> np.ndarray:
        """(n,) the group of each sample, in the samples' own order."""
        out = np.empty(len(self.order), np.int64)
        out[self.order] = np.repeat(np.arange(len(self.cut) - 1), self.sizes)
        return out


def split(n: int, groups: int, seed: int, side: int) -> Groups:
    """min(groups, n) random groups of n samples; `side` is REAL or FAKE.

    Random, since samples often come sorted by class, and groups must not be strata. The real
    samples' groups depend on their number and the seed alone, so two models measured on them
    lose the same real samples in turn, which is what `intervals.compare` needs.

    Raises:
      ConfigError: fewer than two groups.
    """
    if not checks.is_whole(groups) or groups < 2:
        raise errors.ConfigError(f"groups={groups!r} of the jackknife must be a whole number >= 2")
    rng = np.random.Generator(np.random.Philox(key=[seed % 2**64, side]))
    return Groups(rng.permutation(n), cut(n, groups))


def cut(n: int, groups: int) -> list[int]:
    """Bounds of min(groups, n) groups of sizes that differ by at most 1."""
    groups = min(groups, n)
    return [n * g // groups for g in range(groups + 1)]
