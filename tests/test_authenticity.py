"""Authenticity against the paper's definition and a peer's formula; the most memorised."""

import knn_tools as tools
import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import authenticity, statistics
from prpr.metrics.family import Options


def oracle(real, fake):
    own = oracles.radii_squared(real, 1)
    across = oracles.squared(fake, real)
    count = 0
    for row in across:
        nearest = int(np.argmin(row))
        count += row[nearest] > own[nearest]
    return count / len(fake)


def _copies(rng):
    """Duplicates on both sides, and copies, but no two training samples at one distance."""
    x = rng.normal(size=(20, 2))
    return x[rng.integers(0, 20, 36)], np.vstack([x[:9], x[4:9], rng.normal(size=(20, 2))])


DATA = {"gaussians": tools.gaussians, "one_dimension": tools.one_dimension, "copies": _copies}


@pytest.mark.parametrize("data", DATA)
def test_equals_the_definition_without_every_group(data):
    real, fake = DATA[data](np.random.default_rng(1))
    theta = tools.theta(authenticity.FAMILY, "authenticity", real, fake)
    np.testing.assert_allclose(theta, tools.again(oracle, real, fake), rtol=1e-12)
    alone = authenticity.authentic(statistics(real), statistics(fake)).mean()
    assert alone == theta[0, 0]


def tied_oracle(real, fake):
    """Of equally near training samples the one with the largest spacing decides; whole numbers."""
    own, across = oracles.radii_squared(real, 1), oracles.squared(fake, real)
    return np.mean([row.min() > own[row == row.min()].max() for row in across])


@pytest.mark.parametrize("data", ["lattice", "heaps", "repeats"])
def test_ties_are_decided_by_the_largest_spacing(data):
    # Heaps: far more are equally near than neighbours are looked at.
    real, fake = tools.DATA[data](np.random.default_rng(1))
    if data == "heaps":
        real, fake = np.concatenate([real, [[8]]]), np.concatenate([fake, [[5]]])
    theta = tools.theta(authenticity.FAMILY, "authenticity", real, fake)
    np.testing.assert_allclose(theta, tools.again(tied_oracle, real, fake), rtol=1e-12)
    alone = authenticity.authentic(statistics(real), statistics(fake)).mean()
    assert alone == theta[0, 0]


def test_more_ties_than_neighbours_are_known():
    # 25 training samples are equally near but for rounding, on an arc; one more lies opposite,
    # far from all others, and beside that one the fake is a copy.
    angle = np.linspace(-0.3, 0.3, 25)
    arc = np.column_stack([np.cos(angle), np.sin(angle)])
    lone = np.array([[-1 - 4e-16, 0.0]])
    fake = statistics(np.zeros((1, 2)))
    assert authenticity.authentic(statistics(arc), fake).tolist() == [True]
    both = statistics(np.concatenate([arc, lone]))
    assert authenticity.authentic(both, fake).tolist() == [False]
    assert authenticity.memorised(both, fake).ratio[0] < 1


def test_ties_survive_offsets():
    tools.offsets_change_nothing(authenticity.FAMILY, "authenticity", rtol=1e-12)


def test_by_hand():
    real = np.array([[0.0], [1.0], [10.0], [12.0]])  # spacings 1, 1, 2, 2
    fake = np.array([[-0.5], [-1.0], [-1.5], [14.5], [8.5], [11.0]])
    want = [False, False, True, True, False, False]  # at the spacing itself: memorised
    got = authenticity.authentic(statistics(real), statistics(fake))
    assert got.tolist() == want


def test_equals_the_peers_formula():
    # dgm-eval's authpct: own[argmin d] < min d, over generated samples.
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(300, 6)), rng.normal(size=(200, 6))
    own, d = oracles.squared(real, real), oracles.squared(real, fake)
    np.fill_diagonal(own, np.inf)
    want = np.mean(own.min(axis=0)[d.argmin(axis=0)] < d.min(axis=0))
    assert tools.value("authenticity", real, fake) == want


def test_copies_are_not_authentic():
    rng = np.random.default_rng(3)
    real, fresh = rng.normal(size=(400, 8)), rng.normal(size=(400, 8))
    assert tools.value("authenticity", real, real) == 0
    assert tools.value("authenticity", real.astype(np.float16), real.astype(np.float16)) == 0
    clean = tools.value("authenticity", real, fresh)
    shares = []
    for copied in (0.0, 0.25, 0.5, 1.0):
        fake = np.where((np.arange(400) < copied * 400)[:, None], real + 1e-3, fresh)
        shares.append(tools.value("authenticity", real, fake))
        assert shares[-1] == pytest.approx((1 - copied) * clean, abs=0.05)
    assert np.all(np.diff(shares) < 0)
    assert tools.value("authenticity", real, fresh + 100) == 1
    assert tools.value("authenticity", np.ones((30, 2)), np.ones((20, 2))) == 0


def test_fresh_samples_on_a_line_are_authentic_in_one_of_three():
    # On a line two thirds of all samples are their nearest neighbour's nearest neighbour.
    x = np.random.default_rng(4).uniform(size=(2500, 1))
    assert tools.value("authenticity", x[:1500], x[1500:]) == pytest.approx(1 / 3, abs=0.05)


def test_the_most_memorised():
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(60, 3)), rng.normal(size=(50, 3)) + 3
    fake[17], fake[4] = real[33], real[8] + 1e-3
    found = authenticity.memorised(statistics(real), statistics(fake), count=7, k=3)
    assert found.samples[:2].tolist() == [17, 4]
    assert found.nearest[:2, 0].tolist() == [33, 8]
    assert found.nearest.shape == found.distances.shape == (7, 3)
    assert np.all(np.diff(found.ratio) >= 0)
    d = np.sqrt(oracles.squared(fake, real))
    order = np.argsort(d, axis=1)[:, :3]
    np.testing.assert_array_equal(found.nearest, order[found.samples])
    want = np.take_along_axis(d, order, axis=1)[found.samples]
    np.testing.assert_allclose(found.distances, want, atol=1e-7)
    spacing = np.sqrt(oracles.radii_squared(real, 1))[found.nearest[:, 0]]
    np.testing.assert_allclose(found.spacing, spacing, rtol=1e-9)
    np.testing.assert_allclose(found.ratio[1:], (found.distances[:, 0] / spacing)[1:], rtol=1e-9)
    assert not set(found.samples[2:]) & {17, 4}


def test_duplicated_training_samples():
    real = np.array([[0.0], [0.0], [5.0], [9.0]])
    fake = np.array([[0.3], [0.0], [5.1]])
    found = authenticity.memorised(statistics(real), statistics(fake), count=99, k=99)
    assert found.samples.tolist() == [1, 2, 0]
    assert found.ratio.tolist() == [0, pytest.approx(0.1 / 4), np.inf]
    assert found.nearest.shape == (3, 4)
    got = authenticity.authentic(statistics(real), statistics(fake))
    assert got.tolist() == [True, False, False]


def test_bad_arguments():
    one, two = statistics(np.ones((1, 2))), statistics(np.ones((2, 2)))
    with pytest.raises(errors.DataError):
        authenticity.authentic(one, two)
    with pytest.raises(errors.ConfigError, match="count=0"):
        authenticity.memorised(two, two, count=0)
    with pytest.raises(errors.DataError, match="authenticity with k=1"):
        tools.theta(authenticity.FAMILY, "authenticity", np.ones((2, 2)), np.ones((2, 2)))
    tools.needs_two_fakes("authenticity")
    assert tools.theta(
        authenticity.FAMILY, "authenticity", np.eye(3), np.ones((2, 3)), Options()
    ).shape == (4, 3)


def test_moments_alone_are_not_enough():
    tools.refuses_moments("authenticity")
