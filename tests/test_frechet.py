"""Fréchet distance against scipy's matrix root, closed forms, and exact leave-outs."""

import numpy as np
import pytest
from scipy import linalg

from prpr import errors
from prpr.metrics import Options, compare, frechet, intervals, measure, normals, statistics
from prpr.metrics import replicates as all_replicates
from prpr.metrics.groups import FAKE, REAL, split
from prpr.metrics.statistics import Statistics


def moments_of(x):
    x = np.asarray(x, np.float64)
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def by_root(real, fake):
    """d² of two (μ, Σ) by scipy's sqrtm."""
    root = np.asarray(linalg.sqrtm(real[1] @ fake[1]))
    away = real[0] - fake[0]
    return float(away @ away + np.trace(real[1] + fake[1]) - 2 * np.trace(root).real)


def by_singular_values(x, y):
    """d² of two sets without a covariance: right for singular ones too."""
    a, b = (np.linalg.qr(z - z.mean(axis=0), "r").T / np.sqrt(len(z) - 1) for z in (x, y))
    away = x.mean(axis=0) - y.mean(axis=0)
    s = linalg.svdvals(a.T @ b)
    return float(away @ away + np.sum(a**2) + np.sum(b**2) - 2 * s.sum())


def pair(n, m, d, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    x = rng.normal(size=(n, d)) @ mix
    y = 0.3 + rng.normal(size=(m, d)) * np.linspace(0.6, 1.2, d) @ mix
    return x, y


def of_moments(moments, n=0, encoder="given features"):
    return Statistics(n, len(moments[0]), encoder, None, known_moments=moments)


def fid(x, y):
    return frechet.distance(statistics(x), statistics(y))


def theta_of(x, y, name="fid", groups=20, seed=0):
    options = Options(groups=groups, seed=seed)
    return all_replicates((name,), statistics(x), statistics(y), options)[name]


# --- the value ---------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 7, 60])
def test_equals_scipys_root(d):
    x, y = pair(300, 200, d)
    want = by_root(moments_of(x), moments_of(y))
    assert fid(x, y) == pytest.approx(want, rel=1e-9)
    assert frechet.frechet_distance(*moments_of(x), *moments_of(y)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 300), (300, 20), (60, 61), (61, 60), (2, 2)])
def test_few_samples_equal_the_singular_values(n, m):
    x, y = pair(n, m, 60)
    assert fid(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-10)
    # The same from moments, whose covariances are singular.
    found = frechet.frechet_distance(*moments_of(x), *moments_of(y))
    assert found == pytest.approx(by_singular_values(x, y), rel=1e-6)


def test_symmetric():
    x, y = pair(90, 200, 30)
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-12)


def test_closed_forms():
    # (2 − (−1))² + (√9 − √4)²
    line = frechet.frechet_distance([2.0], [[9.0]], [-1.0], [[4.0]])
    assert line == pytest.approx(10, rel=1e-12)
    rng = np.random.default_rng(0)
    q = linalg.qr(rng.normal(size=(9, 9)))[0]
    mean, away = rng.normal(size=(2, 9))
    a, b = rng.uniform(0.1, 3, (2, 9))
    same = (q * a) @ q.T
    equal = frechet.frechet_distance(mean, same, mean + away, same)
    assert equal == pytest.approx(away @ away, rel=1e-10)
    commuting = frechet.frechet_distance(mean, same, mean, (q * b) @ q.T)
    assert commuting == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-10)
    orthogonal = np.diag([2.0, 3, 0, 0]), np.diag([0.0, 0, 5, 0])
    zero = np.zeros(4)
    assert frechet.frechet_distance(zero, orthogonal[0], zero, orthogonal[1]) == 10


@pytest.mark.parametrize("shape", [(50, 3), (50, 80), (200, 40)])
def test_a_set_against_itself_is_zero(shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape) * np.geomspace(1, 1e-4, shape[1])
    assert fid(x, x) == 0
    assert fid(x, x[::-1].copy()) == 0
    assert frechet.frechet_distance(*moments_of(x), *moments_of(x)) == 0
    estimate = measure(("fid",), statistics(x), statistics(x)).metrics["fid"]
    assert estimate[:3] == pytest.approx((0, 0, 0), abs=1e-9)


def test_constant_features():
    x = np.full((40, 3), 2.0)
    assert fid(x, x) == 0
    assert fid(x, x + 1) == pytest.approx(3)
    y = np.random.default_rng(0).normal(size=(50, 3))
    want = np.sum((y.mean(axis=0) - 2) ** 2) + np.trace(moments_of(y)[1])
    assert fid(x, y) == pytest.approx(want, rel=1e-12)
    assert fid(y, x) == pytest.approx(want, rel=1e-12)
    found = measure(("fid",), statistics(x), statistics(y)).metrics["fid"]
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("spoil", ["constant", "double", "rank one"])
def test_singular_covariances(spoil):
    x, y = pair(200, 150, 12)
    for z in (x, y):
        if spoil == "constant":
            z[:, 3] = 5
        elif spoil == "double":
            z[:, 3] = z[:, 4]
        else:
            z[:] = z[:, :1] * np.arange(1, 13)
    assert fid(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-7)
    assert np.isfinite(theta_of(x, y).theta).all()


def test_small_singular_values_are_not_lost_in_their_squares():
    # One large direction that both sets share, and 60 small ones each that they do not: the
    # eigenvalues of the product are s_0² and zeros with an error of eps·s_0², whose root is 1e-8.
    rng = np.random.default_rng(2)
    q = linalg.qr(rng.normal(size=(200, 200)))[0]
    x, y = np.zeros((2, 70, 200))
    x[:, 0], y[:, 0] = 1e3 * rng.normal(size=(2, 70))
    x[:, 1:61], y[:, 61:121] = rng.normal(size=(2, 70, 60))
    x, y = x @ q, y @ q
    scale = np.trace(moments_of(x)[1]) + np.trace(moments_of(y)[1])
    assert fid(x, y) == pytest.approx(by_singular_values(x, y), abs=1e-11 * scale)


def test_offsets_do_not_matter():
    x, y = pair(200, 150, 20)
    assert fid(x + 1e4, y + 1e4) == pytest.approx(fid(x, y), rel=1e-6)
    few = pair(15, 18, 20)
    assert fid(few[0] + 1e4, few[1] + 1e4) == pytest.approx(fid(*few), rel=1e-6)
    a, b = theta_of(x, y).theta, theta_of(x + 1e4, y + 1e4).theta
    assert np.abs(a - b).max() < 1e-6 * np.std(a)


def test_units_do_not_matter():
    x, y = pair(100, 90, 12)
    for unit in (1e-60, 1e60):
        assert fid(unit * x, unit * y) == pytest.approx(unit**2 * fid(x, y), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_other_dtypes(dtype):
    x, y = ((10 * z).astype(dtype) for z in pair(200, 150, 6))
    want = fid(x.astype(np.float64), y.astype(np.float64))
    assert fid(x, y) == pytest.approx(want, rel=1e-12)
    wide = theta_of(x.astype(np.float64), y.astype(np.float64))
    found = theta_of(x, y)
    assert np.abs(found.theta - wide.theta).max() < 1e-4 * np.std(wide.theta)
    assert found.twice == pytest.approx(wide.twice, rel=1e-3)


def test_equals_torch_fidelity():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = pair(400, 300, 24)
    stats = [theirs.fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    want = theirs.fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert fid(x, y) == pytest.approx(want, rel=1e-8)


# --- bad input -----------------------------------------------------------------------------


def test_one_sample_has_no_covariance():
    x, y = pair(1, 30, 4)
    with pytest.raises(errors.DataError, match=r"the real set has 1 sample.*at least 2"):
        fid(x, y)
    with pytest.raises(errors.DataError, match=r"the fake set has 1 sample"):
        fid(y, x)
    with pytest.raises(errors.DataError, match="halves of at least 2 samples, got 3"):
        measure(("fid_infinity",), statistics(y), statistics(y[:3]))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("bad", [np.diag([1.0, -0.5, 2]), -np.eye(3), np.diag([1.0, 1, -1e-4])])
def test_no_covariance(swap, bad):
    zero, good = np.zeros(3), np.eye(3)
    sides = [(zero, bad), (zero, good)]
    place = "fake" if swap else "real"
    with pytest.raises(errors.DataError, match=f"sigma of the {place} set has negative eigenvalue"):
        frechet.frechet_distance(*sides[swap], *sides[not swap])


@pytest.mark.parametrize("other", [np.eye(3), np.diag([2.0, 0, 0])])
@pytest.mark.parametrize("first", [0.0, 1.0])
def test_no_covariance_with_zeros_on_its_diagonal(first, other):
    # Eigenvalues 1 and −1 that neither the diagonal nor a pivot shows, nor a singular other set.
    bad = np.array([[first, 0, 0], [0, 0, 1], [0, 1, 0]])
    for sigmas, place in (((bad, other), "real"), ((other, bad), "fake"), ((bad, bad), "")):
        with pytest.raises(errors.DataError, match=f"sigma of the {place}.* negative eigenvalues"):
            frechet.frechet_distance(np.zeros(3), sigmas[0], np.zeros(3), sigmas[1])


def test_rounded_covariances_of_low_rank_are_let_pass():
    # Eigenvalues of −4e-8 of the largest, but what pivoting leaves is 5e-6 of it.
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(20, 200))
    x, y = (z @ mix for z in pair(300, 200, 20))
    given = []
    for mean, cov in map(moments_of, (x, y)):
        noise = 2e-8 * np.abs(cov).max() * rng.normal(size=cov.shape)
        given.append((mean, cov + noise + noise.T))
        values = linalg.eigvalsh(given[-1][1])
        assert -1e-7 < values[0] / values[-1] < -1e-8
    found = frechet.frechet_distance(*given[0], *given[1])
    assert found == pytest.approx(by_singular_values(x, y), rel=1e-3)


def test_moments_that_do_not_match():
    with pytest.raises(errors.DataError, match="real features have D=3 and fake features D=4"):
        fid(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(errors.DataError, match="D=3 and fake ones D=2"):
        frechet.frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
    with pytest.raises(errors.DataError, match="sigma of the fake set is not symmetric"):
        frechet.frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.array([[1, 0.5], [0, 1]]))
    with pytest.raises(errors.DataError, match="mu or sigma of the real set has NaN"):
        frechet.frechet_distance(np.full(2, np.nan), np.eye(2), np.zeros(2), np.eye(2))


# --- the interval ----------------------------------------------------------------------------


def exact(x, y, groups, seed=0):
    """θ by leaving out every pair of groups in turn."""
    cuts = split(len(x), groups, seed, REAL), split(len(y), groups, seed, FAKE)
    kept = [
        [z, *(np.delete(z, cut.order[cut.cut[g] : cut.cut[g + 1]], axis=0) for g in range(groups))]
        for z, cut in zip((x, y), cuts, strict=True)
    ]
    return np.array([[by_singular_values(a, b) for b in kept[1]] for a in kept[0]])


def test_derivatives_are_those_of_leaving_out():
    # With 50 groups the second order is 2 % of the first.
    x, y = pair(4000, 3010, 4)
    want, found = exact(x, y, 50), theta_of(x, y, groups=50).theta
    for a, b in ((want[1:, 0], found[1:, 0]), (want[0, 1:], found[0, 1:])):
        assert np.corrcoef(a, b)[0, 1] > 0.999
        assert np.polyfit(b, a, 1)[0] == pytest.approx(1, abs=0.02)
    mixed = [(t[1:, 1:] - t[1:, :1] - t[:1, 1:] + t[0, 0]).ravel() for t in (want, found)]
    assert np.corrcoef(*mixed)[0, 1] > 0.999
    assert np.polyfit(mixed[1], mixed[0], 1)[0] == pytest.approx(1, abs=0.03)


def test_derivatives_in_the_sample_space():
    # Fewer real samples than dimensions; the fakes' derivatives are those of leaving out.
    x, y = pair(30, 4000, 40, seed=3)
    want, found = exact(x, y, 20), theta_of(x, y).theta
    assert np.corrcoef(want[0, 1:], found[0, 1:])[0, 1] > 0.99
    assert np.polyfit(found[0, 1:], want[0, 1:], 1)[0] == pytest.approx(1, abs=0.05)


def test_what_counts_twice_is_the_second_order():
    # d² of samples of a standard normal with D = 1: the terms of two samples are, to the first
    # order in 1/N, z̄² + (s² − 1)²/4 of each set, whose variance is 2/N² + 2(2/N)²/16 = 2.5/N².
    rng = np.random.default_rng(4)
    n, found = 400, []
    for _ in range(300):
        x, y = rng.normal(size=(2, n, 1))
        found.append(theta_of(x, y, groups=40).twice)
    assert np.mean(found, axis=0) * n**2 == pytest.approx([2.5, 2.5], rel=0.15)


def test_blocks_do_not_matter(monkeypatch):
    x, y = pair(300, 210, 9)
    want = theta_of(x, y)
    monkeypatch.setattr(frechet, "ROWS", 4)
    found = theta_of(x, y)
    assert found.theta == pytest.approx(want.theta, rel=1e-12)
    assert found.twice == pytest.approx(want.twice, rel=1e-5)
    # Fewer leading coordinates: less is known to count twice, and the interval is wider.
    monkeypatch.setattr(frechet, "LEADING", 2)
    assert (np.array(theta_of(x, y).twice) < want.twice).all()


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_sums_of_a_group_are_those_of_its_samples(dtype, error, monkeypatch):
    # Two equal spectra: what is left of |x|² − Σ s z² is small against both.
    x, y = (z.astype(dtype) for z in pair(2000, 1500, 12))
    y *= np.sqrt(moments_of(x)[1].trace() / moments_of(y)[1].trace())
    monkeypatch.setattr(frechet, "ROWS", 100)
    found = []
    for way in (True, False):
        monkeypatch.setattr(frechet, "pooled", lambda *_, way=way: way)
        found.append(theta_of(x, y, groups=8))
    one, two = (one.theta - one.theta[0, 0] for one in found)
    assert np.abs(one - two).max() < error * np.std(two)
    assert found[0].twice == pytest.approx(found[1].twice, rel=error)


def test_pooled_is_the_smaller_number_of_products():
    # N = 50,000 and 5,000 in 20 groups, all or half of the coordinates.
    assert frechet.pooled(2500, 2048, 2048, 512)
    assert not frechet.pooled(250, 2048, 2048, 512)
    assert not frechet.pooled(2500, 2048, 512, 512)


def test_leading_coordinates_are_enough(monkeypatch):
    # Equal distributions, whose interval is of the second derivatives alone, of a steep spectrum.
    rng = np.random.default_rng(6)
    spread = np.arange(1, 101) ** -0.75
    x, y = rng.normal(size=(2, 600, 100)) * spread
    found = intervals.estimate(theta_of(x, y))
    assert frechet.leading(spread**2) == 60
    monkeypatch.setattr(frechet, "SHARE", 1.0)
    assert frechet.leading(spread**2) == 100
    want = intervals.estimate(theta_of(x, y))
    assert found.value == want.value
    assert found.high - found.low == pytest.approx(want.high - want.low, rel=5e-3)


def coverage(draw, truth, runs, names, seed=0):
    """{name: share of the intervals that hold the truth, or the mean where that is None}."""
    rng = np.random.default_rng(seed)
    found = {name: [] for name in names}
    for run in range(runs):
        x, y = draw(rng)
        got = measure(names, statistics(x), statistics(y), Options(seed=run)).metrics
        for name in names:
            found[name].append(got[name][:3])
    out = {}
    for name in names:
        value, low, high = np.transpose(found[name])
        aim = value.mean() if truth is None else truth
        out[name] = np.mean((low <= aim) & (aim <= high))
    return out


def gaussians(n, m, d, shift, narrow):
    def draw(rng):
        return rng.normal(size=(n, d)), shift / np.sqrt(d) + narrow * rng.normal(size=(m, d))

    return draw


@pytest.mark.parametrize(("shift", "narrow"), [(0.0, 1.0), (1.0, 1.0), (0.0, 0.5)])
def test_intervals_cover_the_expectation(shift, narrow):
    # 250 runs: a standard error of 1.4 %. Of 1000 to 4000 runs 95.0 % to 96.5 % covered.
    found = coverage(gaussians(500, 500, 8, shift, narrow), None, 250, ("fid",), seed=1)
    assert 0.91 <= found["fid"] <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("d", "shift"), [(64, 0.0), (64, 1.0), (2, 1.0)])
def test_intervals_cover_in_more_dimensions(d, shift):
    found = coverage(gaussians(500, 500, d, shift, 1.0), None, 400, ("fid",))
    assert 0.92 <= found["fid"] <= 0.98


def test_extrapolated_to_both_it_covers_the_true_distance():
    # |μ|² = 1 and 8·(1 − 0.8)²; d² itself is 0.1 above, and covers less often.
    found = coverage(gaussians(500, 500, 8, 1.0, 0.8), 1.32, 250, ("fid", "fid_infinity_both"))
    assert 0.91 <= found["fid_infinity_both"] <= 0.985
    assert found["fid"] < found["fid_infinity_both"]


# --- extrapolation -----------------------------------------------------------------------------


def test_infinity_is_the_line_through_halves():
    x, y = pair(120, 81, 5)
    order = split(81, 20, 7, FAKE).order
    halves = y[order[:41]], y[order[41:]]
    sizes = np.array([1 / 81, np.mean([1 / 41, 1 / 40])])
    values = [fid(x, y), np.mean([fid(x, half) for half in halves])]
    want = np.polyfit(sizes, values, 1)[1]
    assert theta_of(x, y, "fid_infinity", seed=7).theta[0, 0] == pytest.approx(want, rel=1e-9)
    # Both: the real set's part is found likewise, against all fakes.
    order = split(120, 20, 7, REAL).order
    halves = [fid(x[half], y) for half in np.array_split(order, 2)]
    want -= np.mean(halves) - fid(x, y)
    found = theta_of(x, y, "fid_infinity_both", seed=7).theta[0, 0]
    assert found == pytest.approx(want, rel=1e-9)


def test_infinity_takes_the_bias_off():
    # The same normal distribution, N = 300, D = 6: the expectation of d² is far above 0.
    rng = np.random.default_rng(5)
    known = of_moments((np.zeros(6), np.eye(6)))
    plain, beyond = [], []
    for _ in range(80):
        found = measure(("fid", "fid_infinity"), known, statistics(rng.normal(size=(300, 6))))
        plain.append(found.metrics["fid"].value)
        beyond.append(found.metrics["fid_infinity"].value)
    assert np.mean(plain) > 10 * np.std(plain) / np.sqrt(80)
    assert abs(np.mean(beyond)) < 3 * np.std(beyond) / np.sqrt(80)
    assert np.std(beyond) < 1.7 * np.std(plain)


# --- known moments, notes, names -----------------------------------------------------------------


def test_known_moments_of_one_side():
    x, y = pair(300, 200, 5)
    real = of_moments(moments_of(x))
    one = all_replicates(("fid",), real, statistics(y), Options(groups=10))["fid"]
    assert one.theta[0, 0] == pytest.approx(fid(x, y), rel=1e-10)
    assert one.theta.shape == (11, 11)
    assert (one.theta == one.theta[0]).all()
    assert one.theta[0] == pytest.approx(theta_of(x, y, groups=10).theta[0], rel=1e-9)
    assert any("real statistics hold mu and sigma alone" in note for note in one.notes)
    both = measure(("fid",), real, of_moments(moments_of(y))).metrics["fid"]
    assert both[:3] == pytest.approx((both.value,) * 3)
    with pytest.raises(errors.DataError, match="real statistics hold mu and sigma alone"):
        measure(("fid_infinity_both",), real, statistics(y))
    with pytest.raises(errors.DataError, match="fake statistics hold mu and sigma alone"):
        measure(("fid_infinity",), statistics(x), of_moments(moments_of(y)))


def test_names_are_one_distance():
    x, y = (statistics(z, encoder="inception (clean)") for z in pair(60, 50, 4))
    found = measure(("fid", "fd_dinov2", "fd"), x, y)
    assert len(set(found.metrics.values())) == 1
    assert found.warnings == (
        "fd_dinov2: the features come from 'inception (clean)', and this name means dinov2: "
        "report it as fd with the encoder's name",
    )
    with pytest.raises(errors.ConfigError, match="unknown metric 'fdi'"):
        measure(("fdi",), x, y)


def test_few_samples_are_told():
    x, y = pair(60, 30, 4)
    (note,) = measure(("fid",), statistics(x), statistics(y)).warnings
    assert note.startswith("fid: 30 fake samples are fewer than 10·D = 40")
    assert not measure(("fid",), statistics(x), statistics(x[:40])).warnings


def test_models_are_compared_on_the_same_real_samples():
    # What the real sample does to both cancels: an unpaired difference would be wider.
    x, y = pair(200, 4000, 6)
    real, one = statistics(x), statistics(y[:2000])
    other = statistics(y[2000:] + 0.02)
    found = compare(("fid",), real, one, other).metrics["fid"]
    apart = [measure(("fid",), real, fake).metrics["fid"] for fake in (one, other)]
    assert found.difference == pytest.approx(apart[0].value - apart[1].value)
    assert found.high - found.low < 0.6 * np.hypot(*(e.high - e.low for e in apart))
    same = compare(("fid",), real, one, one).metrics["fid"]
    assert (same.difference, same.p) == (0, 1)


def test_the_interval_costs_few_evaluations(monkeypatch):
    # Not by the clock: one decomposition with vectors, where leaving out needs 41.
    calls = []
    plain = normals.linalg.eigh
    monkeypatch.setattr(normals.linalg, "eigh", lambda *a, **k: calls.append(a) or plain(*a, **k))
    found = theta_of(*pair(300, 200, 5))
    assert len(calls) == 1
    assert intervals.estimate(found).low < found.theta[0, 0]
