"""kNN metrics: data sets × properties, against brute force, the peer, and hand-made corners."""

import subprocess
import sys
import tracemalloc

import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import Options, groups, measure, prdc, statistics


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
    np.testing.assert_allclose(prdc.manifold_radii(x, 4, tile=20), want, rtol=1e-14)


def _same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("tile", [7, 32, 1000])
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


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("width", [1, 33, 2048])
def test_constant_and_duplicated_features(dtype, width):
    rng = np.random.default_rng(width)
    c = np.full((20, width), 7.3, dtype)
    got = prdc.prdc(c, c[:8]).values()
    assert got == {"precision": 1, "recall": 1, "density": 20 / 5, "coverage": 1}
    # Six copies of each: every radius is 0, and a ball has just the copies.
    x = np.repeat(rng.normal(size=(30, width)), 6, axis=0).astype(dtype)
    got = prdc.prdc(x, x[rng.permutation(180)], tile=30).values()
    assert got == {"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1}
    assert not prdc.manifold_radii(x, 5).any()
    assert prdc.manifold_radii(x, 6).all()


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


@pytest.mark.peer
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equals_torch_fidelity(dtype):
    metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    real = rng.normal(size=(400, 70)).astype(dtype)
    fake = (0.9 * rng.normal(size=(300, 70)) + 0.05).astype(dtype)
    peers = metric_prc.calculate_precision_recall_full, metric_prc.calculate_precision_recall_part
    for k in (3, 5):
        got = prdc.prdc(real, fake, k, k)
        for peer in peers:  # it takes the generated features first
            want = peer(torch.from_numpy(fake), torch.from_numpy(real), neighborhood=k)
            assert (got.precision, got.recall) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.float32, "bfloat16"])
def test_narrow_dtypes(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = getattr(ml_dtypes, dtype) if isinstance(dtype, str) else dtype
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 120, (50, 6)).astype(dtype) for _ in range(2))
    exact = [np.asarray(x, np.float64).astype(int) for x in (real, fake)]
    assert prdc.prdc(real, fake).values() == pytest.approx(oracles.prdc(exact[0], exact[1], 3, 5))


def test_numbers_that_float64_does_not_hold_are_refused():
    if np.finfo(np.longdouble).max == np.finfo(np.float64).max:
        pytest.skip("longdouble is float64 here")
    x = np.ones((9, 2), np.longdouble)
    x[4] = np.longdouble(10) ** 400
    with pytest.raises(errors.DataError, match="infinity in 1 of 9 rows, first in row 4"):
        prdc.manifold_radii(x, 2)


def test_memory_is_bounded_by_the_tile():
    x = np.random.default_rng(0).normal(size=(3000, 4))
    tracemalloc.start()
    prdc.prdc_with_intervals(x, x[::-1], tile=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 3000² float64 are 72 MB; G neighbours' groups and counts of each sample are some 10 MB.
    assert peak < 25e6


def test_groups_left_out_are_as_if_never_drawn(pair):
    # θ[g, h] against the plain metric of the sets without the groups.
    real, fake = (np.asarray(x, np.float64) for x in pair)
    cuts = groups.split(len(real), 5, 3, groups.REAL), groups.split(len(fake), 5, 3, groups.FAKE)
    theta = {m: r.theta for m, r in prdc.prdc_replicates(real, fake, groups=5, seed=3).items()}
    for g in range(6):
        for h in range(6):
            a = real[cuts[0].labels() != g - 1]
            b = fake[cuts[1].labels() != h - 1]
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
        real, fake = rng.normal(size=(500, width)), scale * rng.normal(size=(500, width))
        fake[:, 0] += shift
        found.append([e[:3] for e in prdc.prdc_with_intervals(real, fake).values()])
    value, low, high = np.moveaxis(np.array(found), 2, 0)
    truth = value.mean(axis=0)
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    ratio = (high - low).mean(axis=0) / (2 * 1.96 * value.std(axis=0, ddof=1))
    assert (covered >= 52 / 60).all(), covered
    assert (ratio > 0.9).all(), ratio
    assert (ratio < 2.4).all(), ratio


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "scale", "width"), [(0.5, 1.0, 8), (0.3, 0.9, 64)], ids=["shifted", "64"]
)
def test_intervals_of_precision_and_recall_cover_at_500(shift, scale, width):
    # 92 % to 98 % is what is asked for; a binomial of 400 draws at 95 % has a deviation of 1.1 %.
    rng = np.random.default_rng(17)
    found = []
    for _ in range(400):
        real, fake = rng.normal(size=(500, width)), scale * rng.normal(size=(500, width))
        fake[:, 0] += shift
        got = prdc.prdc_with_intervals(real, fake, names=("precision", "recall"))
        found.append([e[:3] for e in got.values()])
    value, low, high = np.moveaxis(np.array(found), 2, 0)
    truth = value.mean(axis=0)
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    assert (covered >= 0.92).all(), covered
    assert (covered <= 0.98).all(), covered


def test_by_size_shows_the_bias_in_n():
    # Shifted Gaussians: at 4000, 2000, 1000, 500, 250 samples precision is .889, .881, .861,
    # .862, .835.
    rng = np.random.default_rng(1)
    real, fake = (statistics(rng.normal(size=(n, 8))) for n in (2200, 2000))
    fake.needed("fake")[:, 0] += 0.5
    assert list(prdc.by_size(real, fake)) == [2000, 1000, 500]
    got = prdc.by_size(real, fake, (250, 1000, 500))
    assert list(got) == [1000, 500, 250]
    assert prdc.by_size(real, fake, (2000,))[2000]["precision"] > got[250]["precision"] + 0.02
    # Means over all pairs of parts that there are.
    order = np.random.default_rng(0)
    sides = [x.needed("test")[order.permutation(x.n)] for x in (real, fake)]
    cuts = [slice(at, at + 500) for at in (0, 500, 1000, 1500)]
    parts = [prdc.prdc(sides[0][some], sides[1][some]) for some in cuts]
    for name in prdc.METRICS:
        assert got[500][name] == pytest.approx(
            np.mean([x.values()[name] for x in parts]), rel=1e-12
        )
    assert prdc.by_size(real, fake, (500,))[500] == got[500]
    assert prdc.by_size(real, fake, (500,), Options(seed=1))[500] != got[500]
    assert prdc.by_size(real, fake, (500,), Options(k=5))[500]["recall"] > got[500]["recall"]


def test_by_size_of_whole_sets_is_plain(pair):
    real, fake = pair
    n = min(len(real), len(fake))
    got = prdc.by_size(statistics(real[:n]), statistics(fake[:n]), (n,))
    assert got == {n: pytest.approx(prdc.prdc(real[:n], fake[:n]).values(), rel=1e-12)}


@pytest.mark.parametrize("size", [5, 21, 2.5, True])
def test_by_size_of_bad_sizes(size):
    few = statistics(np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(errors.DataError, match=f"size {size!r} .* from 6 .* to 20"):
        prdc.by_size(few, few, (size,))


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
        (
            GOOD[:4],
            GOOD,
            "k_dc=5 needs at least 6 real samples, got 4: give more samples or k_dc of at most 3",
        ),
        (GOOD[:2], GOOD, "k=3, k_dc=5 need at least 6 real .* or k and k_dc of at most 1$"),
        (GOOD, GOOD[:0], "k=3 needs at least 4 fake samples, got 0: give more samples$"),
        (GOOD, GOOD[:, :0], "no columns"),
        (GOOD, GOOD.astype(complex), "real numbers, got dtype complex128"),
        (GOOD.astype(str), GOOD, "real numbers"),
        (GOOD, np.zeros(20, "f8,f8"), "fake features must be real numbers, got dtype .*f0"),
        (np.zeros((20, 3), "V2"), GOOD, r"real numbers, got dtype \|V2"),
        ([[1.0, 2.0], [3.0]], GOOD, "the real features are no array: .*inhomogeneous"),
    ],
)
def test_bad_features(real, fake, message):
    for metric in (prdc.prdc, prdc.prdc_with_intervals):
        with pytest.raises(errors.DataError, match=message):
            metric(real, fake)


def test_too_few_samples():
    with pytest.raises(errors.DataError, match="k=3, k_dc=3 need at least 4 real samples, got 2"):
        prdc.prdc(GOOD[:2], GOOD, k=3, k_dc=3)
    with pytest.raises(errors.DataError, match="k=20 needs at least 21 samples, got 20"):
        prdc.manifold_radii(GOOD, 20)
    assert np.isfinite(prdc.manifold_radii(GOOD, 19)).all()
    assert prdc.prdc(GOOD[:6], GOOD[:6]).precision == 1
    # An interval leaves samples out: one more is needed, and is enough.
    with pytest.raises(errors.DataError, match="6 real samples when one of 6 groups is left out"):
        prdc.prdc_with_intervals(GOOD[:6], GOOD)
    assert prdc.prdc_with_intervals(GOOD[:7], GOOD)["recall"].value == 1
    with pytest.raises(errors.DataError, match="got 4 of 8: give more samples or groups"):
        prdc.prdc_with_intervals(GOOD[:8], GOOD, groups=2)


@pytest.mark.parametrize(
    ("name", "n", "m"),
    [("precision", 5, 2), ("recall", 2, 5), ("density", 7, 2), ("coverage", 7, 2)],
)
def test_a_metric_needs_no_more_samples_than_it_uses(name, n, m):
    for real, fake, few in ((n - 1, m, "real"), (n, m - 1, "fake")):
        with pytest.raises(errors.DataError, match=f"{name}.* needs at least .* {few} sample"):
            prdc.prdc_with_intervals(GOOD[:real], GOOD[:fake], names=(name,))
    found = prdc.prdc_replicates(GOOD[:n], GOOD[:m], names=(name,))
    assert list(found) == [name]
    if name == "coverage":  # the same, asked with fakes enough for all four
        whole = prdc.prdc(GOOD[:n], np.repeat(GOOD[:m], 4, axis=0)).coverage
        assert found[name].theta[0, 0] == whole


@pytest.mark.parametrize(
    "name",
    [
        "recall",
        "p_recall",
        "clipped_coverage",
        "topp",
        "precision_symmetric",
        "precision_complement",
        "authenticity",
    ],
)
def test_one_group_is_told_of_as_such(name):
    some = statistics(np.random.default_rng(0).normal(size=(60, 3)))
    with pytest.raises(errors.ConfigError, match=r"groups=1 of the jackknife must be .* >= 2"):
        measure((name,), some, some, Options(groups=1))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"k": 0}, "k=0 must be a whole number >= 1"),
        ({"k": 2.5}, "k=2.5"),
        ({"k_dc": -1}, "k_dc=-1"),
        ({"k": True}, "k=True"),
        ({"tile": 0}, "tile=0"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
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
        "import sys, prpr.metrics, prpr.encoders;"
        "sys.exit(bool({'jax', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
