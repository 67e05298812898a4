"""kNN metrics: data sets × properties, against brute force, the peer, and hand-made corners."""

import subprocess
import sys
import tracemalloc

import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import encoders, groups, prdc


def _gaussians(rng):
    return rng.normal(size=(90, 8)), 0.8 * rng.normal(size=(70, 8)) + 0.3


def _far(rng):
    return rng.normal(size=(40, 3)), rng.normal(size=(50, 3)) + 100


def _lattice(rng):
    # Integers in a small range: most distances tie, many points are duplicates.
    return rng.integers(0, 4, (80, 3)), rng.integers(1, 5, (90, 3))


def _repeats(rng):
    x = rng.integers(-50, 50, (15, 5))
    return x[rng.integers(0, 15, 60)], x[rng.integers(5, 15, 45)]


def _one_dimension(rng):
    return rng.normal(size=(60, 1)), rng.normal(size=(60, 1))


def _outlier(rng):
    real, fake = _gaussians(rng)
    fake[3] = 1e6
    return real, fake


DATA = {f.__name__[1:]: f for f in (_gaussians, _far, _lattice, _repeats, _one_dimension, _outlier)}


@pytest.fixture(params=DATA)
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    return DATA[request.param](np.random.default_rng(len(request.param)))


@pytest.mark.parametrize(("k", "k_dc"), [(3, 5), (1, 2), (7, 3)])
def test_equals_brute_force(pair, k, k_dc):
    assert prdc.prdc(pair[0], pair[1], k, k_dc).values() == pytest.approx(
        oracles.prdc(pair[0], pair[1], k, k_dc), rel=1e-14
    )


def test_radii_equal_brute_force(pair):
    x = pair[0]
    want = np.sqrt(oracles.radii_squared(x, 4))
    np.testing.assert_allclose(prdc.manifold_radii(x, 4, tile=200), want, rtol=1e-9)


def _same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("tile", [1, 97, 1000])
def test_tile_size_changes_nothing(pair, tile):
    _same(prdc.prdc(*pair), prdc.prdc(*pair, tile=tile))
    assert prdc.prdc_with_intervals(*pair) == prdc.prdc_with_intervals(*pair, tile=tile)


def test_offset_and_unit_change_nothing(pair):
    want = prdc.prdc(*pair)
    for scale, offset in ((1, 1e4), (1, -1e7), (1e200, 0), (1e-200, 0), (3.7, 2.0)):
        real, fake = (scale * np.asarray(x, np.float64) + offset for x in pair)
        _same(want, prdc.prdc(real, fake))


def test_order_of_samples_changes_nothing(pair):
    real, fake = pair
    rng = np.random.default_rng(0)
    p, q = rng.permutation(len(real)), rng.permutation(len(fake))
    a, b = prdc.prdc(real, fake), prdc.prdc(real[p], fake[q])
    np.testing.assert_array_equal(a.precise[q], b.precise)
    np.testing.assert_array_equal(a.recalled[p], b.recalled)
    np.testing.assert_array_equal(a.ball_counts[q], b.ball_counts)
    np.testing.assert_array_equal(a.covered[p], b.covered)


def test_recall_is_precision_of_the_other(pair):
    real, fake = pair
    _same(prdc.prdc(real, fake).precise[None], prdc.prdc(fake, real).recalled[None])


def test_a_set_against_itself(pair):
    # d(x, x) = 0 <= any radius. A ball has itself, its k neighbours, and whatever ties.
    x = pair[0]
    got = prdc.prdc(x, x).values()
    assert got["precision"] == got["recall"] == got["coverage"] == 1
    assert got["density"] >= 6 / 5
    if len(np.unique(oracles.squared(x, x))) > len(x) * (len(x) - 1) // 2:
        assert got["density"] == 6 / 5  # no ties: (k+1)/k


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("width", [1, 33, 2048])
def test_constant_and_duplicated_features(dtype, width):
    rng = np.random.default_rng(width)
    c = np.full((20, width), 7.3)
    got = prdc.prdc(c, c[:8], dtype=dtype).values()
    assert got == {"precision": 1, "recall": 1, "density": 20 / 5, "coverage": 1}
    # Six copies of each: every radius is 0, and a ball has just the copies.
    x = np.repeat(rng.normal(size=(30, width)), 6, axis=0)
    got = prdc.prdc(x, x[rng.permutation(180)], tile=1000, dtype=dtype).values()
    assert got == {"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1}
    assert not prdc.manifold_radii(x, 5, dtype=dtype).any()
    assert prdc.manifold_radii(x, 6, dtype=dtype).all()


def test_hand_computed_line():
    # k = 1. Reals 0, 1, 3: radii 1, 1, 2; balls [-1, 1], [0, 2], [1, 5].
    # Fakes 1.5 and 6: radii 4.5 both; balls [-3, 6] and [1.5, 10.5].
    # 1.5 lies in two real balls and 6 in none; all reals lie in the ball of 1.5; ball 1 is not
    # covered, balls 2 and 3 are by 1.5.
    got = prdc.prdc([[0], [1], [3]], [[1.5], [6]], k=1, k_dc=1)
    np.testing.assert_array_equal(got.precise, [True, False])
    np.testing.assert_array_equal(got.ball_counts, [2, 0])
    np.testing.assert_array_equal(got.recalled, [True, True, True])
    np.testing.assert_array_equal(got.covered, [False, True, True])
    assert got.values() == {"precision": 0.5, "recall": 1, "density": 1, "coverage": 2 / 3}
    # At the edge of a ball, d = radius is inside: 5 is in [1, 5].
    assert prdc.prdc([[0], [1], [3]], [[5], [9]], k=1, k_dc=1).precision == 0.5


@pytest.mark.peer
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [3, 5])
def test_equals_the_prdc_package(dtype, k, capsys):
    peer = pytest.importorskip("prdc")
    rng = np.random.default_rng(k)
    real = rng.normal(size=(300, 16)).astype(dtype)
    fake = (0.7 * rng.normal(size=(250, 16)) + 0.4).astype(dtype)
    want = peer.compute_prdc(real, fake, nearest_k=k)
    counts = {"precision": 250, "recall": 300, "density": 250 * k, "coverage": 300}
    got = prdc.prdc(real, fake, k, k).values()
    for name, total in counts.items():
        assert round(got[name] * total) == round(want[name] * total), name
        assert got[name] == pytest.approx(want[name], rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.float32, "bfloat16"])
def test_narrow_dtypes(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = getattr(ml_dtypes, dtype) if isinstance(dtype, str) else dtype
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 120, (50, 6)).astype(dtype) for _ in range(2))
    exact = [np.asarray(x, np.float64).astype(int) for x in (real, fake)]
    assert prdc.prdc(real, fake).values() == pytest.approx(oracles.prdc(exact[0], exact[1], 3, 5))


def test_float32_products_agree_on_plain_data():
    real, fake = _gaussians(np.random.default_rng(9))
    assert prdc.prdc(real, fake, dtype=np.float32).values() == prdc.prdc(real, fake).values()


def test_memory_is_bounded_by_the_tile():
    x = np.random.default_rng(0).normal(size=(3000, 4))
    tracemalloc.start()
    prdc.prdc_with_intervals(x, x[::-1], tile=30_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 3000² float64 are 72 MB; G·k neighbours and G indicators of each sample are about 8 MB.
    assert peak < 20e6


def test_groups_left_out_are_as_if_never_drawn(pair):
    # θ[g, h] against the plain metric of the sets without the groups.
    real, fake = (np.asarray(x, np.float64) for x in pair)
    cuts = groups.cut(len(real), 7), groups.cut(len(fake), 5)
    _, theta = prdc._count((real, fake), cuts, 3, 5, 500, np.float64)
    for g in range(8):
        for h in range(6):
            a = np.delete(real, np.r_[slice(*cuts[0][g - 1 : g + 1])], axis=0) if g else real
            b = np.delete(fake, np.r_[slice(*cuts[1][h - 1 : h + 1])], axis=0) if h else fake
            want = prdc.prdc(a, b).values()
            assert {m: theta[m][g, h] for m in want} == pytest.approx(want, rel=1e-12), (g, h)


def test_intervals_have_the_plain_values(pair):
    got = prdc.prdc_with_intervals(*pair, seed=3)
    assert {m: e.value for m, e in got.items()} == pytest.approx(prdc.prdc(*pair).values())
    for name, e in got.items():
        assert 0 <= e.low <= e.value <= e.high
        assert name == "density" or e.high <= 1
        assert e.high > e.low  # also at 0 and 1
    assert [got[m].k for m in prdc.METRICS] == [3, 3, 5, 5]
    few = prdc.prdc_with_intervals(*pair, seed=3, names=("recall",))
    assert few == {"recall": got["recall"]}


def test_sorted_samples_have_the_same_intervals():
    # Sorted by class, say: were the groups taken in order, each would be a mode of its own.
    rng = np.random.default_rng(4)
    sets = [6 * np.eye(10)[np.arange(400) % 10] + rng.normal(size=(400, 10)) for _ in range(2)]
    order = np.argsort(np.arange(400) % 10, kind="stable")
    cuts = range(4)  # a width varies by chance with the cut into groups
    one = [prdc.prdc_with_intervals(sets[0], sets[1], seed=s) for s in cuts]
    two = [prdc.prdc_with_intervals(sets[0][order], sets[1][order], seed=s) for s in cuts]
    for name in prdc.METRICS:
        assert one[0][name].value == pytest.approx(two[0][name].value)
        widths = [np.mean([x[name].high - x[name].low for x in found]) for found in (one, two)]
        assert 0.6 < widths[0] / widths[1] < 1.6, name


@pytest.mark.parametrize(
    ("shift", "scale", "width"), [(0.5, 1.0, 8), (0.0, 0.75, 12)], ids=["shifted", "narrowed"]
)
def test_intervals_cover(shift, scale, width):
    # The expectation at these sizes is taken as the mean of the replicates, 95 % are asked
    # for. Of 60, 52 (.867) is three binomial standard deviations below 57; that the intervals
    # are not far too wide is guarded by their width, in units of the true one.
    rng = np.random.default_rng(11)
    found = []
    for _ in range(60):
        real, fake = rng.normal(size=(400, width)), scale * rng.normal(size=(400, width))
        fake[:, 0] += shift
        found.append([e[:3] for e in prdc.prdc_with_intervals(real, fake).values()])
    value, low, high = np.moveaxis(np.array(found), 2, 0)
    truth = value.mean(axis=0)
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    ratio = (high - low).mean(axis=0) / (2 * 1.96 * value.std(axis=0, ddof=1))
    assert (covered >= 52 / 60).all(), covered
    assert (ratio > 0.9).all(), ratio
    assert (ratio < 2.4).all(), ratio


GOOD = np.random.default_rng(0).normal(size=(20, 3))


def _with(value, rows):
    x = GOOD.copy()
    x[rows, 1] = value
    return x


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (_with(np.nan, [4, 9]), GOOD, r"real features .* in 2 of 20 rows, first in row 4"),
        (GOOD, _with(np.inf, [7]), r"fake features .* in 1 of 20 rows, first in row 7"),
        (GOOD, GOOD[:, :2], r"D=3 and fake features D=2.*same encoder"),
        (GOOD[:, 0], GOOD, r"real features must be \(N, D\), got shape \(20,\)"),
        (GOOD, GOOD.reshape(5, 4, 3), r"\(N, D\), got shape \(5, 4, 3\)"),
        (GOOD[:2], GOOD, r"k_dc=5 needs at least 6 samples, got 2 real and 20 fake"),
        (GOOD, GOOD[:0], r"needs at least 6 samples, got 20 real and 0 fake"),
        (GOOD, GOOD[:, :0], "no columns"),
        (GOOD, GOOD.astype(complex), "real numbers, got dtype complex128"),
        (GOOD.astype(str), GOOD, "real numbers"),
    ],
)
def test_bad_features(real, fake, message):
    for metric in (prdc.prdc, prdc.prdc_with_intervals):
        with pytest.raises(errors.DataError, match=message):
            metric(real, fake)


def test_too_few_samples():
    with pytest.raises(errors.DataError, match="k=3 needs at least 4 samples, got 2 real"):
        prdc.prdc(GOOD[:2], GOOD, k=3, k_dc=3)
    with pytest.raises(errors.DataError, match="k=20 needs at least 21 samples, got 20 feature"):
        prdc.manifold_radii(GOOD, 20)
    assert np.isfinite(prdc.manifold_radii(GOOD, 19)).all()
    assert prdc.prdc(GOOD[:6], GOOD[:6]).precision == 1
    # An interval leaves samples out: one more is needed, and is enough.
    with pytest.raises(errors.DataError, match="needs at least 6 samples when a group is left"):
        prdc.prdc_with_intervals(GOOD[:6], GOOD)
    assert prdc.prdc_with_intervals(GOOD[:7], GOOD)["recall"].value == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"k": 0}, "k=0 must be a whole number >= 1"),
        ({"k": 2.5}, "k=2.5"),
        ({"k_dc": -1}, "k_dc=-1"),
        ({"k": True}, "k=True"),
        ({"tile": 0}, "tile=0"),
        ({"dtype": np.float16}, "float32 or float64"),
        ({"level": 1.0}, r"level=1.0 .* between 0 and 1"),
        ({"level": float("nan")}, "level=nan"),
        ({"groups": 1}, "groups=1"),
        ({"names": ["recal"]}, "unknown metric 'recal'. Did you mean 'recall'?"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(errors.ConfigError, match=message):
        prdc.prdc_with_intervals(GOOD, GOOD, **setting)


def test_import_needs_neither_jax_nor_sklearn():
    code = (
        "import sys, prpr.metrics, prpr.metrics.encoders;"
        "sys.exit(bool({'jax', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- encoders --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 8 - 1).astype(np.float32).reshape(-1, 8, 8, 1)
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@pytest.fixture(scope="module")
def classifier(digits):
    return encoders.fit("classifier", *digits[0], seed=1, held_out=digits[1])


def test_pixels_flatten(digits):
    enc = encoders.fit("pixels", *digits[0])
    assert enc.name == "pixels"
    assert enc.accuracy is None
    got = enc.encode(digits[1][0])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, digits[1][0].reshape(797, 64))


def test_classifier_knows_the_digits(classifier, digits):
    got = classifier.encode(digits[0][0])
    assert got.shape == (1000, 32)
    assert got.dtype == np.float32
    assert classifier.name == "classifier(train split, 64-32 MLP)"
    assert classifier.accuracy > 0.88  # 10 classes: chance is .1
    alive = got.std(axis=0) > 0
    assert alive.sum() >= 16
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-4)
    assert got.std(axis=0).max() == pytest.approx(1, abs=1e-3)
    # The features separate classes: nearest neighbours of held-out digits agree in class.
    test, labels = classifier.encode(digits[1][0]), digits[1][1]
    near = oracles.squared(test[:100], got).argmin(axis=1)
    assert (digits[0][1][near] == labels[:100]).mean() > 0.85


def test_classifier_is_deterministic_in_its_seed(digits):
    (x, y), _ = digits
    small = x[:200], y[:200]
    one, two, other = (encoders.fit("classifier", *small, seed=s).encode(x) for s in (5, 5, -6))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0.1


def test_classifier_of_two_classes_and_gaps_in_labels(digits):
    (x, y), _ = digits
    some = (y == 3) | (y == 8)
    enc = encoders.fit("classifier", x[some], y[some], held_out=(x[some], y[some]))
    assert enc.accuracy is not None
    assert enc.accuracy > 0.95


def test_bad_encoders(classifier, digits):
    (x, y), _ = digits
    with pytest.raises(
        errors.ConfigError, match=r"unknown encoder 'pixel'\. Did you mean 'pixels'"
    ):
        encoders.get("pixel")
    with pytest.raises(errors.DataError, match=r"shape \(3, 28, 28, 1\).*fitted on \(N, 8, 8, 1"):
        classifier.encode(np.zeros((3, 28, 28, 1)))
    with pytest.raises(errors.DataError, match="1 of 2, first in image 1"):
        classifier.encode(np.stack([x[0], np.full_like(x[0], np.nan)]))
    with pytest.raises(errors.DataError, match="at least 2 classes among its 50"):
        encoders.fit("classifier", x[:50], np.zeros(50, int))
    with pytest.raises(errors.DataError, match="one label per image, got 50 images"):
        encoders.fit("classifier", x[:50], y[:49])
