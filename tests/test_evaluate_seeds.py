"""The interval over seeds, on means whose variance is known."""

import numpy as np
import pytest

from prpr.evaluate import seeds
from prpr.metrics import Replicates, intervals
from prpr.metrics.intervals import jackknife_parts

G = 20


def additive(rng, kind="proportion", draws=400.0):
    """θ of real and fake groups that do nothing together."""
    real, fake = (0.01 * rng.normal(size=G) for _ in "ab")
    theta = np.full((1 + G, 1 + G), 0.5)
    theta[1:] += (real - real.mean())[:, None]
    theta[:, 1:] += fake - fake.mean()
    return Replicates(theta, draws, kind, 3)


def test_the_same_samples_under_several_seeds_are_no_surer_than_once():
    one = additive(np.random.default_rng(1))
    found = seeds.pooled([one] * 4)
    assert jackknife_parts(found.theta)[1] == pytest.approx(jackknife_parts(one.theta)[1])
    assert found.draws == pytest.approx(one.draws)
    assert intervals.estimate(found) == pytest.approx(intervals.estimate(one), rel=1e-9)
    # Also where no replicate differs, and draws alone make the interval.
    sure = one._replace(theta=np.ones((1 + G, 1 + G)))
    assert intervals.estimate(seeds.pooled([sure] * 4)) == intervals.estimate(sure)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_the_variance_is_that_of_the_mean_whether_seeds_share_samples_or_not(share):
    """Values are a seed's own effect and a mean of 60 samples, of which seeds share a part."""
    rng, n, count, train, size = np.random.default_rng(2), 60, 3, 0.05, 2000
    x = np.sqrt(share) * rng.normal(size=(size, 1, n))
    x = x + np.sqrt(1 - share) * rng.normal(size=(size, count, n))
    x += train * rng.normal(size=(size, count, 1))
    groups = x.reshape(size, count, G, -1).mean(axis=3)
    left = (x.mean(axis=2, keepdims=True) * G - groups) / (G - 1)
    theta = np.concatenate([x.mean(axis=2, keepdims=True), left], axis=2)
    found = []
    for each in theta:
        whole = [np.tile(one, (1 + G, 1)) for one in each]
        pooled = seeds.pooled([Replicates(one, np.inf, "real") for one in whole])
        found.append(jackknife_parts(pooled.theta)[1])
    truth = train**2 / count + (share + (1 - share) / count) / n
    assert np.var(x.mean(axis=(1, 2))) == pytest.approx(truth, rel=0.1)
    # c is at least 0, which makes it too large where it is 0.
    assert truth * 0.95 < np.mean(found) < truth * (1.25 if share == 0 else 1.05)


def test_degrees_of_freedom_are_those_of_what_varies():
    rng = np.random.default_rng(3)
    one = additive(rng)
    assert seeds.pooled([one] * 2).theta.shape == (1 + G, 1 + G)
    far = [one._replace(theta=one.theta + shift) for shift in (-0.3, 0.3)]
    assert seeds.pooled(far).theta.shape == (1 + G, 3)
    v = jackknife_parts(seeds.pooled(far).theta)[1]
    assert v == pytest.approx(0.3**2 + jackknife_parts(one.theta)[1])


def test_what_seeds_and_real_samples_do_together_is_kept():
    rng = np.random.default_rng(4)
    each = [0.5 + 0.01 * rng.normal(size=(1 + G, 1)) for _ in range(3)]
    same = 0.002 * rng.normal(size=1 + G)
    same[0] = 0
    plain, shared = (
        seeds.pooled([Replicates(one + add, 400.0) for one in each])
        for add in (np.zeros(1 + G), same)
    )
    assert shared.theta.shape[1] > plain.theta.shape[1] == 4
    parts = [jackknife_parts(one.theta) for one in (plain, shared)]
    assert parts[0][::2] == pytest.approx(parts[1][::2])
    assert parts[1][1] == pytest.approx(parts[0][1] + jackknife_parts(np.tile(same, (3, 1)))[1])


def test_seeds_at_the_cap_still_differ():
    """At λ = 1 all are capped, and differ by what the replicates hold above it."""
    values, each = (1.0, 1.1, 1.3), []
    for value in values:
        theta = np.full((1 + G, 1 + G), value)
        theta[0, 0] = 1
        each.append(Replicates(theta, 400.0, "capped"))
    found = seeds.pooled(each)
    assert found.theta[0, 0] == 1
    assert jackknife_parts(found.theta)[1] == pytest.approx(np.var(values, ddof=1) / 3)
    assert seeds.spread(each) == 0  # of the values as they are reported
