"""Exact neighbours: kinds of data × tiles against brute force; bounds, ties, memory, devices."""

import gc
import subprocess
import sys
import tracemalloc

import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import distances, neighbours, registry, screening
from prpr.metrics.distances import Points
from prpr.metrics.family import Options
from prpr.metrics.screening import Host, Screen
from prpr.metrics.statistics import statistics


def _gaussians(rng):
    return rng.normal(size=(150, 8)), rng.normal(size=(120, 8))


def _wide(rng):
    # As wide as float32 products are taken for.
    return tuple(rng.normal(size=(n, 128)).astype(np.float32) for n in (150, 120))


def _half(rng):
    return tuple(rng.normal(size=(n, 100)).astype(np.float16) for n in (150, 120))


def _lattice(rng):
    return rng.integers(0, 4, (150, 3)), rng.integers(0, 4, (120, 3))


def _bits(rng):
    # Distances are roots of whole numbers: ties on both sides of any k.
    return tuple(rng.integers(0, 2, (n, 70)) for n in (150, 120))


def _constant(rng):
    return np.full((150, 100), 7.3), np.full((120, 100), 7.3)


def _copies(rng):
    return tuple(np.repeat(rng.normal(size=(n // 10, 100)), 10, axis=0) for n in (150, 120))


def _clusters(rng):
    # Neighbours lie at 1e-3, clusters at 100: float32 products see clusters alone.
    centres = 10 * rng.normal(size=(3, 100))
    return tuple(
        centres[rng.integers(0, 3, n)] + 1e-4 * rng.normal(size=(n, 100)) for n in (150, 120)
    )


def _line(rng):
    way = rng.normal(size=(1, 100))
    return tuple(rng.normal(size=(n, 1)) * way for n in (150, 120))


def _offset(rng):
    return tuple(1e4 + rng.normal(size=(n, 100)) for n in (150, 120))


def _huge(rng):
    return tuple(1e200 * rng.normal(size=(n, 90)) for n in (150, 120))


def _tiny(rng):
    return tuple(1e-200 * rng.normal(size=(n, 90)) for n in (150, 120))


def _outlier(rng):
    x, y = _wide(rng)
    y[7] = 1e12
    return x, y


def _end_of_float64(rng):
    # Two of them have no sum, so no plain mean.
    return tuple(1.6e308 * (1 - 1e-3 * rng.uniform(size=(n, 90))) for n in (150, 120))


def _one_dimension(rng):
    return rng.normal(size=(150, 1)), rng.normal(size=(120, 1))


KINDS = (
    _gaussians,
    _wide,
    _half,
    _lattice,
    _bits,
    _constant,
    _copies,
    _clusters,
    _line,
    _offset,
    _huge,
    _tiny,
    _end_of_float64,
    _outlier,
    _one_dimension,
)


@pytest.fixture(params=KINDS, ids=lambda f: f.__name__[1:])
def pair(request):
    return request.param(np.random.default_rng(5))


def _sorted(d, k):
    return np.sort(d, axis=1)[:, :k]


@pytest.mark.parametrize("tile", [None, 64, 37])
def test_equals_brute_force(pair, tile):
    x, y = pair
    real, fake = statistics(x), statistics(y)
    scale = float(np.max(np.abs(x.astype(np.float64))))
    scale = 1.0 if 1e-100 < scale < 1e100 else scale
    close = {"rtol": 1e-12, "atol": 0}
    x, y = x.astype(np.float64) / scale, y.astype(np.float64) / scale
    own, across = oracles.distances(x, x), oracles.distances(x, y)
    np.fill_diagonal(own, np.inf)

    near = neighbours.within(real, 5, tile=tile)
    np.testing.assert_allclose(near.distances / scale, _sorted(own, 5), **close)
    assert not (near.indices == np.arange(len(x))[:, None]).any()
    found = np.take_along_axis(own, near.indices, axis=1)
    np.testing.assert_allclose(near.distances / scale, found, **close)
    assert (np.diff(np.sort(near.indices, axis=1), axis=1) > 0).all()

    for one, d in zip(neighbours.across(real, fake, 6, tile=tile), (across, across.T), strict=True):
        np.testing.assert_allclose(one.distances / scale, _sorted(d, 6), **close)
        found = np.take_along_axis(d, one.indices, axis=1)
        np.testing.assert_allclose(one.distances / scale, found, **close)

    for a, b, d in ((real, fake, across), (fake, real, across.T)):
        radii = neighbours.within(a, 3, tile=tile).distances[:, -1]
        inside = np.zeros(d.shape, int)
        for i, j, got in neighbours.inside(a, b, radii, tile=tile):
            np.add.at(inside, (i, j), 1)
            np.testing.assert_allclose(got / scale, d[i, j], **close)
        closed = neighbours.closed(a, radii) / scale
        np.testing.assert_array_equal(inside, d <= closed[:, None])


def test_distances_beyond_float64_are_refused():
    x = 1.6e308 * np.random.default_rng(0).choice([-1.0, 1.0], (30, 2))
    with pytest.raises(errors.DataError, match=r"as large as 1\.6e\+308 .* divide all of them"):
        neighbours.within(statistics(x), 3)


def test_products_that_are_no_numbers_are_refused(monkeypatch):
    product = Host.product

    def broken(self, right, own):
        product(self, right, own)
        self._s[7] = np.nan

    monkeypatch.setattr(Host, "product", broken)
    with pytest.raises(errors.DataError, match="sample 7 has fewer than 18 neighbours at a finite"):
        neighbours.within(statistics(_gaussians(np.random.default_rng(0))[0]), 5)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_bound_of_the_products_holds_with_room(backend):
    from prpr.metrics.accelerated import Devices

    tiles = Host if backend == "numpy" else Devices
    # Random, aligned (all terms of one sign, the worst for a sum), near copies, sparse.
    rng = np.random.default_rng(1)
    for width in (65, 300, 2048, 5000):
        for make in (
            lambda shape: rng.normal(size=shape),
            lambda shape: (
                rng.uniform(0.9, 1.1, size=shape) * np.sign(rng.normal(size=shape[0]))[:, None]
            ),
            lambda shape: rng.normal(size=(1, shape[1])) + 1e-3 * rng.normal(size=shape),
            lambda shape: rng.normal(size=shape) * (rng.uniform(size=shape) < 0.02),
            lambda shape: np.full(shape, 0.1) * rng.integers(1, 4, size=(shape[0], 1)),
        ):
            x, y = (make((40, width)).astype(np.float32) for _ in range(2))
            a, b = Points(x), Points(y)
            for offset in (0, 3):
                a.centre = a.centre + offset  # a poor centre makes large numbers of small ones
                screen = Screen(a, b, tiles(width))
                assert screen.tiles.dtype == np.float32
                everything = (np.full(40, np.inf, np.float32), None)
                ((i, j, s),) = screen.sweep(limits=everything)
                d = distances.exact(a, i, b, j)
                allowed = screen.frame.beta * (screen.norms_a[i] + screen.norms_b[j])
                assert (np.abs(s - d**2) <= 0.5 * (allowed + screen.frame.floor)).all()
                lower, upper = screen.bounds(i, j, s)
                assert ((lower <= d) & (d <= upper)).all()


@pytest.mark.parametrize("width", [2048, 4096])
def test_bound_holds_in_whatever_order_a_device_adds(width, monkeypatch):
    # One term after the other; equal terms are all rounded the same way.
    import jax
    import jax.numpy as jnp

    from prpr.metrics import accelerated

    def one_by_one(left, right, *_, **__):
        zero = jnp.zeros((len(left), len(right)), jnp.float32)
        return jax.lax.scan(
            lambda s, one: (s + one[0][:, None] * one[1][None, :], None), zero, (left.T, right.T)
        )[0]

    monkeypatch.setattr(jax.lax, "dot_general", one_by_one)
    monkeypatch.setattr(accelerated, "check", lambda _: None)
    monkeypatch.setattr(accelerated, "_programs", accelerated._programs.__wrapped__)
    rng = np.random.default_rng(0)
    values = rng.uniform(0.05, 1, size=(40, 1)).astype(np.float32)
    points = Points(np.broadcast_to(values, (40, width)))
    points.centre = np.zeros(width)
    used = []
    for columns in (accelerated.chunk, lambda width: width):
        monkeypatch.setattr(accelerated, "chunk", columns)
        screen = Screen(points, points, accelerated.Devices(width))
        ((i, j, s),) = screen.sweep(limits=(np.full(40, np.inf, np.float32), None))
        error = np.abs(s - distances.exact(points, i, points, j) ** 2)
        allowed = screen.frame.beta * (screen.norms_a[i] + screen.norms_b[j])
        used.append((error / allowed).max())
    # Whole sums would be outside.
    assert used[0] < 0.5
    assert used[1] > 1


def _near_ties(n=60, width=256):
    """Real samples far apart, and fakes at their radius times 1 ± 1e-7 (float32 has 6e-8)."""
    rng = np.random.default_rng(2)
    x = 30 * rng.normal(size=(n, width))
    radii = neighbours.within(statistics(x), 1).distances[:, 0]
    way = rng.normal(size=(n, width))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    side = np.where(np.arange(n) % 2, 1 - 1e-7, 1 + 1e-7)
    return x, x + (radii * side)[:, None] * way, radii


def test_near_ties_are_decided_in_float64():
    x, y, radii = _near_ties()
    real, fake = statistics(x), statistics(y)
    ((i, j, _),) = neighbours.inside(real, fake, radii)
    own = i == j
    np.testing.assert_array_equal(np.sort(i[own]), np.arange(1, 60, 2))


def test_near_ties_need_the_verification():
    # By the middle of the products' bounds alone, what is inside is a matter of rounding.
    x, y, radii = _near_ties()
    parts = list(neighbours.pairs(statistics(x), statistics(y), (radii, None)))
    i, j, d = (
        np.concatenate(one)
        for one in zip(*((p.i, p.j, (p.lower + p.upper) / 2) for p in parts), strict=True)
    )
    own = i == j
    assert ((d[own] <= radii[i[own]]) != (i[own] % 2 == 1)).sum() > 5


def test_what_float32_leaves_open_is_looked_at_again(monkeypatch):
    # Clusters need float64 products, ties need everything verified; gaussians need neither.
    tried = []
    again = neighbours._again

    def spy(screen, least, *rest):
        tried.append((screen.tiles.dtype.name, len(least)))
        return again(screen, least, *rest)

    monkeypatch.setattr(neighbours, "_again", spy)
    rng = np.random.default_rng(3)
    neighbours.within(statistics(_wide(rng)[0]), 5)
    assert sum(rows for _, rows in tried) < 10
    tried.clear()
    neighbours.within(statistics(_clusters(rng)[0]), 5)
    assert tried == [("float32", 150)]
    tried.clear()
    neighbours.within(statistics(_bits(rng)[0]), 5)
    assert {name for name, _ in tried} == {"float32", "float64"}


def _long(rng):
    # Digits beyond float64: were one of two features cast, its distance to itself would not be 0.
    return tuple(x.astype(np.longdouble) / 3 for x in _gaussians(rng))


@pytest.mark.parametrize(
    "kind", [_wide, _half, _bits, _long], ids=["float32", "float16", "int", "longdouble"]
)
def test_distance_is_symmetric_and_its_own(kind):
    x, y = (Points(x) for x in kind(np.random.default_rng(4)))
    i, j = (z.ravel() for z in np.meshgrid(np.arange(150), np.arange(120), indexing="ij"))
    d = distances.exact(x, i, y, j)
    np.testing.assert_array_equal(d, distances.exact(y, j, x, i))
    for some in (slice(0, 1), slice(17, 23), slice(None, None, 7)):
        np.testing.assert_array_equal(d[some], distances.exact(x, i[some], y, j[some]))
    np.testing.assert_array_equal(distances.exact(x, i, x, i), 0)


def test_many_pairs_of_few_rows_are_computed_once(monkeypatch):
    monkeypatch.setattr(distances, "_MANY", 1000)
    x, y = (Points(x) for x in _copies(np.random.default_rng(4)))
    assert len(np.unique(x.kinds)) == 15
    i, j = (z.ravel() for z in np.meshgrid(np.arange(150), np.arange(120), indexing="ij"))
    np.testing.assert_array_equal(
        distances.exact(x, i, y, j), distances.exact(x, i, y, j, look=False)
    )
    signed = Points(np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(signed.kinds[0], signed.kinds[1])
    assert signed.kinds[0] != signed.kinds[2]


@pytest.fixture
def passes(monkeypatch):
    """The passes over distances: "own" or "across"."""
    found = []
    sweep = Screen.sweep

    def spy(self, *args, **kwargs):
        found.append("own" if kwargs.get("own") else "across")
        return sweep(self, *args, **kwargs)

    monkeypatch.setattr(Screen, "sweep", spy)
    return found


def test_one_pass_answers_all(passes):
    real, fake = (statistics(x) for x in _gaussians(np.random.default_rng(6)))
    neighbours.within(real, 3)
    neighbours.within(fake, 5)
    neighbours.across(real, fake, 5)
    neighbours.within(real, 15)
    neighbours.across(real, fake, 2)
    list(neighbours.inside(real, fake, neighbours.within(real, 5).distances[:, -1]))
    list(neighbours.inside(fake, real, neighbours.within(fake, 5).distances[:, -1]))
    assert sorted(passes) == ["across", "own", "own"]
    # Farther, or more of them, is another pass.
    list(neighbours.inside(fake, real, np.full(120, 100.0)))
    neighbours.within(fake, 40)
    assert sorted(passes) == ["across", "across", "own", "own", "own"]
    # Unless it was said before.
    passes.clear()
    real, fake = (statistics(x) for x in _gaussians(np.random.default_rng(6)))
    neighbours.expect(real, 40)
    neighbours.expect(real, 20)
    neighbours.expect(fake, 5)
    neighbours.across(real, fake, 1)
    neighbours.within(real, 40)
    neighbours.across(real, fake, 40)
    list(neighbours.inside(fake, real, neighbours.within(fake, 5).distances[:, -1]))
    assert sorted(passes) == ["across", "own", "own"]


def test_no_pass_for_what_nobody_asked(passes):
    real, fake = (statistics(x) for x in _gaussians(np.random.default_rng(6)))
    neighbours.across(real, fake, 5)
    assert passes == ["across"]
    registry.measure(("authenticity",), real, fake)
    assert sorted(passes) == ["across", "own"]
    real, fake = (statistics(x) for x in _gaussians(np.random.default_rng(6)))
    passes.clear()
    registry.measure(("clipped_density",), real, fake)
    assert sorted(passes) == ["across", "own"]
    # The family that comes second looks from the fakes too: the first pass finds that.
    real, fake = (statistics(x) for x in _gaussians(np.random.default_rng(6)))
    passes.clear()
    registry.measure(("clipped_coverage", "recall_symmetric"), real, fake)
    assert sorted(passes) == ["across", "own", "own"]


def test_sets_in_the_other_order_share_what_float64_products_need(monkeypatch):
    made = []
    init = Screen.__init__

    def spy(self, a, b, tiles):
        made.append(tiles.dtype.name)
        init(self, a, b, tiles)

    monkeypatch.setattr(Screen, "__init__", spy)
    monkeypatch.setattr(screening, "_FEW", 10)
    monkeypatch.setattr(neighbours, "_FLUSH", 500)
    x, y = _wide(np.random.default_rng(8))
    real, fake = statistics(x), statistics(y)
    pieces = [
        sum(1 for _ in neighbours.inside(*sets, np.full(sets[0].n, 16.0), tile=30))
        for sets in ((real, fake), (fake, real))
    ]
    assert min(pieces) > 5
    assert made == ["float32", "float64"]


def test_one_sample_with_many_candidates_takes_no_room_for_all():
    rng = np.random.default_rng(0)
    n, k, many = 5000, 18, 1024
    near = screening.Near(n, k, np.float32)
    at = np.concatenate([np.arange(n), np.full(many, 3)])
    s = rng.uniform(size=len(at)).astype(np.float32)
    tracemalloc.start()
    near.add(at, np.arange(len(at)), s)
    near.merge()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # In one piece 5000 × 1042 places would be 105 MB.
    assert peak < 30e6
    own = np.flatnonzero(at == 3)
    want = own[np.argsort(s[own])[:k]]
    assert set(near.index[3]) == set(want)
    assert near.limit[3] == s[want].max()
    others = np.delete(np.arange(n), 3)
    np.testing.assert_array_equal(near.index[others].max(axis=1), others)


def test_what_is_kept_goes_with_the_statistics():
    gc.collect()
    before = len(neighbours._WITHIN), len(neighbours._ACROSS), len(neighbours._POINTS)
    real, fake = (statistics(x) for x in _gaussians(np.random.default_rng(6)))
    neighbours.across(real, fake, 3)
    assert len(neighbours._POINTS) == before[2] + 2
    del real, fake
    gc.collect()
    assert (len(neighbours._WITHIN), len(neighbours._ACROSS), len(neighbours._POINTS)) == before


def test_more_pairs_than_are_kept(monkeypatch):
    sets = _gaussians(np.random.default_rng(7))
    real, fake = (statistics(x) for x in sets)
    radii = np.full(150, 2.0)

    def found(a, b):
        return np.sort(np.concatenate([1000 * i + j for i, j, _ in neighbours.inside(a, b, radii)]))

    want = found(*(statistics(x) for x in sets))
    monkeypatch.setattr(neighbours, "KEPT", 20)
    for _ in range(2):
        np.testing.assert_array_equal(found(real, fake), want)
    assert neighbours._ACROSS[real][fake].reach is None


@pytest.mark.parametrize(
    ("kind", "radius", "verified"),
    [(_wide, 16.0, 0.01), (_clusters, 1.41e-3, 1.0)],
    ids=["products", "differences"],
)
def test_dense_pairs(kind, radius, verified, monkeypatch):
    # So many inside that float64 products decide: they also give d, where it is not cancelled.
    x, y = kind(np.random.default_rng(8))
    d = oracles.distances(x, y)
    real, fake = statistics(x), statistics(y)
    neighbours.across(real, fake, 5)
    monkeypatch.setattr(screening, "_FEW", 100)
    tried, exact = [], Screen.exact
    monkeypatch.setattr(
        Screen, "exact", lambda self, i, j: tried.append(len(i)) or exact(self, i, j)
    )
    ((i, j, got),) = neighbours.inside(real, fake, np.full(150, radius))
    assert len(i) == (d <= radius).sum() > 2000
    np.testing.assert_allclose(got, d[i, j], rtol=1e-9)
    assert sum(tried) <= verified * len(i) + 100


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_memory_maps_are_not_copied(tmp_path, dtype):
    rng = np.random.default_rng(9)
    for name, rows in (("x", 3000), ("y", 2000)):
        np.save(tmp_path / name, rng.integers(0, 200, (rows, 400)).astype(dtype))
    real, fake = (
        statistics(np.load(tmp_path / f"{name}.npy", mmap_mode="r")) for name in ("x", "y")
    )
    tracemalloc.start()
    near = neighbours.across(real, fake, 3, tile=256)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The features are 16 MB in float64; 3000 × 2000 distances are 24 MB in float32.
    assert peak < 9e6
    x, y = (one.needed("test").astype(float) for one in (real, fake))
    want = oracles.distances(x[:5], y)
    np.testing.assert_allclose(near.distances[:5], _sorted(want, 3), rtol=1e-12)


def test_all_in_all_balls_stays_in_memory(monkeypatch):
    monkeypatch.setattr(neighbours, "KEPT", 2**17)
    rng = np.random.default_rng(10)
    real, fake = (statistics(rng.normal(size=(n, 70))) for n in (3000, 2500))
    tracemalloc.start()
    total = sum(len(i) for i, _, _ in neighbours.inside(real, fake, np.full(3000, 99.0), tile=256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3000 * 2500
    # The pairs alone, two indices and a distance, would be 180 MB.
    assert peak < 70e6


def test_closed_radii():
    near = statistics(np.array([[0.0, 3.0], [1e6, 4.0]]))
    got = neighbours.closed(near, np.array([2.0, 0.0]))
    delta = 4 * np.sqrt(2) * 2.0**-52
    assert got == pytest.approx([2 + 5 * delta, 1e6 * delta], rel=1e-15)
    assert neighbours.closed(near, np.array([-np.inf, 1.0]))[0] == -np.inf


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda a, _: neighbours.within(a, 20),
            errors.DataError,
            "k=20 needs at least 21 samples, got 20: give more samples or k of at most 19",
        ),
        (lambda a, _: neighbours.within(a, 0), errors.ConfigError, "k=0 must be a whole number"),
        (lambda a, _: neighbours.within(a, 2, tile=0), errors.ConfigError, "tile=0"),
        (
            lambda a, _: neighbours.within(a, 2, backend="torch"),
            errors.ConfigError,
            "unknown backend 'torch'",
        ),
        (
            lambda a, b: neighbours.across(a, b, 11),
            errors.DataError,
            "k=11 needs at least 11 fake samples, got 10: give more samples or k of at most 10",
        ),
        (lambda a, b: neighbours.nearest(b, a, 11), errors.DataError, "11 real samples, got 10"),
        # Also of what is known.
        (
            lambda a, _: [neighbours.within(a, 2), neighbours.within(a, 2, backend="torch")],
            errors.ConfigError,
            "unknown backend 'torch'",
        ),
        (lambda a, b: list(neighbours.inside(a, b, np.ones(2))), errors.DataError, r"\(20,\)"),
    ],
)
def test_bad_questions(call, kind, message):
    rng = np.random.default_rng(0)
    with pytest.raises(kind, match=message):
        call(*(statistics(rng.normal(size=(n, 3))) for n in (20, 10)))


def test_either_order_and_one_set_twice():
    x, y = _gaussians(np.random.default_rng(12))
    real, fake = statistics(x), statistics(y)
    first = neighbours.across(real, fake, 4)
    for one, two in zip(neighbours.across(fake, real, 4), first[::-1], strict=True):
        np.testing.assert_array_equal(one.distances, two.distances)
        np.testing.assert_array_equal(one.indices, two.indices)
    for one in neighbours.across(real, real, 3):  # a sample is among the other set's
        np.testing.assert_array_equal(one.indices[:, 0], np.arange(150))
        np.testing.assert_array_equal(one.distances[:, 1:], neighbours.within(real, 2).distances)
    near = neighbours.within(real, 1)
    i, j, d = next(neighbours.inside(real, real, near.distances[:, 0]))
    assert len(i) == 300
    assert set(zip(i, j, strict=True)) == {
        *((t, t) for t in range(150)),
        *enumerate(near.indices[:, 0]),
    }
    assert (d[i == j] == 0).all()


def test_progress_is_told():
    told = []
    real = statistics(_gaussians(np.random.default_rng(12))[0])
    neighbours.within(real, 3, tile=60, tick=lambda *x: told.append(x))
    assert told == [(done, 6) for done in range(1, 7)]  # 3 blocks of 50: 3 tiles and 3 halves


def test_fewest_samples():
    one, two = statistics(np.zeros((1, 2))), statistics(np.array([[3.0, 4.0], [0.0, 1.0]]))
    real, fake = neighbours.across(one, two, 1)
    np.testing.assert_array_equal(real.distances, [[1.0]])
    np.testing.assert_array_equal(fake.distances, [[5.0], [1.0]])
    np.testing.assert_array_equal(neighbours.within(two, 1).indices, [[1], [0]])
    np.testing.assert_array_equal(neighbours.nearest(two, one, 2).distances, [[1.0, 5.0]])


_DEVICES = """
import sys
import numpy as np
from prpr.metrics import neighbours, prdc, statistics
import jax
assert len(jax.devices()) == int(sys.argv[1])
rng = np.random.default_rng(0)
x, y = (rng.normal(size=(n, 96)).astype(np.float32) for n in (700, 600))
y[:300] = 0.9 * x[:300]
x[650:], y[550:] = x[0], x[0]  # ties in both sets
found = []
for backend in ("numpy", "jax"):
    a, b = statistics(x), statistics(y)
    options = {"tile": 512, "backend": backend}
    near = neighbours.within(a, 5, **options), *neighbours.across(a, b, 5, **options)
    inside = neighbours.inside(a, b, near[0].distances[:, 4], **options)
    pairs = np.concatenate([np.stack(one) for one in inside], axis=1)
    theta = [one.theta for one in prdc.prdc_replicates(x, y, **options).values()]
    order = np.lexsort(pairs[:2])
    found.append([one.distances for one in near] + [pairs[:, order]] + theta)
for one, two in zip(*found, strict=True):
    np.testing.assert_array_equal(one, two)
"""


@pytest.mark.parametrize("devices", [1, 4])
def test_devices_give_the_same_bits(devices, tmp_path):
    import os

    env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", _DEVICES, str(devices)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("few", [1, 2**14])
def test_devices_with_more_entries_than_were_expected(few, monkeypatch):
    from prpr.metrics import accelerated

    monkeypatch.setattr(accelerated, "_FEW", few)
    monkeypatch.setattr(accelerated, "_MANY", 3000)
    x, y = _wide(np.random.default_rng(11))
    radii = np.full(150, 15.0)
    found = [
        np.sort(
            np.concatenate(
                [
                    1000 * i + j
                    for i, j, _ in neighbours.inside(
                        statistics(x), statistics(y), radii, backend=backend
                    )
                ]
            )
        )
        for backend in ("numpy", "jax")
    ]
    assert 0 < len(found[0]) < 150 * 120
    np.testing.assert_array_equal(found[0], found[1])


def test_products_that_are_not_of_float32_are_refused(monkeypatch):
    import jax
    import jax.numpy as jnp

    from prpr.metrics import accelerated

    def rounded(mesh):
        def product(left, right, own, shape):
            low = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in (left, right)]
            return jnp.matmul(low[0], low[1].T, precision="highest")

        return {"product": product}

    monkeypatch.setattr(accelerated, "_programs", rounded)
    accelerated.check.cache_clear()
    with pytest.raises(errors.ConfigError, match="they are not of float32"):
        accelerated.Devices(64)
    monkeypatch.undo()
    accelerated.check.cache_clear()
    accelerated.check(jax.sharding.Mesh(np.array(jax.local_devices()), ("rows",)))


def test_auto_is_numpy_without_an_accelerator(monkeypatch):
    points = Points(np.zeros((4, 3)))
    monkeypatch.setattr(neighbours, "_LARGE", 0)
    assert type(neighbours._screen(points, points, None, "auto").tiles) is Host
    monkeypatch.setattr("prpr.metrics.accelerated.worthwhile", lambda: True)
    assert type(neighbours._screen(points, points, None, "auto").tiles) is not Host


KNN = (
    "precision",
    "p_precision",
    "clipped_density",
    "clipped_coverage",
    "precision_symmetric",
    "authenticity",
)


@pytest.mark.parametrize("name", KNN)
def test_every_family_computes_where_it_is_told(name, monkeypatch):
    # Heaps of duplicates: the further passes of ties go there too.
    asked = []

    def spy(a, b, tile, backend):
        asked.append(backend)
        return Screen(a, b, Host(a.width, tile))

    monkeypatch.setattr(neighbours, "_screen", spy)
    rng = np.random.default_rng(1)
    real, fake = (statistics(rng.integers(0, 3, (n, 1))) for n in (60, 50))
    registry.measure((name,), real, fake, Options(backend="jax"))
    assert set(asked) == {"jax"}
    with pytest.raises(errors.ConfigError, match="unknown backend 'cuda'"):
        registry.measure((name,), real, fake, Options(backend="cuda"))


def test_a_family_says_what_it_expects(monkeypatch, passes):
    # precision comes first and alone would find 15 neighbours; the curve asks for √(N + M) = 24.
    rng = np.random.default_rng(13)
    real, fake = (statistics(rng.normal(size=(300, 6))) for _ in range(2))
    monkeypatch.setattr(registry, "MODULES", ("prdc", "curves"))
    registry.replicates(("precision", "alpha_knn_2"), real, fake)
    assert len(passes) == 3
