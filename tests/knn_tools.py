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


def offsets_change_nothing(family, name, **close):
    """Ties stay ties where features are rounded: a lattice with another unit and an offset."""
    rng = np.random.default_rng(12)
    real, fake = rng.integers(0, 4, (70, 3)), rng.integers(1, 5, (60, 3))
    want = theta(family, name, real, fake)
    for offset in (0.0, 1e4, 1e6, 1e7):
        got = theta(family, name, 0.1 * real + offset, 0.1 * fake + offset)
        np.testing.assert_allclose(got, want, err_msg=f"{offset}", **close)


def needs_two_fakes(name):
    """One sample cannot be left out and counted."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(errors.DataError, match=f"{name}.* needs at least 1 fake .* got 0 of 1"):
        value(name, x, x[:1])
    assert np.isfinite(theta_of(name, x, x[:2])).all()


def theta_of(name, real, fake):
    """θ through the registry."""
    return registry.replicates((name,), statistics(real), statistics(fake))[name].theta


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
