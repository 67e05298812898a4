"""For tests of metrics on neighbours: small data, and replicates by doing it all again."""

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import registry, statistics
from prpr.metrics.family import Options
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.statistics import from_arrays


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


def refuses_moments(name):
    """The metric says which side holds moments alone."""
    x = np.random.default_rng(0).normal(size=(90, 2))
    moments = from_arrays({"mu": np.zeros(2), "sigma": np.eye(2)}, "a file")
    with pytest.raises(errors.DataError, match="the real statistics hold mu and sigma alone"):
        registry.measure((name,), moments, statistics(x))
    with pytest.raises(errors.DataError, match="the fake statistics hold mu and sigma alone"):
        registry.measure((name,), statistics(x), moments)


def is_one_on_large_heaps(name):
    """So many pairs that their distances come from products, which are not exactly 0."""
    points = np.random.default_rng(11).normal(size=(2, 7)) + 5
    real, fake = np.repeat(points, 150, axis=0), np.repeat(points, 140, axis=0)
    assert value(name, real, fake) == 1
