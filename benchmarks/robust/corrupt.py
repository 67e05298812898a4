"""What is done to a data set: pure functions (part, rng) -> part.

Images keep their range and their grid of values, points their units; nothing given is changed.
The makers (`rare`, `noisy` ...) return such a function for their settings.

`noise_items` and `outliers_of` make what the corruptions put in, so that samples can be held
against fresh ones (`measure.Odd`).
"""

from collections.abc import Callable

import numpy as np

from prpr.data import Dataset

Corrupt = Callable[[Dataset, np.random.Generator], Dataset]

SQUARE = 4.0  # noise in the plane is uniform in [−4, 4]²; the ring has radius 2
FAR = 3.0  # outliers in the plane are points times this
COPIED = 5  # items that `duplicated` repeats


def noise_items(like: Dataset, n: int, rng: np.random.Generator) -> np.ndarray:
    """n uniform items of the data's shape: on the images' grid of values, or in SQUARE."""
    shape = (n, *like.shape)
    if like.levels:
        steps = rng.integers(0, like.levels, shape)
        return (steps * (2.0 / (like.levels - 1)) - 1.0).astype(np.float32)
    side = 1.0 if len(like.shape) == 3 else SQUARE
    return rng.uniform(-side, side, shape).astype(np.float32)


def outliers_of(images: np.ndarray) -> np.ndarray:
    """Inverted images, which stay in [−1, 1] and on their grid; points FAR times as far out."""
    return -images if images.ndim == 4 else FAR * images


def rare(label: int, share: float) -> Corrupt:
    """Items of a class are dropped until they are this share of what is left, or one is left."""

    def corrupt(part: Dataset, rng: np.random.Generator) -> Dataset:
        own = np.flatnonzero(part.labels == label)
        others = part.size - len(own)
        keep = min(len(own), max(1, round(share * others / (1 - share))))
        dropped = rng.permutation(own)[keep:]
        return part.take(np.setdiff1d(np.arange(part.size), dropped))

    return corrupt


def noisy(share: float) -> Corrupt:
    """This share of the items become `noise_items` with uniform labels."""

    def corrupt(part: Dataset, rng: np.random.Generator) -> Dataset:
        rows = _some(part, share, rng)
        images, labels = part.images.copy(), part.labels.copy()
        images[rows] = noise_items(part, len(rows), rng)
        labels[rows] = rng.integers(0, part.num_classes, len(rows))
        return part._replace(images=images, labels=labels)

    return corrupt


def outlying(share: float) -> Corrupt:
    """This share of the items become `outliers_of` themselves, with their labels."""

    def corrupt(part: Dataset, rng: np.random.Generator) -> Dataset:
        rows = _some(part, share, rng)
        images = part.images.copy()
        images[rows] = outliers_of(images[rows])
        return part._replace(images=images)

    return corrupt


def mislabelled(share: float) -> Corrupt:
    """This share of the items get another label, uniform among the wrong ones."""

    def corrupt(part: Dataset, rng: np.random.Generator) -> Dataset:
        rows = _some(part, share, rng)
        labels = part.labels.copy()
        labels[rows] += rng.integers(1, part.num_classes, len(rows)).astype(labels.dtype)
        return part._replace(labels=labels % part.num_classes)

    return corrupt


def few(n: int) -> Corrupt:
    """n items (all, where there are fewer), of every class as many, to within one."""

    def corrupt(part: Dataset, rng: np.random.Generator) -> Dataset:
        order = rng.permutation(part.size)
        turn = np.zeros(part.size, int)  # its place within its class
        for label in range(part.num_classes):
            own = order[part.labels[order] == label]
            turn[own] = np.arange(len(own))
        return part.take(np.sort(order[np.argsort(turn[order], kind="stable")][:n]))

    return corrupt


def duplicated(share: float) -> Corrupt:
    """This share of the items become copies, evenly, of COPIED of the others."""

    def corrupt(part: Dataset, rng: np.random.Generator) -> Dataset:
        rows = _some(part, share, rng)
        others = np.setdiff1d(np.arange(part.size), rows)
        source = np.arange(part.size)
        source[rows] = np.resize(rng.permutation(others)[:COPIED], len(rows))
        return part.take(source)

    return corrupt


def _some(part: Dataset, share: float, rng: np.random.Generator) -> np.ndarray:
    """round(share N) different rows, at least one."""
    return np.sort(rng.permutation(part.size)[: max(1, round(share * part.size))])
