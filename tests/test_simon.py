"""Simon's curves: the least error over every threshold, and which axis is which."""

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import sajjadi, simon, statistics


def slow(real, fake, lam):
    """min over every threshold, by loops."""
    pool = np.concatenate([real, fake, [np.inf]])
    return np.array(
        [min(one * (real < t).mean() + (fake >= t).mean() for t in pool) for one in lam]
    )


def test_of_scores_is_the_least_error():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=70).round(1) + 1, rng.normal(size=50).round(1)
    lam = np.geomspace(1e-3, 1e3, 31)
    got = simon.of_scores(real, fake, lam)
    assert got.precision == pytest.approx(slow(real, fake, lam), abs=1e-12)
    assert got.recall == pytest.approx(got.precision / lam)
    assert (np.diff(got.precision) >= -1e-12).all()
    assert (np.diff(got.recall) <= 1e-12).all()
    slope = np.diff(got.precision) / np.diff(lam)
    assert (np.diff(slope) <= 1e-9).all()


def samples(weights, seed):
    """120 samples of tight clusters at 0, 30, 60, .. in exact proportion to the weights."""
    counts = np.rint(120 * np.asarray(weights)).astype(int)
    where = np.repeat(np.arange(len(counts)), counts)
    noise = 0.1 * np.random.default_rng(seed).normal(size=(len(where), 2))
    return statistics(30.0 * np.stack([where, where**2], axis=1) + noise)


@pytest.mark.parametrize("estimator", ["classifier", "knn"])
def test_precision_is_about_the_model_and_recall_about_the_data(estimator):
    data = samples([0.5, 0.5, 0], 0)
    # Half of the modes, nothing else: precision 1, recall 1/2. With axes exchanged: 1/2 and 1.
    got = simon.curve(data, samples([1, 0, 0], 1), angles=101, estimator=estimator)
    assert got.precision[-1] == pytest.approx(1, abs=0.05)
    assert got.recall[0] == pytest.approx(0.5, abs=0.05)
    # All modes and as much rubbish.
    got = simon.curve(data, samples([0.25, 0.25, 0.5], 1), angles=101, estimator=estimator)
    assert got.precision[-1] == pytest.approx(0.5, abs=0.05)
    assert got.recall[0] == pytest.approx(1, abs=0.05)
    assert len(got.lam) == 101
    assert got.lam == pytest.approx(sajjadi.slopes(101))


def test_exchanged_scores_exchange_the_axes():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=80) + 1.5, rng.normal(size=60)
    lam = sajjadi.slopes(51)
    one, two = simon.of_scores(real, fake, lam), simon.of_scores(-fake, -real, lam)
    assert one.precision == pytest.approx(two.recall[::-1], rel=1e-6)


def test_the_order_of_samples_does_not_matter():
    rng = np.random.default_rng(2)
    real, fake, lam = rng.normal(size=90), rng.normal(size=70), np.array([0.5, 1, 2])
    want = simon.of_scores(real, fake, lam).precision
    got = simon.of_scores(rng.permutation(real), rng.permutation(fake), lam).precision
    assert (got == want).all()


def test_bad_input():
    data = samples([0.5, 0.5, 0], 0)
    with pytest.raises(errors.ConfigError, match=r"angles=2 .* at least 3"):
        simon.curve(data, data, angles=2, estimator="knn")
    with pytest.raises(errors.ConfigError, match="unknown estimator 'svm'"):
        simon.curve(data, data, estimator="svm")
    with pytest.raises(errors.DataError, match="at least 40"):
        simon.curve(data, statistics(np.zeros((5, 2))))
