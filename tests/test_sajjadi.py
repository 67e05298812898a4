"""PRD by k-means against its definition by loops, and which of the two numbers is which."""

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import Options, Statistics, intervals, sajjadi, statistics


def modes(weights, n=200, apart=20.0, seed=0):
    """n samples of clusters at apart·e_k, in exact proportion to the weights."""
    rng = np.random.default_rng(seed)
    counts = np.rint(n * np.asarray(weights)).astype(int)
    where = np.repeat(np.arange(len(counts)), counts)
    return apart * np.eye(len(counts))[where] + 0.1 * rng.normal(size=(len(where), len(counts)))


def scores(real, fake, **options):
    found = sajjadi.FAMILY.replicates(
        statistics(real), statistics(fake), sajjadi.NAMES, Options(**options)
    )
    return tuple(found[name].theta[0, 0] for name in sajjadi.NAMES)


def slow(p, q, b, angles=1001):
    """max F_b over the curve, as the paper has it: loops over angles and clusters."""
    best = 0.0
    for i in range(angles):
        lam = np.tan(1e-10 + (np.pi / 2 - 2e-10) * i / (angles - 1))
        alpha = sum(min(lam * one, other) for one, other in zip(p, q, strict=True))
        beta = alpha / lam
        if alpha > 0:
            best = max(best, (1 + b * b) * alpha * beta / (b * b * alpha + beta))
    return best


def test_histograms_give_the_papers_numbers():
    rng = np.random.default_rng(1)
    lam = sajjadi.slopes()
    assert len(lam) == 1001
    assert lam[500] == pytest.approx(1)
    for _ in range(3):
        p, q = rng.dirichlet(np.full(20, 0.3)), rng.dirichlet(np.full(20, 0.3))
        p[:4] = 0
        p /= p.sum()
        alpha = sajjadi.prd(p, q, lam)
        for b in (1 / 8, 1.0, 8.0):
            assert sajjadi.best_f(alpha, lam, b) == pytest.approx(slow(p, q, b), rel=1e-9)


def test_by_hand():
    # p = (1/2, 1/2), q = (1, 0): α = min(λ/2, 1). F_b = (1+b²)α/(1+b²λ) is largest at λ = 2,
    # where precision is 1 and recall 1/2: (1+b²)/(1+2b²). The grid's λ nearest to 2 is 2.0004.
    lam = sajjadi.slopes()
    alpha = sajjadi.prd(np.array([0.5, 0.5]), np.array([1.0, 0.0]), lam)
    for b in (1 / 8, 8.0):
        want = (1 + b * b) / (1 + 2 * b * b)
        assert sajjadi.best_f(alpha, lam, b) == pytest.approx(want, rel=2e-3)


def test_dropped_modes_lower_recall_and_outliers_lower_precision():
    real = modes([0.25, 0.25, 0.25, 0.25, 0, 0])
    precision, recall = scores(real, modes([0.5, 0.5, 0, 0, 0, 0], seed=1))
    assert recall == pytest.approx(0.5, abs=0.06)
    assert precision > 0.9
    precision, recall = scores(real, modes([0.125, 0.125, 0.125, 0.125, 0.25, 0.25], seed=1))
    assert precision == pytest.approx(0.5, abs=0.06)
    assert recall > 0.9


def test_exchanged_sets_exchange_the_numbers():
    real, fake = modes([0.4, 0.3, 0.2, 0.1]), modes([0.5, 0.5, 0, 0], seed=1)
    one, two = scores(real, fake), scores(fake, real)
    assert one == pytest.approx(two[::-1], abs=0.04)
    assert one[0] > one[1] + 0.2


def test_the_same_set_and_sets_far_apart():
    real = modes([0.5, 0.5])
    assert scores(real, real) == (1, 1)
    assert scores(real, real + 1e4) == (0, 0)
    found = sajjadi.FAMILY.replicates(statistics(real), statistics(real), sajjadi.NAMES, Options())
    got = intervals.estimate(found["precision_sajjadi"])
    assert got.low > 0.97
    assert got.high == 1


def test_replicates_leave_groups_out_of_fixed_clusters():
    real, fake = modes([0.5, 0.5, 0]), modes([0.6, 0.1, 0.3], n=120, seed=1)
    options = Options(groups=4, seed=3)
    found = sajjadi.FAMILY.replicates(
        statistics(real), statistics(fake), ("recall_sajjadi",), options
    )
    assert tuple(found) == ("recall_sajjadi",)
    theta = found["recall_sajjadi"].theta
    cut = [
        sajjadi.split(n, 4, 3, side).labels()
        for n, side in ((200, sajjadi.REAL), (120, sajjadi.FAKE))
    ]
    found_labels = sajjadi._clusterings(statistics(real), statistics(fake), options)
    labels = list(zip(*found_labels, strict=True))
    # Each run has 120 of the real samples, and not always the same.
    assert ((found_labels[0] >= 0).sum(axis=1) == 120).all()
    assert 120 < (found_labels[0] >= 0).any(axis=0).sum() <= 200
    assert (found_labels[1] >= 0).all()
    lam = sajjadi.slopes()
    for g, h in ((0, 0), (3, 0), (0, 1), (4, 2)):
        alphas = []
        for one in labels:
            kept = [
                c[(k != left - 1) & (c >= 0)] for c, k, left in zip(one, cut, (g, h), strict=True)
            ]
            p, q = (np.bincount(some, minlength=20) / len(some) for some in kept)
            alphas.append(np.minimum(lam[:, None] * p, q).sum(axis=1))
        alpha = np.mean(alphas, axis=0)
        assert theta[g, h] == pytest.approx((65 * alpha / (1 + 64 * lam)).max(), rel=1e-9)


def test_curve_is_for_figures():
    real, fake = statistics(modes([0.5, 0.5, 0])), statistics(modes([0.7, 0, 0.3], seed=1))
    lam, precision, recall = sajjadi.curve(real, fake, angles=101)
    assert precision[-1] == pytest.approx(0.7, abs=0.02)
    assert recall[0] == pytest.approx(0.5, abs=0.02)
    assert recall == pytest.approx(precision / lam)
    assert (np.diff(precision) >= -1e-12).all()


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e4), (1e-5, 0.0)])
def test_scale_and_offset_do_not_matter(scale, offset):
    real, fake = modes([0.5, 0.3, 0.2]), modes([0.2, 0.3, 0.5], seed=1)
    want = scores(real, fake)
    assert scores(scale * real + offset, scale * fake + offset) == pytest.approx(want, abs=0.03)


def test_a_larger_set_weighs_no_more():
    # Without weights, the centres would follow the 2000 real samples.
    real, fake = modes([0.5, 0.5], n=2000), modes([1 / 20] * 20, n=60, seed=1)
    real = np.pad(real, [(0, 0), (0, 18)])
    precision, recall = scores(real, fake)
    assert precision == pytest.approx(0.1, abs=0.07)
    assert recall == pytest.approx(6.5 / 7.4, abs=0.07)  # 65 α/(1 + 64 λ) at λ = α = 0.1


@pytest.mark.parametrize(("n", "m"), [(60, 1000), (1000, 60), (200, 3000)])
def test_one_distribution_of_two_sizes_scores_as_of_the_smaller(n, m):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(n, 100)), rng.normal(size=(m, 100))
    least = min(n, m)
    want = np.mean(scores(x[:least], y[:least]))
    assert scores(x, y) == pytest.approx((want, want), abs=0.06)


def test_few_samples_are_noted():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2000, 2))

    def notes(n, m):
        found = sajjadi.FAMILY.replicates(
            statistics(x[:n]), statistics(x[-m:]), sajjadi.NAMES, Options(groups=2)
        )
        return {note for one in found.values() for note in one.notes}

    assert notes(1000, 1000) == set()
    assert len(notes(60, 60)) == 1


def test_odd_features_and_repeats():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 1)).astype(np.float16), rng.normal(size=(30, 1))
    assert scores(x, y) == scores(x, y)
    assert scores(np.ones((25, 2)), np.ones((30, 2))) == (1, 1)


def test_bad_input():
    few, enough = statistics(np.zeros((19, 3))), statistics(np.zeros((30, 3)))
    with pytest.raises(errors.DataError, match=r"20 clusters .* got 19 fake"):
        sajjadi.curve(enough, few)
    known = Statistics(100, 3, "x", None, known_moments=(np.zeros(3), np.eye(3)))
    with pytest.raises(errors.DataError, match="mu and sigma alone"):
        sajjadi.curve(known, enough)
    with pytest.raises(errors.ConfigError, match=r"angles=2 .* at least 3"):
        sajjadi.curve(enough, enough, angles=2)
