"""Which samples train, which choose, which score: disjoint parts of a data set."""

from collections.abc import Sequence

import numpy as np

from prpr import errors
from prpr.data import randomness

SPLITS = ("train", "valid", "test")
FRACTIONS = (0.5, 0.2, 0.3)
HELD_OUT = 10_000  # at most this many samples are taken from a source's training split


def check_fractions(fractions: Sequence[float]) -> None:
    """ConfigError unless there are three fractions >= 0 that sum to 1."""
    ok = len(fractions) == len(SPLITS) and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-6
    if not ok:
        raise errors.ConfigError(
            f"fractions={tuple(fractions)!r} must be three numbers >= 0 that sum to 1, "
            f"for {', '.join(SPLITS)}"
        )


def parts_of(split: str) -> list[str]:
    """The parts of a split such as "train+valid"; ConfigError for an unknown or repeated one."""
    parts = split.split("+")
    for part in parts:
        if part not in SPLITS or parts.count(part) > 1:
            raise errors.unknown_name("split", split, (*SPLITS, "train+valid"))
    return parts


def split_indices(
    labels: np.ndarray, seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> dict[str, np.ndarray]:
    """{split: sorted indices}: disjoint, together everything, stratified by label.

    Each class is cut at the rounded cumulative fractions of its own shuffled samples, so a
    class's share of a split is right to within one sample.

    Raises:
      ConfigError: fractions that are not three numbers >= 0 with sum 1.
    """
    check_fractions(fractions)
    shuffled = randomness.permutation(len(labels), seed, randomness.SPLIT)
    # By class, and within a class in shuffled order: one sort, however many classes.
    shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    of = np.empty(len(labels), np.int64)
    _, counts = np.unique(labels, return_counts=True)
    for own in np.split(shuffled, np.cumsum(counts)[:-1]):
        cuts = np.rint(np.cumsum(fractions)[:-1] * len(own)).astype(int)
        for split, part in enumerate(np.split(own, cuts)):
            of[part] = split
    return {name: np.flatnonzero(of == split) for split, name in enumerate(SPLITS)}


def hold_out(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(train, valid): sorted indices of a training split of n samples, cut in two.

    valid takes min(HELD_OUT, n // 10) samples at random. Not stratified: the labels of a
    data set on disk are not known before it is read.
    """
    shuffled = randomness.permutation(n, seed, randomness.SPLIT)
    cut = min(HELD_OUT, n // 10)
    return np.sort(shuffled[cut:]), np.sort(shuffled[:cut])
