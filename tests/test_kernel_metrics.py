"""KID and the Vendi score against brute force, closed forms and other libraries."""

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import Options, kernel, measure, statistics, vendi
from prpr.metrics import replicates as all_replicates
from prpr.metrics.groups import FAKE, REAL, split


def k(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def brute(x, y):
    n, m = len(x), len(y)
    a, b = k(x, x), k(y, y)
    own = (a.sum() - np.trace(a)) / (n * (n - 1)) + (b.sum() - np.trace(b)) / (m * (m - 1))
    return own - 2 * k(x, y).mean()


def pair(n=70, m=50, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), 0.2 + rng.normal(size=(m, d))


def kept(z, groups, side, seed=0):
    """The whole set, then without each group."""
    cut = split(len(z), groups, seed, side)
    parts = np.split(cut.order, cut.cut[1:-1])
    return [z, *(np.delete(z, part, axis=0) for part in parts)]


def theta_of(name, x, y, **options):
    found = all_replicates((name,), statistics(x), statistics(y), Options(**options))
    return found[name]


def coverage(name, draw, runs, seed=0):
    """Share of the intervals that hold the mean of the values."""
    rng = np.random.default_rng(seed)
    found = []
    for run in range(runs):
        x, y = draw(rng)
        got = measure((name,), statistics(x), statistics(y), Options(seed=run))
        found.append(got.metrics[name][:3])
    value, low, high = np.transpose(found)
    return np.mean((low <= value.mean()) & (value.mean() <= high))


# --- KID -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d"), [(70, 50, 5), (9, 31, 40), (3, 3, 1)])
def test_kid_equals_brute_force(n, m, d):
    x, y = pair(n, m, d)
    assert kernel.kid(statistics(x), statistics(y)) == pytest.approx(brute(x, y), rel=1e-9)


def test_kid_without_groups_is_exact():
    x, y = pair(53, 47)
    found = theta_of("kid", x, y, groups=5, seed=3).theta
    want = [[brute(a, b) for b in kept(y, 5, FAKE, 3)] for a in kept(x, 5, REAL, 3)]
    assert found == pytest.approx(np.array(want), rel=1e-8)


def test_tiles_do_not_matter(monkeypatch):
    x, y = pair()
    want = theta_of("kid", x, y, groups=4)
    monkeypatch.setattr(kernel, "ROWS", 3)
    found = theta_of("kid", x, y, groups=4)
    assert found.theta == pytest.approx(want.theta, rel=1e-9)
    assert found.twice == pytest.approx(want.twice, rel=1e-9)


def test_kid_is_unbiased():
    # The same distribution, 400 pairs of 20 samples: the mean is 0 within its error.
    rng = np.random.default_rng(1)
    found = [kernel.kid(*(statistics(z) for z in rng.normal(size=(2, 20, 3)))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert np.min(found) < 0


def test_subsets_have_the_same_expectation():
    x, y = pair(80, 60)
    mean, deviation = kernel.subset_kid(statistics(x), statistics(y), 1000, 20)
    assert mean == pytest.approx(brute(x, y), abs=4 * deviation / np.sqrt(1000))
    # Subsets of the whole set are the whole set.
    whole = kernel.subset_kid(statistics(x[:60]), statistics(y), 3, 1000)
    assert whole == pytest.approx((brute(x[:60], y), 0), rel=1e-9, abs=1e-12)
    with pytest.raises(errors.ConfigError, match="subsets=0"):
        kernel.subset_kid(statistics(x), statistics(y), 0)
    with pytest.raises(errors.ConfigError, match=r"size=2 of a subset .* at least 3"):
        kernel.subset_kid(statistics(x), statistics(y), 2, 2)
    assert np.isfinite(kernel.subset_kid(statistics(x), statistics(y), 2, 3)).all()


def test_kid_equals_torch_fidelity():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = pair(60, 60, 8)
    options = {"kid_subsets": 1, "kid_subset_size": 60, "rng_seed": 0, "verbose": False}
    want = theirs.kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), **options)
    found = kernel.kid(statistics(x), statistics(y))
    assert found == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-9)


def test_kid_of_half_floats_and_large_features():
    x, y = (z.astype(np.float16) for z in pair())
    want = brute(x.astype(np.float64), y.astype(np.float64))
    assert kernel.kid(statistics(x), statistics(y)) == pytest.approx(want, rel=1e-9)
    x, y = (300 * z for z in pair())
    assert kernel.kid(statistics(x), statistics(y)) == pytest.approx(brute(x, y), rel=1e-9)


def test_kid_of_two_widths():
    with pytest.raises(errors.DataError, match="real features have D=3 and fake features D=4"):
        kernel.kid(statistics(np.zeros((5, 3))), statistics(np.zeros((5, 4))))


@pytest.mark.parametrize("few", ["real", "fake"])
def test_kid_of_too_few(few):
    x, y = pair(2, 30) if few == "real" else pair(30, 2)
    with pytest.raises(errors.DataError, match=f"kid needs at least 2 .* got 1 of 2 {few}"):
        kernel.kid(statistics(x), statistics(y))


@pytest.mark.parametrize(("d", "shift"), [(8, 0.0), (8, 0.4), (32, 0.1)])
def test_kid_intervals_cover(d, shift):
    # 250 runs: a standard error of 1.4 %. Of 1000 runs with D = 8, 93 % to 95 % covered.
    share = coverage(
        "kid", lambda rng: (rng.normal(size=(300, d)), shift + rng.normal(size=(300, d))), 250
    )
    assert 0.9 <= share <= 0.985


# --- Vendi ---------------------------------------------------------------------------------


def vendi_brute(y):
    z = y / np.linalg.norm(y, axis=1, keepdims=True)
    w = np.linalg.eigvalsh(z @ z.T / len(z))
    w = w[w > 1e-14]
    return float(np.exp(-np.sum(w * np.log(w))))


def score(y):
    return vendi.vendi_score(statistics(y))


@pytest.mark.parametrize(("n", "d"), [(2, 1), (50, 5), (5, 5), (5, 50), (300, 20), (7, 6)])
def test_vendi_equals_brute_force(n, d):
    y = 0.3 + np.random.default_rng(0).normal(size=(n, d))
    assert score(y) == pytest.approx(vendi_brute(y), rel=1e-9)


def test_vendi_counts_what_differs():
    assert score(np.eye(6)) == pytest.approx(6)
    assert score(np.repeat(np.eye(6)[:4], 5, axis=0)) == pytest.approx(4)
    assert score(np.full((30, 4), 2.0)) == pytest.approx(1)
    # Shares 3/4 and 1/4: the entropy's exponential.
    y = np.eye(2)[[0, 0, 0, 1]]
    assert score(y) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_both_ways_agree():
    # Columns of zeros change no cosine, and let K be decomposed instead of ρ.
    y = np.random.default_rng(1).normal(size=(60, 9))
    wide = np.concatenate([y, np.zeros((60, 60))], axis=1)
    assert score(y) == pytest.approx(score(wide), rel=1e-10)


def test_vendi_knows_no_lengths():
    y = np.random.default_rng(2).normal(size=(40, 3))
    lengths = np.random.default_rng(3).uniform(0.1, 10, (40, 1))
    for unit in (lengths, 1e-200, 1e200):
        assert score(unit * y) == pytest.approx(score(y), rel=1e-10)
    half = y.astype(np.float16)
    assert score(half) == pytest.approx(score(half.astype(np.float64)), rel=1e-12)


def test_samples_of_length_zero_are_alike():
    y = np.concatenate([np.eye(3), np.zeros((3, 3))])
    # Shares 1/6, 1/6, 1/6 and 1/2.
    want = np.exp(0.5 * np.log(6) + 0.5 * np.log(2))
    assert score(y) == pytest.approx(want)
    assert score(np.concatenate([y, np.zeros((6, 9))], axis=1)) == pytest.approx(want)


@pytest.mark.parametrize(("n", "d"), [(200, 6), (40, 50)])
def test_vendi_without_groups_is_exact(n, d):
    y = np.random.default_rng(5).normal(size=(n, d))
    found = theta_of("vendi", y[:9], y, groups=8).theta
    assert found.shape == (9, 9)
    assert (found == found[0]).all()
    assert found[0] == pytest.approx(np.array([vendi_brute(z) for z in kept(y, 8, FAKE)]))


def test_unequal_groups_make_no_variance():
    # All different: leaving out 3 or 4 of 39 leaves 36 or 35, which is no noise.
    y = np.eye(39)
    found = theta_of("vendi", y, y, groups=11).theta
    plain = [vendi_brute(z) for z in kept(y, 11, FAKE)[1:]]
    assert set(np.round(plain, 9)) == {35, 36}
    assert np.std(found[0, 1:]) < 0.05 * np.std(plain)


def test_vendi_of_too_few():
    with pytest.raises(errors.DataError, match=r"vendi needs at least 2 samples.*got 1"):
        score(np.ones((1, 3)))


@pytest.mark.parametrize(("n", "d", "low"), [(500, 8, 0.91), (150, 100, 0.91), (80, 100, 0.92)])
def test_vendi_intervals_cover(n, d, low):
    # 200 runs: a standard error of 1.5 %.
    scale = np.geomspace(1, 0.1, d)
    share = coverage("vendi", lambda rng: (np.eye(d), rng.normal(size=(n, d)) * scale), 200)
    assert low <= share <= 0.995
