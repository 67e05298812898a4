"""Statistics files, groups, and the registry that measures and compares by name."""

import json

import numpy as np
import pytest

from prpr import errors, metrics
from prpr.metrics import family, groups, intervals, registry


def _set(seed, n=60, d=4, shift=0.0, **more):
    rng = np.random.default_rng(seed)
    return metrics.statistics(rng.normal(shift, 1, (n, d)).astype(np.float32), **more)


# --- statistics ---------------------------------------------------------------------------------


def test_moments_are_numpys():
    x = np.random.default_rng(0).normal(size=(500, 7)) * 3 + 1e4
    mean, cov = metrics.moments(x, rows=64)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-12)


def test_moments_of_one_sample_have_no_spread():
    mean, cov = metrics.moments(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1, 2]
    assert not cov.any()


def test_a_file_gives_back_what_it_was_given(tmp_path):
    probabilities = np.full((60, 3), 1 / 3, np.float32)
    about = {"resize": "clean", "skipped": 2}
    one = _set(0, encoder="e", labels=np.arange(60) % 3, probabilities=probabilities, about=about)
    metrics.save(tmp_path / "a.npz", one)
    two = metrics.load(tmp_path / "a.npz")
    for name in ("features", "labels", "probabilities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert two.features.dtype == np.float32
    assert (two.n, two.width, two.encoder, two.about) == (60, 4, "e", about)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_of_moments_alone(tmp_path):
    one = _set(0)
    np.savez(tmp_path / "published.npz", mu=one.moments[0], sigma=one.moments[1])
    two = metrics.load(tmp_path / "published.npz")
    np.testing.assert_allclose(two.moments[1], one.moments[1])
    with pytest.raises(errors.DataError, match="real statistics hold mu and sigma alone"):
        metrics.measure(["precision"], two, one)
    metrics.save(tmp_path / "again.npz", two)
    np.testing.assert_array_equal(metrics.load(tmp_path / "again.npz").moments[0], two.moments[0])


def test_taking_rows_takes_everything():
    one = _set(0, labels=np.arange(60) % 3)
    some = one.take(one.labels == 1)
    assert some.n == 20
    assert set(some.labels) == {1}
    np.testing.assert_array_equal(some.features, one.features[1::3])


X = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("features", "more", "message"),
    [
        (np.zeros(3), {}, r"must be \(N, D\), got shape \(3,\)"),
        (np.zeros((0, 2)), {}, "hold no sample"),
        (np.zeros((3, 0)), {}, "no columns"),
        (np.array([[0.0], [np.nan], [np.inf]]), {}, "in 2 of 3 rows, first in row 1"),
        (np.zeros((3, 2), complex), {}, "complex128"),
        (X, {"labels": [1, 2]}, "3 integers"),
        (X, {"labels": [0.5, 1, 2]}, "3 integers"),
        (X, {"probabilities": np.ones((2, 2))}, r"\(3, C\) floats"),
        (X, {"probabilities": np.ones((3, 2))}, "sum is 2: give softmax outputs"),
        (X, {"probabilities": np.array([[2.0, -1.0]] * 3)}, "none in 3 rows"),
    ],
)
def test_bad_statistics(features, more, message):
    with pytest.raises(errors.DataError, match=message):
        metrics.statistics(features, **more)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "holds x; statistics need 'features'"),
        ({"mu": X[0], "sigma": X}, r"must be \(D,\) and \(D, D\)"),
        ({"mu": X[0], "sigma": np.array([[1.0, 2.0], [0.0, 1.0]])}, "not symmetric"),
        ({"mu": X[0], "sigma": np.full((2, 2), np.nan)}, "NaN or infinity"),
        ({"features": X, "about": np.frombuffer(b"{", np.uint8)}, "no JSON"),
        ({"features": np.array([["a"]])}, "must be real numbers"),
    ],
)
def test_bad_files(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(errors.DataError, match=message):
        metrics.load(tmp_path / "a.npz")


def test_missing_truncated_and_pickled_files(tmp_path):
    with pytest.raises(errors.DataError, match="no file"):
        metrics.load(tmp_path / "none.npz")
    metrics.save(tmp_path / "a.npz", _set(0))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "object.npz", features=np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "text.npz").write_text("text")
    for name in ("half.npz", "object.npz", "array.npy", "text.npz"):
        with pytest.raises(errors.DataError, match=f"{name} is no whole .npz"):
            metrics.load(tmp_path / name)


def test_a_full_disk_leaves_nothing(small_disk):
    big = metrics.statistics(np.random.default_rng(0).normal(size=(4000, 400)))
    with pytest.raises(errors.DataError, match="cannot write"):
        metrics.save(small_disk / "a.npz", big)
    assert not list(small_disk.iterdir())


# --- groups -------------------------------------------------------------------------------------


def test_groups_cut_everything_once():
    one = groups.split(23, 5, seed=1, side=groups.REAL)
    assert sorted(one.order) == list(range(23))
    assert one.sizes.tolist() == [4, 5, 4, 5, 5]
    for g in range(5):
        assert set(np.flatnonzero(one.labels() == g)) == set(one.order[one.cut[g] : one.cut[g + 1]])
    assert len(groups.split(3, 5, 0, groups.FAKE).cut) == 4


def test_groups_depend_on_size_seed_and_side_alone():
    def order(*args):
        return groups.split(*args).order.tolist()

    assert order(50, 5, 1, groups.REAL) == order(50, 5, 1, groups.REAL)
    assert order(50, 5, 1, groups.REAL) != order(50, 5, 2, groups.REAL)
    assert order(50, 5, 1, groups.REAL) != order(50, 5, 1, groups.FAKE)


@pytest.mark.parametrize("bad", [1, 2.5, True])
def test_bad_groups(bad):
    with pytest.raises(errors.ConfigError, match="whole number >= 2"):
        groups.split(9, bad, 0, groups.REAL)


# --- the registry -------------------------------------------------------------------------------


def _mean_family(calls):
    """The difference of means, whose interval and comparison are Welch's and the paired ones."""

    def without(x, cut):
        labels = cut.labels()
        return [x.mean()] + [x[labels != g].mean() for g in range(len(cut.cut) - 1)]

    def replicates(real, fake, names, options):
        calls.append(names)
        a = without(real.features[:, 0], groups.split(real.n, options.groups, 0, groups.REAL))
        b = without(fake.features[:, 0], groups.split(fake.n, options.groups, 0, groups.FAKE))
        theta = np.asarray(b)[None] - np.asarray(a)[:, None]
        return {name: intervals.Replicates(theta, 1, "real", notes=("a note",)) for name in names}

    return family.Family("means", ("mean", "mean2"), {"mean", "mean2"}.__contains__, replicates)


@pytest.fixture
def mean_family(monkeypatch):
    calls = []
    known = registry.families()
    monkeypatch.setattr(registry, "families", lambda: (*known, _mean_family(calls)))
    return calls


def test_one_computation_a_family_and_the_order_asked_for(mean_family):
    got = metrics.measure(["mean2", "recall", "mean", "recall"], _set(0), _set(1))
    assert list(got.metrics) == ["mean2", "recall", "mean"]
    assert mean_family == [("mean2", "mean")]
    assert got.warnings == ("a note",)
    json.dumps({name: one._asdict() for name, one in got.metrics.items()})


def test_an_interval_of_means_is_welchs(mean_family):
    real, fake = _set(0, n=40, d=1), _set(1, n=40, d=1, shift=0.5)
    got = metrics.measure(["mean"], real, fake, metrics.Options(groups=40)).metrics["mean"]
    error = np.sqrt(sum(s.features.var(ddof=1) / 40 for s in (real, fake)))
    assert got.high - got.value == pytest.approx(error * intervals.quantile(0.95, 78), rel=0.02)
    assert got.value - got.low == pytest.approx(got.high - got.value)


def test_what_both_owe_to_the_real_sample_leaves_a_comparison(mean_family):
    real = _set(0, n=40, d=1)
    a, b = _set(1, n=400, d=1, shift=0.5), _set(2, n=400, d=1)
    got = metrics.compare(["mean"], real, a, b, metrics.Options(groups=40)).metrics["mean"]
    x, y = a.features[:, 0], b.features[:, 0]
    error = np.sqrt(x.var(ddof=1) / 400 + y.var(ddof=1) / 400)  # of the fakes alone
    assert got.difference == pytest.approx(x.mean() - y.mean())
    assert got.high - got.difference == pytest.approx(2 * error, rel=0.3)
    assert got.p < 1e-3
    same = metrics.compare(["mean"], real, a, a).metrics["mean"]
    assert same.difference == 0
    assert same.low < 0 < same.high
    assert same.p == 1


def test_replicates_of_two_cuts_cannot_be_compared():
    one, two = (intervals.Replicates(np.zeros((g, g)), 9) for g in (5, 6))
    with pytest.raises(ValueError, match="4 and 5 groups"):
        intervals.compare(one, two)


def test_paired_intervals_of_precision_cover():
    """Two models on one reference: 0 lies in the 95 % interval of their equal precisions."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(60):
        real, a, b = (metrics.statistics(rng.normal(size=(200, 6))) for _ in range(3))
        got = metrics.compare(["precision"], real, a, b).metrics["precision"]
        inside += got.low <= 0 <= got.high
    assert inside >= 53  # 57 expected; 52 or fewer have probability 0.02 at 95 % coverage


def test_names_widths_and_encoders_must_fit():
    with pytest.raises(errors.ConfigError, match="Did you mean 'precision'"):
        metrics.measure(["precison"], _set(0), _set(1))
    with pytest.raises(errors.DataError, match="D=4 and fake features D=3"):
        metrics.measure(["precision"], _set(0), _set(1, d=3))
    with pytest.raises(errors.DataError, match="'given features' and fake ones from 'e'"):
        metrics.measure(["precision"], _set(0), _set(1, encoder="e"))
    with pytest.raises(errors.ConfigError, match="level"):
        metrics.measure(["precision"], _set(0), _set(1), metrics.Options(level=95))
