"""Score intervals and the two-sample jackknife, against closed forms."""

import numpy as np
import pytest
from scipy import stats

from prpr import errors
from prpr.metrics import intervals


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("df", [1, 4.5, 38, np.inf])
def test_quantile_is_students(level, df):
    want = stats.norm.ppf(0.5 + level / 2) if np.isinf(df) else stats.t.ppf(0.5 + level / 2, df)
    assert intervals.quantile(level, df) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("n", [1, 10, 400, 12.5])
@pytest.mark.parametrize("v", [0.0, 0.013, 0.5, 0.9, 1.0])
def test_proportion_solves_the_score_equation(v, n):
    t = 1.96
    low, high = intervals.proportion(v, n, t)
    assert 0 <= low <= v <= high <= 1
    assert low < high
    for p in (low, high):
        if 0 < p < 1:
            assert (v - p) ** 2 == pytest.approx(t**2 * p * (1 - p) / n, rel=1e-9)


def test_proportion_of_none_and_all():
    # v = 0: p² = t² p(1−p)/n, so p = t²/(n + t²); and mirrored.
    low, high = intervals.proportion(0.0, 100, 2.0)
    assert (low, high) == (0.0, pytest.approx(4 / 104))
    low, high = intervals.proportion(1.0, 100, 2.0)
    assert (low, high) == (pytest.approx(100 / 104), 1.0)


def test_corners_are_exact():
    # The formula's rounding leaves some of these at 1e-18 or 1 − 1e-16.
    for n in np.geomspace(0.5, 1e5, 300):
        assert intervals.proportion(0.0, n, 1.96)[0] == 0
        assert intervals.proportion(1.0, n, 1.96)[1] == 1
        assert intervals.rate(0.0, n, 1.96)[0] == 0


def test_proportion_is_scipys_wilson():
    want = stats.binomtest(37, 120).proportion_ci(0.9, method="wilson")
    got = intervals.proportion(37 / 120, 120, intervals.quantile(0.9))
    assert got == pytest.approx((want.low, want.high), rel=1e-9)


@pytest.mark.parametrize("v", [0.0, 0.02, 1.0, 7.5])
def test_rate_solves_the_score_equation(v):
    low, high = intervals.rate(v, 50, 2.0)
    assert 0 <= low <= v < high
    for m in (low, high):
        assert (v - m) ** 2 == pytest.approx(4 * m / 50, rel=1e-9, abs=1e-15)


def _theta(groups, statistic):
    """θ of a statistic(kept real groups, kept fake groups) of one draw a group."""
    g, h = groups
    rows = [np.delete(np.arange(g), [i] if i >= 0 else []) for i in range(-1, g)]
    columns = [np.delete(np.arange(h), [i] if i >= 0 else []) for i in range(-1, h)]
    return np.array([[statistic(r, c) for c in columns] for r in rows])


def test_parts_of_a_difference_of_means():
    # θ = mean x − mean y: V_real = s²/G, V_fake = s²/H, and nothing that both see.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(size=14)
    theta = _theta((9, 14), lambda r, c: x[r].mean() - y[c].mean())
    want = x.var(ddof=1) / 9, y.var(ddof=1) / 14, 0
    assert intervals.jackknife_parts(theta) == pytest.approx(want, abs=1e-12)


def test_parts_of_a_pure_interaction():
    # θ = mean of an independent draw for every pair: its variance is s²/(GH), and each of the
    # three parts estimates it, so that V_real + V_fake − V_both counts it once.
    rng = np.random.default_rng(1)
    g, h = 6, 9
    found = []
    for _ in range(2000):
        z = rng.normal(size=(g, h))
        theta = _theta((g, h), lambda r, c, z=z: z[np.ix_(r, c)].mean())
        found.append(intervals.jackknife_parts(theta))
    # Standard errors: √(2/5/2000) = 1.4 % and √(2/8/2000) = 1.1 % for the first two.
    assert np.mean(found, axis=0) * g * h == pytest.approx([1, 1, 1], rel=0.06)


def test_two_sample_is_welch_for_means():
    # For proportions far from 0 and 1, Welch's interval up to the score's t²/n.
    rng = np.random.default_rng(2)
    x, y = 0.5 + 0.01 * rng.normal(size=30), 0.01 * rng.normal(size=20)
    theta = _theta((30, 20), lambda r, c: x[r].mean() - y[c].mean())
    got = intervals.two_sample(theta, draws=1e9, level=0.9)
    want = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=2e-4)
    assert got.high - got.low == pytest.approx(want.high - want.low, rel=1e-3)


@pytest.mark.parametrize(("value", "bounded"), [(0.0, True), (1.0, True), (0.0, False)])
def test_no_variation_falls_back_to_draws(value, bounded):
    got = intervals.two_sample(np.full((21, 21), value), draws=100, bounded=bounded)
    t = 1.959963985
    edge = {(0.0, True): t**2 / (100 + t**2), (0.0, False): t**2 / 100}
    if value == 0:
        assert got[:2] == (0, 0)
        assert got.high == pytest.approx(edge[value, bounded])
    else:
        assert got.low == pytest.approx(1 - edge[0.0, True])
        assert got.high == 1


def test_n_never_exceeds_draws():
    theta = np.full((5, 5), 0.5) + 1e-9 * np.arange(5)
    got = intervals.two_sample(theta, draws=100)
    assert got.high - got.low > 0.18  # 2·1.96·√(.25/104) is .192


def test_variance_never_falls_below_its_floor():
    # V_both larger than the others: the difference is negative, the interval is not empty.
    rng = np.random.default_rng(3)
    theta = np.full((11, 11), 0.5)
    theta[1:, 0] += 1e-3 * rng.normal(size=10)
    theta[1:, 1:] += rng.normal(size=(10, 10))
    v_real, v_fake, v_both = intervals.jackknife_parts(theta)
    assert v_fake == 0
    assert v_both > v_real
    got = intervals.two_sample(theta, draws=1e9)
    t = stats.t.ppf(0.975, 9)
    want = 2 * t * np.sqrt(v_real * intervals.FLOOR)
    assert got.high - got.low == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, float("nan")])
def test_bad_level(level):
    with pytest.raises(errors.ConfigError, match=r"level=.* between 0 and 1"):
        intervals.quantile(level)


@pytest.mark.parametrize("heavy", [False, True])
def test_second_order_is_the_variance_of_pairs(heavy):
    # Σ_gh d_g·A d_h of independent d_g: the terms g != h have variance 2G(G−1)·tr(AΣAΣ), which
    # is counted as 2G². Deviations are from the groups' own mean, as every metric has them.
    rng = np.random.default_rng(5)
    g, a = 8, np.diag([2.0, 1, 0.5, -1])
    found = []
    for _ in range(4000):
        d = rng.normal(size=(g, 4))
        if heavy:
            d *= np.sqrt(3 / rng.chisquare(5, (g, 1)))  # of variance 1
        d -= d.mean(axis=0)
        found.append(intervals.second_order(d @ a @ d.T))
    want = 2 * g**2 * np.sum(np.diag(a) ** 2)
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(want, abs=3.5 * error)
    assert error < 0.06 * want


def test_second_order_of_few_groups():
    assert intervals.second_order(np.ones((3, 3))) == 0
    # Only the parts that deviate count.
    assert intervals.second_order(np.ones((9, 9))) == pytest.approx(0, abs=1e-12)


def _linear(rng, g, h, real, fake):
    theta = np.full((1 + g, 1 + h), 5.0)
    theta[1:] += real * rng.normal(size=(g, 1))
    theta[:, 1:] += fake * rng.normal(size=h)
    return theta


@pytest.mark.parametrize("kind", ["real", "rate"])
def test_what_counts_twice_is_taken_off(kind):
    theta = _linear(np.random.default_rng(6), 10, 10, 1e-3, 1e-3)
    v = sum(intervals.jackknife_parts(theta))

    def width(twice):
        found = intervals.estimate(intervals.Replicates(theta, np.inf, kind, twice=twice))
        return found.high - found.low

    assert width((0.0, 0.0)) == pytest.approx(width(None), rel=1e-9)
    assert width((0.1 * v, 0.2 * v)) == pytest.approx(width(None) * np.sqrt(0.7), rel=1e-3)
    # What is counted at most twice is at least half of its count.
    assert width((0.5 * v, 0.4 * v)) == pytest.approx(width(None) * np.sqrt(0.5), rel=1e-3)


def certain(value, draws, kind="proportion"):
    """Replicates that do not vary at all."""
    return intervals.Replicates(np.full((5, 5), float(value)), draws, kind)


@pytest.mark.parametrize(
    ("one", "two", "want"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_compare_of_independent_proportions_is_newcombes(one, two, want):
    a, b = (certain(k / n, n) for k, n in (one, two))
    found = intervals.compare(a, b)
    assert found[1:3] == pytest.approx(want, abs=6e-5)
    assert intervals.compare(b, a)[1:3] == pytest.approx((-want[1], -want[0]), abs=6e-5)
    assert (found.p < 0.05) == (want[0] > 0)


def test_compare_in_a_corner_is_not_certain():
    for kind in ("proportion", "rate", "capped"):
        found = intervals.compare(certain(1, 6, kind), certain(0, 6, kind))
        assert 0.1 < found.low < 0.6
        assert 1e-6 < found.p < 0.05
        found = intervals.compare(certain(1, 6, kind), certain(1, 6, kind))
        assert found.low < 0 < found.high
        assert found.p == 1
    one, two = (certain(x, np.inf, "real") for x in (1, 0))
    assert intervals.compare(one, two) == (1, 1, 1, 0)


def test_compare_agrees_with_its_p_at_every_level():
    rng = np.random.default_rng(8)
    a, b = (_linear(rng, 10, 12, 0.02, 0.02) - shift for shift in (4.3, 4.35))
    one, two = (intervals.Replicates(x, 400) for x in (a, b))
    for level in (0.3, 0.6, 0.9, 0.99, 0.9999):
        found = intervals.compare(one, two, level)
        assert (found.p < 1 - level) == (found.low > 0 or found.high < 0)


def test_compare_of_paired_proportions_keeps_what_pairing_gains():
    # Both vary more than 5000 draws do, and mostly together: that they do takes nothing away.
    rng = np.random.default_rng(9)
    theta = _linear(rng, 20, 20, 2e-3, 1e-3) - 4.5
    other = theta + 1e-3 * (rng.normal(size=21) - 1)
    found = []
    for kind in ("proportion", "real"):
        one, two = (intervals.Replicates(x, 5000, kind) for x in (theta, other))
        found.append(intervals.compare(one, two))
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0].high - found[0].low < 0.8 * 2 * 1.96 * np.sqrt(2 * 0.25 / 5000)


def test_compare_takes_the_fakes_part_off():
    rng = np.random.default_rng(7)
    a, b = _linear(rng, 10, 12, 1, 2), _linear(rng, 10, 14, 1, 2)
    v = [intervals.jackknife_parts(one)[1] for one in (a, b)]

    def width(twice):
        one, two = (intervals.Replicates(x, np.inf, "real", twice=twice) for x in (a, b))
        found = intervals.compare(one, two)
        return found.high - found.low

    shared = a[1:, 0] - b[1:, 0]
    v_real = 0.9 * np.sum((shared - shared.mean()) ** 2)
    off = 0.1 * min(v)
    want = np.sqrt(1 - 2 * off / (v_real + sum(v)))
    assert width((v_real, off)) == pytest.approx(width(None) * want, rel=1e-9)
