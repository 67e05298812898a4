"""Clipped Density and Coverage: the definition, the authors' calibration, and its promise."""

import knn_tools as tools
import metric_oracles as oracles
import numpy as np
import pytest
from scipy import special, stats

from prpr import errors
from prpr.metrics import clipped, leave_out, measure, statistics
from prpr.metrics.family import Options
from prpr.metrics.groups import REAL, split

K = 3


def density_oracle(real, fake, k=K):
    """mean min(n(y)/k, 1) / mean min(n(x)/k, 1) with the radii clipped at their median."""
    radii = oracles.radii_squared(real, k)
    # The median of distances, not of their squares.
    limit = np.sqrt(radii)
    limit = np.minimum(limit, np.median(limit)) * (1 + 1e-12)
    fakes = np.sqrt(oracles.squared(real, fake)) <= limit[:, None]
    reals = np.sqrt(oracles.squared(real, real)) <= limit[:, None]
    np.fill_diagonal(reals, False)
    got, best = (np.minimum(x.sum(axis=0) / k, 1).mean() for x in (fakes, reals))
    return got / best


def expected(n, m, k):
    """E[min(number inside, k)]/k by the whole sum over the beta-binomial law."""
    j = np.arange(m + 1)
    return float((np.minimum(j, k) * stats.betabinom.pmf(j, m, k, n - k)).sum() / k)


def coverage_oracle(real, fake, k=K):
    n, m = len(real), len(fake)
    inside = (oracles.squared(real, fake) <= oracles.radii_squared(real, k)[:, None]).sum(axis=1)
    y = np.minimum(inside, k).mean() / k
    f = [expected(n, s, k) for s in range(m + 1)]
    above = next((s for s in range(m + 1) if f[s] >= y), None)
    if above is None:
        return 1 + (y - f[-1]) / (m * (f[-1] - f[-2]))
    if above == 0:
        return 0.0
    return (above - 1 + (y - f[above - 1]) / (f[above] - f[above - 1])) / m


@pytest.mark.parametrize("data", tools.DATA)
@pytest.mark.parametrize(
    ("name", "oracle"),
    [("clipped_density", density_oracle), ("clipped_coverage", coverage_oracle)],
)
def test_equals_the_definition_without_every_group(data, name, oracle):
    real, fake = tools.DATA[data](np.random.default_rng(1))
    theta = tools.theta(clipped.FAMILY, name, real, fake, k_dc=K)
    want = tools.again(oracle, real, fake)
    want[0, 0] = min(want[0, 0], 1)  # the value alone is capped
    np.testing.assert_allclose(theta, want, rtol=1e-9, atol=1e-12)


def test_balls_that_shrink_without_a_group():
    # Without samples of large radii the median of the others is below that of all.
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(60, 2)), rng.normal(size=(70, 2))
    cut = split(60, 30, 0, REAL)
    medians = [np.median(row[row > -np.inf]) for row in leave_out.radii(statistics(real), cut, K)]
    assert sum(one < medians[0] for one in medians) > 5
    options = Options(groups=30, k_dc=K)
    theta = tools.theta(clipped.FAMILY, "clipped_density", real, fake, options)[:, 0]
    kept = [cut.labels() != g for g in range(-1, 30)]
    want = [density_oracle(real[some], fake) for some in kept]
    np.testing.assert_allclose(theta, [min(want[0], 1), *want[1:]], rtol=1e-9)


def test_a_value_at_the_cap_has_an_interval_below_it():
    rng = np.random.default_rng(10)
    covered = []
    for _ in range(30):
        real, fake = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
        found = measure(clipped.NAMES, statistics(real), statistics(fake)).metrics
        for name in clipped.NAMES:
            assert found[name].low <= found[name].value <= found[name].high <= 1
            covered.append(found[name].low < 0.97)
    # The expectation is below 1, since what is above is cut off.
    assert np.mean(covered) > 0.8
    real, fake = rng.normal(size=(200, 3)), 0.2 * rng.normal(size=(200, 3))
    wide = measure(clipped.NAMES, statistics(real), statistics(fake)).metrics
    assert wide["clipped_density"].value == 1
    assert 0.9 < wide["clipped_density"].low < 1


@pytest.mark.parametrize(("n", "m", "k"), [(30, 25, 5), (12, 60, 1), (200, 3, 7), (8, 8, 7)])
def test_expected_coverage_is_beta_binomial(n, m, k):
    want = [expected(n, s, k) for s in range(m + 1)]
    np.testing.assert_allclose(clipped.expected_coverage(n, m, k), want, rtol=1e-11, atol=1e-13)


def test_expected_coverage_at_published_sizes():
    f = clipped.expected_coverage(50_000, 50_000, 5)
    for m in (1, 1000, 25_000, 50_000):
        j = np.arange(61)  # far in the tail
        pmf = np.exp(
            special.gammaln(m + 1)
            - special.gammaln(np.minimum(j, m) + 1)
            - special.gammaln(np.maximum(m - j, 0) + 1)
            + special.betaln(j + 5, np.maximum(m - j, 0) + 49_995)
            - special.betaln(5, 49_995)
        ) * (j <= m)
        assert f[m] == pytest.approx(float((np.minimum(j, 5) * pmf).sum()) / 5, rel=1e-8)
    assert np.all(np.diff(f) > 0)


def test_expected_coverage_holds_for_any_distribution():
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(200):
        # Ranks of distances do not depend on the law: a skewed one, in two dimensions.
        real, fake = (rng.exponential(size=(n, 2)) ** 2 for n in (40, 25))
        inside = oracles.squared(real, fake) <= oracles.radii_squared(real, 4)[:, None]
        covered.append(np.minimum(inside.sum(axis=1), 4).mean() / 4)
    error = np.std(covered) / np.sqrt(len(covered))
    assert abs(np.mean(covered) - clipped.expected_coverage(40, 25, 4)[25]) < 4 * error


@pytest.mark.parametrize(("n", "m"), [(100, 80), (400, 500)])
def test_near_the_authors_inverse(n, m):
    """Theirs: f is 0 below k, and the inverse is a rank among the m + 1 values of f."""
    k = 5
    f = np.array([0.0 if s < k else expected(n, s, k) for s in range(m + 1)])
    for y in np.linspace(0.01, 0.99 * f[-1], 23):
        theirs = np.searchsorted(f, y) / len(f)
        assert abs(clipped.calibrated(np.array([y]), n, m, k)[0] - theirs) < (k + 1) / m


def test_reads_as_the_share_of_good_samples():
    rng = np.random.default_rng(3)
    real, good = rng.normal(size=(1000, 8)), rng.normal(size=(1000, 8))
    for share in (0.2, 0.5, 0.8):
        fake = good + 50.0 * (np.arange(1000) >= share * 1000)[:, None]
        assert tools.value("clipped_density", real, fake) == pytest.approx(share, abs=0.05)
        assert tools.value("clipped_coverage", real, fake) == pytest.approx(share, abs=0.05)


def test_dropped_modes_read_as_what_is_left():
    rng = np.random.default_rng(9)
    mode = np.arange(1000)[:, None] % 5
    real, fake = rng.normal(size=(1000, 3)) + 40 * mode, rng.normal(size=(1000, 3))
    for left in (1, 2, 4):
        some = fake + 40 * (mode % left)
        assert tools.value("clipped_density", real, some) > 0.95
        assert tools.value("clipped_coverage", real, some) == pytest.approx(left / 5, abs=0.1)


def test_outliers_and_collapse():
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(400, 4)), rng.normal(size=(400, 4)) + 6
    real[:10] += 6 + 3 * rng.normal(size=(10, 4))
    assert tools.value("density", real, fake) > 0.3
    assert tools.value("clipped_density", real, fake) < 0.05
    # All fakes on one good sample: one ball's worth of coverage, whatever their number.
    collapsed = np.repeat(real[50:51], 400, axis=0)
    assert tools.value("clipped_coverage", real, collapsed) < 0.05


def test_shift_lowers_both():
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    for name in clipped.NAMES:
        values = [tools.value(name, real, fake + shift) for shift in (0.3, 0.6, 1, 2)]
        assert np.all(np.diff(values) < -0.05)
    scales = [tools.value("clipped_coverage", real, s * fake) for s in (0.5, 0.3, 0.1)]
    assert np.all(np.diff(scales) < -0.05)


@pytest.mark.parametrize("name", clipped.NAMES)
def test_identical_constant_and_far_sets(name):
    real = np.random.default_rng(6).normal(size=(80, 4))
    assert tools.value(name, real, real) == 1
    assert tools.value(name, real, real[::-1] + 1e4) == 0
    assert tools.value(name, np.ones((50, 3)), np.ones((40, 3))) == 1
    assert tools.value(name, np.ones((50, 3)), np.zeros((40, 3))) == 0
    assert tools.value(name, real.astype(np.float16), real.astype(np.float16)) == 1


def test_real_against_a_few_good_fakes():
    # Fewer fakes than k: f is not 0 there, so the number still means the share.
    rng = np.random.default_rng(7)
    real = rng.normal(size=(200, 3))
    values = [tools.value("clipped_coverage", real, rng.normal(size=(4, 3))) for _ in range(10)]
    assert 0.5 < np.mean(values) <= 1
    far = np.concatenate([rng.normal(size=(2, 3)), np.full((2, 3), 99.0)])
    assert 0.2 < tools.value("clipped_coverage", real, far) < 0.8


@pytest.mark.parametrize("name", clipped.NAMES)
def test_ties_survive_offsets(name):
    tools.offsets_change_nothing(clipped.FAMILY, name, rtol=1e-12)


@pytest.mark.parametrize("m", [50_000, 500_000])
def test_beyond_full_coverage_by_many_fakes(m):
    # f(1) is 1 but for 1e-13 and less: its last step cannot be told from f itself.
    n, k = 100, 5
    t = np.arange(k)
    pmf, before = (stats.betabinom.pmf(t, x, k, n - k) for x in (m, m - 1))
    slope = m / (n + m - 1) * ((k + t) * before).sum()
    want = 1 + ((k - t) * pmf).sum() / slope
    assert want == pytest.approx(1.2, abs=1e-2)
    got = clipped.calibrated(np.array([1.0, 1 - 1e-9, 0.5]), n, m, k)
    assert got[0] == pytest.approx(want, rel=1e-6)
    assert 1 > got[1] > got[2] > 0
    # 1 - 1e-9 are in the balls at 10^(9/5) times fewer samples than would leave 1e-18.
    f = clipped.expected_coverage(n, int(m * got[1]), k)
    assert f[-1] == pytest.approx(1 - 1e-9, abs=1e-12)


@pytest.mark.parametrize("name", clipped.NAMES)
def test_large_heaps_of_equal_samples(name):
    tools.is_one_on_large_heaps(name)


def test_too_few_samples_are_named():
    x = np.random.default_rng(8).normal(size=(8, 2))
    with pytest.raises(
        errors.DataError, match=r"clipped_density with k_dc=5 .* 6 real .* got 4 of 8"
    ):
        tools.theta(clipped.FAMILY, "clipped_density", x, x, Options(groups=2))
    one = clipped.FAMILY.replicates(
        statistics(x), statistics(x[:2]), clipped.NAMES, Options(groups=8, k_dc=2)
    )
    assert one["clipped_density"].theta.shape == (9, 3)
    for name in clipped.NAMES:
        tools.needs_two_fakes(name)


def test_moments_alone_are_not_enough():
    tools.refuses_moments("clipped_density")
