"""For tests of metrics on neighbours: small data, and replicates by doing it all again."""

import numpy as np

from prpr.metrics import registry, statistics
from prpr.metrics.family import Options
from prpr.metrics.groups import FAKE, REAL, split


def gaussians(rng):
    return rng.normal(size=(40, 3)), 0.8 * rng.normal(size=(33, 3)) + 0.3


def lattice(rng):
    """Integers in a small range: most distances tie, many samples are duplicates."""
    return rng.integers(0, 3, (38, 3)), rng.integers(1, 4, (41, 3))


def repeats(rng):
    x = rng.integers(-9, 9, (9, 2))
    return x[rng.integers(0, 9, 36)], x[rng.integers(3, 9, 40)]


def heaps(rng):
    """More duplicates of each sample than neighbours are looked at."""
    return rng.integers(0, 3, (60, 1)), rng.integers(1, 4, (31, 1))


def one_dimension(rng):
    return rng.normal(size=(45, 1)), rng.normal(size=(30, 1)) - 0.5


DATA = {f.__name__: f for f in (gaussians, lattice, repeats, heaps, one_dimension)}


def theta(family, name, real, fake, options=None, **settings):
    """θ of one metric, by its family."""
    options = options or Options(groups=4, **settings)
    found = family.replicates(statistics(real), statistics(fake), (name,), options)
    assert list(found) == [name]
    return found[name].theta


def value(name, real, fake, **settings):
    """The value alone, through the registry."""
    options = Options(**settings)
    return (
        registry.measure((name,), statistics(real), statistics(fake), options).metrics[name].value
    )


def again(metric, real, fake, groups=4, seed=0):
    """θ (1 + G, 1 + H) of metric(real, fake), computed anew for every pair of left-out groups."""
    sides = []
    for x, side in ((real, REAL), (fake, FAKE)):
        label = split(len(x), groups, seed, side).labels()
        sides.append([x] + [x[label != g] for g in range(groups)])
    return np.array([[metric(x, y) for y in sides[1]] for x in sides[0]])
