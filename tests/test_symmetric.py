"""Symmetric precision and recall against brute force, and where the one-sided ones part."""

import knn_tools as tools
import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import symmetric
from prpr.metrics.family import Options

K = 3


def complement(real, fake):
    """The share of fakes whose own ball holds a real sample."""
    return oracles.prdc(fake, real, K, K)["coverage"]


def both(real, fake, name):
    seen = oracles.prdc(real, fake, K, K)
    other = complement(real, fake) if name == "precision" else seen["coverage"]
    return min(seen[name], other)


ORACLES = {
    "precision_symmetric": lambda x, y: both(x, y, "precision"),
    "recall_symmetric": lambda x, y: both(x, y, "recall"),
    "precision_complement": complement,
}


@pytest.mark.parametrize("data", tools.DATA)
@pytest.mark.parametrize("name", symmetric.NAMES)
def test_equals_brute_force_without_every_group(data, name):
    real, fake = tools.DATA[data](np.random.default_rng(1))
    theta = tools.theta(symmetric.FAMILY, name, real, fake, k_dc=K)
    np.testing.assert_allclose(theta, tools.again(ORACLES[name], real, fake), rtol=1e-12)


def _shell(rng, n, radius, width=128):
    x = rng.normal(size=(n, width))
    return radius * x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("radius", [0.8, 1.25])
def test_spheres_of_other_radii_in_high_dimension(radius):
    """The paper's case: precision and recall are 1 and 0 by which sphere is the larger."""
    rng = np.random.default_rng(2)
    real, fake = _shell(rng, 300, 1.0), _shell(rng, 300, radius)
    one_sided = [tools.value(name, real, fake, k=5) for name in ("precision", "recall")]
    assert max(one_sided) > 0.9
    assert min(one_sided) < 0.1
    for name in ("precision_symmetric", "recall_symmetric"):
        assert tools.value(name, real, fake) < 0.1


def test_swapping_the_sets_swaps_the_names():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(70, 3)), 0.6 * rng.normal(size=(60, 3))
    assert tools.value("precision_symmetric", x, y) == tools.value("recall_symmetric", y, x)
    assert tools.value("precision_complement", x, y) == tools.value("coverage", y, x)


@pytest.mark.parametrize("name", symmetric.NAMES)
def test_identical_constant_and_far_sets(name):
    real = np.random.default_rng(4).normal(size=(80, 4))
    assert tools.value(name, real, real) == 1
    assert tools.value(name, real + 1e4, real + 1e4) == 1
    assert tools.value(name, real, real + 1e4) == 0
    assert tools.value(name, np.ones((50, 3)), np.ones((40, 3))) == 1
    assert tools.value(name, np.ones((50, 3)), np.zeros((40, 3))) == 0


def test_direction():
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    for name in symmetric.NAMES:
        values = [tools.value(name, real, fake + shift) for shift in (0, 1, 2, 4)]
        assert np.all(np.diff(values) < 0)
    left = real[:, 0] > 0
    real = real + np.where(left, 8, -8)[:, None]
    recall = tools.value("recall_symmetric", real, fake[left] + 8)
    assert recall == pytest.approx(0.45, abs=0.1)
    assert tools.value("precision_symmetric", real, fake[left] + 8) > 0.6


@pytest.mark.parametrize("name", symmetric.NAMES)
def test_ties_survive_offsets(name):
    tools.offsets_change_nothing(symmetric.FAMILY, name, rtol=1e-12)


@pytest.mark.parametrize("name", symmetric.NAMES)
def test_large_heaps_of_equal_samples(name):
    tools.is_one_on_large_heaps(name)


def test_too_few_samples_are_named():
    x = np.random.default_rng(6).normal(size=(40, 2))
    with pytest.raises(
        errors.DataError, match=r"recall_symmetric with k_dc=5 .* 6 fake .* got 5 of 6"
    ):
        tools.theta(symmetric.FAMILY, "recall_symmetric", x, x[:6], Options(groups=6))
    # Balls of fakes alone: two reals are enough to be counted.
    assert 0 <= tools.value("precision_complement", x[:2], x) <= 1
    with pytest.raises(errors.DataError, match=r"precision_complement .* 1 real .* got 0 of 1"):
        tools.value("precision_complement", x[:1], x)


def test_moments_alone_are_not_enough():
    tools.refuses_moments("recall_symmetric")
