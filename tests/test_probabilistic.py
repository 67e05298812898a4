"""P-precision and P-recall against the paper's formula, recomputed for every left-out group."""

import knn_tools as tools
import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import probabilistic, statistics
from prpr.metrics.family import Options


def oracle(real, fake):
    """mean_j 1 − Π_i (1 − PSR), PSR = max(0, 1 − d/R), R = 1.2 · mean 4-NN distance."""
    radius = 1.2 * np.sqrt(oracles.radii_squared(real, 4)).mean()
    total = 0.0
    for y in fake:
        miss = 1.0
        for x in real:
            d = np.sqrt(float(((x.astype(float) - y) ** 2).sum()))
            psr = max(0.0, 1 - d / radius) if radius > 0 else float(d == 0)
            miss *= 1 - psr
        total += 1 - miss
    return total / len(fake)


@pytest.mark.parametrize("data", tools.DATA)
def test_equals_the_formula_without_every_group(data):
    real, fake = tools.DATA[data](np.random.default_rng(1))
    theta = tools.theta(probabilistic.FAMILY, "p_precision", real, fake)
    np.testing.assert_allclose(theta, tools.again(oracle, real, fake), rtol=1e-9, atol=1e-9)
    theta = tools.theta(probabilistic.FAMILY, "p_recall", real, fake)
    want = tools.again(lambda x, y: oracle(y, x), real, fake)
    np.testing.assert_allclose(theta, want, rtol=1e-9, atol=1e-9)


def test_by_hand():
    real = np.arange(10.0)[:, None]
    # 4-NN distances 4, 3, 2 (six times), 3, 4: their mean is 2.6.
    radius = 1.2 * 2.6
    fake = np.array([[10.0], [12.0], [0.0], [1000.0]])
    want = [1 - 1 * 2 * 3 / radius**3, 1 - 3 / radius, 1, 0]
    got = tools.theta(probabilistic.FAMILY, "p_precision", real, fake, Options(groups=20))
    assert got[0, 0] == pytest.approx(np.mean(want))
    assert got[0, 1:].max() > got[0, 0] > got[0, 1:].min()


def test_equals_the_authors_matrix_formula():
    # metric/pp_pr.py works on whole distance matrices; the same sums here, from the definition.
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(200, 5)), rng.normal(size=(150, 5)) + 0.5
    d = np.sqrt(oracles.squared(real, fake))
    for name, a, distances in (("p_precision", real, d), ("p_recall", fake, d.T)):
        own = np.sort(np.sqrt(oracles.squared(a, a)), axis=1)[:, 4].mean()
        psr = np.where(distances >= 1.2 * own, 0, 1 - distances / (1.2 * own))
        want = np.mean(1 - np.prod(1 - psr, axis=0))
        assert tools.value(name, real, fake) == pytest.approx(want, rel=1e-12)


def test_does_not_follow_the_options_k():
    x = np.random.default_rng(3).normal(size=(60, 3))
    assert tools.value("p_recall", x, x[::-1] + 1, k=9, k_dc=11) == tools.value(
        "p_recall", x, x[::-1] + 1
    )
    found = probabilistic.FAMILY.replicates(
        statistics(x), statistics(x), ("p_recall",), Options(k=9)
    )
    assert found["p_recall"].k == 4


@pytest.mark.parametrize("name", probabilistic.NAMES)
def test_identical_swapped_and_far_sets(name):
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(80, 4)), 0.7 * rng.normal(size=(70, 4))
    assert tools.value(name, real, real) == pytest.approx(1, abs=1e-7)
    assert tools.value(name, real, real + 1e4) == 0
    other = "p_recall" if name == "p_precision" else "p_precision"
    assert tools.value(name, real, fake) == tools.value(other, fake, real)
    assert tools.value(name, np.ones((50, 3)), np.ones((40, 3))) == 1
    assert tools.value(name, np.ones((50, 3)), np.zeros((40, 3))) == 0
    offset = tools.value(name, real + 1e4, fake + 1e4)
    assert offset == pytest.approx(tools.value(name, real, fake), abs=1e-6)


@pytest.mark.parametrize("name", probabilistic.NAMES)
def test_ties_survive_offsets(name):
    tools.offsets_change_nothing(probabilistic.FAMILY, name, atol=1e-7)


def test_direction():
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    precision = [tools.value("p_precision", real, fake + shift) for shift in (0, 0.5, 1, 2)]
    assert np.all(np.diff(precision) < -0.1)
    recall = [tools.value("p_recall", real, scale * fake) for scale in (1, 0.7, 0.4, 0.1)]
    assert np.all(np.diff(recall) < -0.02)
    assert tools.value("p_precision", real, 0.4 * fake) > 0.99
    modes = np.sign(real[:, :1]) * 8 + real
    assert tools.value("p_recall", modes, modes[real[:, 0] > 0]) == pytest.approx(
        np.mean(real[:, 0] > 0), abs=0.01
    )


def test_an_outlier_does_not_matter():
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(400, 4)), rng.normal(size=(400, 4)) + 6
    real[0] = 6  # one ball of precision would hold every fake
    assert tools.value("precision", real, fake) > 0.9
    assert tools.value("p_precision", real, fake) < 0.7


def test_scores_between_0_and_1_count_as_more_draws():
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(100, 3)), rng.normal(size=(90, 3)) + 0.8
    found = probabilistic.FAMILY.replicates(
        statistics(real), statistics(fake), probabilistic.NAMES, Options()
    )
    assert found["p_precision"].draws > 90
    assert found["p_recall"].draws > 100


def test_too_few_samples_are_named():
    x = np.random.default_rng(8).normal(size=(8, 2))
    with pytest.raises(errors.DataError, match=r"p_recall with k=4 .* 5 fake .* got 4 of 8"):
        tools.theta(probabilistic.FAMILY, "p_recall", x, x, Options(groups=2))
    tools.needs_two_fakes("p_precision")


def test_moments_alone_are_not_enough():
    tools.refuses_moments("p_recall")
