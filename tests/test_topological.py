"""TopP and TopR: density, bandwidth and band against slow loops; replicates; directions."""

import tracemalloc

import knn_tools as tools
import metric_oracles as oracles
import numpy as np
import pytest

from prpr import errors
from prpr.metrics import statistics, topological
from prpr.metrics.family import Options
from prpr.metrics.groups import FAKE, REAL, split


def slow_bandwidth(x, k):
    d = np.sqrt(oracles.squared(x, x))
    found = sorted(sorted(d[i, i + 1 :])[k - 1] for i in range(len(x) - k))
    return found[int(len(found) * 0.5) - 1]


def slow_density(data, at, h, weights=None):
    """mean of cos(π/2 d/h) over d <= h, weighted by how often each sample was drawn."""
    weights = np.ones(len(data)) if weights is None else weights
    out = []
    for z in at:
        d = np.sqrt(((data - z) ** 2).sum(axis=1))
        out.append(np.sum(weights[d <= h] * np.cos(np.pi / 2 * d[d <= h] / h)) / weights.sum())
    return np.array(out)


def draws(n, seed):
    """The order and the bootstrap samples that the seed gives a set of n."""
    rng = np.random.Generator(np.random.Philox(key=[seed, topological._ORDER]))
    order = rng.permutation(n)
    return order, [
        np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(topological.DRAWS)
    ]


def slow_band(x, h, weights, kept):
    density = slow_density(x[kept], x[kept], h)
    away = [np.abs(slow_density(x[kept], x[kept], h, w[kept]) - density).max() for w in weights]
    return np.quantile(away, 0.9)


def slow(real, fake, groups: int, seed=0):
    """θ (1 + G, 1 + H) of topp and topr by loops, from the definition."""
    sides = []
    for x, side in ((real, REAL), (fake, FAKE)):
        order, weights = draws(len(x), seed)
        label = split(len(x), groups, seed, side).labels()
        h = slow_bandwidth(x[order], 5 * x.shape[1])
        kept = [np.ones(len(x), bool)] + [label != g for g in range(groups)]
        bands = [slow_band(x, h, weights, some) for some in kept]
        sides.append((x, h, kept, bands))
    out = {"topp": np.zeros((1 + groups,) * 2), "topr": np.zeros((1 + groups,) * 2)}
    (x, h_p, kept_p, band_p), (y, h_q, kept_q, band_q) = sides
    for g, (some_p, c_p) in enumerate(zip(kept_p, band_p, strict=True)):
        for h, (some_q, c_q) in enumerate(zip(kept_q, band_q, strict=True)):
            in_p = slow_density(x[some_p], y[some_q], h_p) > c_p
            in_q = slow_density(y[some_q], y[some_q], h_q) > c_q
            out["topp"][g, h] = (in_p & in_q).sum() / in_q.sum()
            in_p = slow_density(x[some_p], x[some_p], h_p) > c_p
            in_q = slow_density(y[some_q], x[some_p], h_q) > c_q
            out["topr"][g, h] = (in_p & in_q).sum() / in_p.sum()
    return out


@pytest.mark.parametrize("width", [1, 4])
def test_equals_slow_loops_without_every_group(width):
    rng = np.random.default_rng(width)
    real, fake = rng.normal(size=(60, width)), 0.8 * rng.normal(size=(50, width)) + 0.5
    points = topological.project((real, fake), 0)
    want = slow(points[0], points[1], 3)
    for name in topological.NAMES:
        theta = tools.theta(topological.FAMILY, name, real, fake, Options(groups=3))
        np.testing.assert_allclose(theta, want[name], rtol=1e-12)
        assert 0 < theta[0, 0] < 1


def test_bandwidth_is_the_packages():
    x = np.random.default_rng(2).normal(size=(90, 3))
    assert topological.bandwidth(x, 15) == pytest.approx(slow_bandwidth(x, 15), rel=1e-12)
    for n in (16, 17, 18):  # one, two, three samples have 15 after them
        assert topological.bandwidth(x[:n], 15) == pytest.approx(slow_bandwidth(x[:n], 15))


def test_tiles_do_not_change_it(monkeypatch):
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(120, 3)), rng.normal(size=(100, 3)) + 0.5
    want = tools.theta(topological.FAMILY, "topp", real, fake)
    monkeypatch.setattr(topological, "TILE", 700)
    np.testing.assert_allclose(tools.theta(topological.FAMILY, "topp", real, fake), want)


def test_memory_maps_are_read_in_blocks(tmp_path):
    x = np.random.default_rng(4).integers(-128, 127, (3000, 1000)).astype(np.int8)
    x[5, 7] = -128  # has no positive int8
    np.save(tmp_path / "x", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    topological.project((mapped, mapped), 0, rows=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The set is 3 MB, 3000 × 32 float64 twice and joined are 3 MB.
    assert peak < 5e6
    narrow = np.array([[-128, 1], [3, 2]], np.int8)
    assert np.abs(topological.project((narrow, narrow), 0)[0]).max() <= 0.5


def test_projection():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(300, 500)), rng.normal(size=(200, 500)) + 1e4
    a, b = topological.project((x, y), 0)
    assert a.shape == (300, 32)
    assert b.shape == (200, 32)
    assert np.abs(a.mean(axis=0)).max() < 1e-12
    # Distances are kept but for a factor, the power of two.
    kept = oracles.squared(a[:40], a[40:80]) / oracles.squared(x[:40], x[40:80])
    assert kept.std() / kept.mean() == pytest.approx(np.sqrt(2 / 32), rel=0.2)
    again = topological.project((x.astype(np.float32), y), 0)[0]
    np.testing.assert_allclose(again, a, atol=1e-6 * np.abs(b).max())
    assert not np.allclose(topological.project((x, y), 1)[0], a)
    narrow = topological.project((x[:, :32], y[:, :32]), 0)[0]
    assert narrow.shape == (300, 32)


@pytest.mark.parametrize("name", topological.NAMES)
@pytest.mark.parametrize("width", [2, 40])
def test_identical_swapped_far_and_constant_sets(name, width):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(400, width)), 0.8 * rng.normal(size=(400, width))
    assert tools.value(name, x, x) == 1
    assert tools.value(name, x + 1e4, x + 1e4) == 1
    assert tools.value(name, x, x + 1e4) == 0
    assert tools.value(name, np.ones((300, width)), np.ones((250, width))) == 1
    assert tools.value(name, np.ones((300, width)), np.zeros((250, width))) == 0
    offset = tools.value(name, x + 1e4, y + 1e4)
    assert offset == pytest.approx(tools.value(name, x, y), abs=1e-9)
    tiny = tools.value(name, 1e-200 * x, 1e-200 * y)
    assert tiny == pytest.approx(tools.value(name, x, y), abs=1e-9)


def test_direction():
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(500, 8)), rng.normal(size=(500, 8))
    for name in topological.NAMES:
        values = [tools.value(name, real, fake + shift) for shift in (0, 0.7, 1.4, 3)]
        assert np.all(np.diff(values) < 0)
        assert np.all(np.diff(values)[:2] < -0.3)
    centres = 20 * np.eye(8)[np.arange(500) % 5]
    real = real + centres
    for modes in (4, 2, 1):
        some = (fake + centres)[np.arange(500) % 5 < modes]
        some = np.concatenate([some] * 5)[: 500 // 5 * 5]
        assert tools.value("topr", real, some) < 0.1 + modes / 5
        assert tools.value("topp", real, some) > 0.9


def test_outliers_are_no_support():
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(500, 8)), rng.normal(size=(500, 8)) + 8
    real[:5] = 8 + 2 * rng.normal(size=(5, 8))  # a few real samples amid the fakes
    assert tools.value("precision", real, fake) > 0.5
    assert tools.value("topp", real, fake) < 0.05


def test_seeds():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(250, 6)), rng.normal(size=(250, 6)) + 0.5
    values = [tools.value("topp", x, y, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert values[0] == values[1]
    assert len(set(values)) > 2
    assert np.ptp(values) < 0.3


def test_too_few_samples_are_named():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(200, 100))
    with pytest.raises(errors.DataError, match="more than 160 fake samples"):
        tools.value("topp", x, x[:160])
    found = topological.FAMILY.replicates(
        statistics(x), statistics(x[:161]), topological.NAMES, Options()
    )
    assert found["topr"].draws <= 200


def test_moments_alone_are_not_enough():
    tools.refuses_moments("topr")
