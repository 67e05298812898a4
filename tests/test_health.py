"""Measurements against brute force in float64; every alarm on a stream with its fault, and not."""

import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr import config, health, objectives, recovery
from prpr.errors import ConfigError, DataError
from prpr.health import CHECKS, Alarm, Check, Limit, Watch, manual
from prpr.metrics.prdc import prdc

DOCS = Path(__file__).parents[1] / "docs"
# Compiled as a whole: one program a shape instead of one an operation.
moved_share, duplicates = jax.jit(health.moved_share), jax.jit(health.duplicates)
proxies = jax.jit(health.proxies, static_argnums=2)
spectral_norm = jax.jit(health.largest_spectral_norm)
norm, finite = jax.jit(health.norm), jax.jit(health.finite)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- what the envelope moves ----------------------------------------------------------


def test_moved_share_is_the_mean_slope_of_the_envelope():
    log_r = 3.0 * normal(0, 200)
    for lam, tau in ((1.0, 1.0), (20.0, 0.5), (0.05, 0.1)):
        x = (log_r.astype(np.float64) + math.log(lam)) / tau
        expected = (4.0 * np.exp(-x) / (1.0 + np.exp(-x)) ** 2).mean()
        np.testing.assert_allclose(moved_share(log_r, lam, tau), expected, rtol=1e-5)
        lam_tau = jnp.float32(lam), jnp.float32(tau)
        slope = jax.vmap(jax.grad(lambda one, lt=lam_tau: objectives.envelope(one, *lt)))(log_r)
        np.testing.assert_allclose(
            moved_share(log_r, *lam_tau), 4.0 * tau * slope.mean(), rtol=1e-5
        )


def test_moved_share_of_a_band_is_its_mean_slope_over_its_largest():
    log_r, lam, tau, width = 3.0 * normal(0, 200), jnp.float32(0.02), jnp.float32(0.5), 4.0
    slope = jax.vmap(jax.grad(lambda one: objectives.band(one, lam, tau, jnp.float32(width))))
    largest = slope(-jnp.log(lam)[None])
    expected = slope(log_r).mean() / largest[0]
    np.testing.assert_allclose(moved_share(log_r, lam, tau, width), expected, rtol=1e-4)
    assert expected > 3 * moved_share(log_r, lam, tau)


@pytest.mark.parametrize("lam", [0.05, 1.0, 50.0])
def test_moved_share_is_1_on_the_threshold_and_small_and_positive_far_off(lam):
    on = jnp.full((7,), -math.log(lam), jnp.float32)
    np.testing.assert_allclose(moved_share(on, lam, 0.5), 1.0, rtol=1e-5)
    for away in (20.0, -20.0):  # e^-20: 1 - σ would be 0 in float32
        np.testing.assert_allclose(moved_share(on + away, lam, 1.0), 4.0 * math.exp(-20), 1e-4)
    for log_r in (80.0, -80.0):
        for tau in (1e-3, 0.5, 100.0):
            got = moved_share(jnp.full((2,), log_r), lam, tau)
            assert np.isfinite(got)
            assert 0.0 <= got <= 1.0


def test_moved_share_takes_a_lam_for_each_sample():
    log_r, lam = normal(1, 5), jnp.array([0.1, 0.5, 1.0, 4.0, 20.0])
    each = [moved_share(log_r[i : i + 1], lam[i], 0.5) for i in range(5)]
    np.testing.assert_allclose(moved_share(log_r, lam, 0.5), np.mean(each), rtol=1e-5)


def test_one_compilation_serves_all_lam_and_tau():
    traced = []

    @jax.jit
    def both(log_r, lam, tau, limit):
        traced.append(1)
        return health.moved_share(log_r, lam, tau), health.saturation(log_r, log_r, limit)

    log_r = jnp.asarray(normal(2, 64))
    seen = {
        float(both(log_r, jnp.float32(lam), jnp.float32(tau), jnp.float32(1.0))[0])
        for lam in (0.2, 1.0, 20.0)
        for tau in (0.1, 1.0)
    }
    assert len(seen) == 6
    assert len(traced) == 1


def test_saturation_counts_both_signs_of_both_kinds():
    real, fake = jnp.array([0.0, 21.0, -21.0, 20.0]), jnp.array([80.0, -80.0])
    assert health.saturation(real, fake) == np.float32(4 / 6)
    assert health.saturation(real, fake, 50.0) == np.float32(2 / 6)
    assert health.saturation(jnp.zeros(3), jnp.zeros(3)) == 0


# ---- duplicates -----------------------------------------------------------------------


def slow_duplicates(real, fake, fraction):
    n = min(len(real), len(fake))

    def nearest(x):
        x = x[:n].reshape(n, -1).astype(np.float64)
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
        np.fill_diagonal(d, np.inf)
        return d.min(1)

    return (nearest(fake) < fraction * np.median(nearest(real))).mean()


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("shapes", [(60, 60), (90, 50), (40, 80)])
def test_duplicates_are_those_of_brute_force(fraction, shapes):
    real, fake = normal(3, shapes[0], 2), 0.5 * normal(4, shapes[1], 2)
    fake[10:25] = fake[3] + 1e-3 * normal(5, 15, 2)
    got = duplicates(real, fake, fraction)
    assert 0.2 < got < 1.0
    np.testing.assert_allclose(got, slow_duplicates(real, fake, fraction), atol=1e-6)


def test_duplicates_of_images_far_from_0():
    real = 1000.0 + normal(6, 64, 4, 4, 3)
    fresh = 1000.0 + normal(7, 64, 4, 4, 3)
    assert duplicates(real, fresh) == 0
    few = fresh[np.arange(64) % 8]
    assert duplicates(real, few) == 1
    near = few + 1e-2 * normal(8, *few.shape)  # the product alone would round this away
    assert duplicates(real, near) == 1
    half = np.concatenate([fresh[:32], np.repeat(fresh[:1], 32, 0)])
    assert duplicates(real, half) == np.float32(33 / 64)


def test_duplicates_of_bytes_are_those_of_floats():
    rng = np.random.default_rng(9)
    real, fake = rng.integers(0, 256, (2, 30, 5, 5), np.uint8)
    fake[20:] = fake[:10]
    assert duplicates(real, fake) == np.float32(20 / 30)


def test_duplicates_where_data_repeat():
    fake = normal(10, 40, 3)
    once = normal(11, 40, 3)
    most = once.copy()
    most[:30] = once[0]  # the median of all nearest distances is 0, of those that count it is not
    apart = np.linalg.norm(most[:, None] - most[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    limit = 0.25 * np.median(apart.min(1)[30:])
    apart = np.linalg.norm(fake[:, None] - fake[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    expected = (apart.min(1) < limit).mean()
    assert 0 < expected < 0.2
    np.testing.assert_allclose(duplicates(most, fake), expected, rtol=1e-6)
    assert duplicates(most, np.repeat(fake[:1], 40, 0)) == 1
    assert duplicates(np.ones((40, 3), np.float32), fake) == 0
    assert duplicates(np.ones((40, 3), np.float32), np.ones((40, 3), np.float32)) == 0


def test_near_copies_far_from_the_data_are_measured_by_their_difference():
    # About the data's mean the product's rounding, .3 here, is above their distance.
    real, fake = normal(16, 50, 4), 1000.0 + 0.01 * normal(17, 50, 4)
    far = 1000.0 + np.float32(30.0) * normal(18, 50, 4)
    assert duplicates(real, fake) == 1
    assert duplicates(0.001 * real, fake) < 0.1
    assert duplicates(real, far) < 0.1


def test_duplicates_of_two_items_and_with_an_outlier():
    real = np.array([[0.0], [1.0]], np.float32)
    assert duplicates(real, np.array([[5.0], [5.2]], np.float32)) == 1
    assert duplicates(real, np.array([[5.0], [5.3]], np.float32)) == 0
    fake = np.repeat(normal(12, 1, 3), 20, 0)
    fake[7] = 1e6
    assert duplicates(normal(13, 20, 3), fake) == np.float32(19 / 20)


@pytest.mark.parametrize("gone", [1e25, np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 7])
def test_a_sample_out_of_range_spoils_no_other(gone, place):
    fake = np.repeat(normal(12, 1, 3), 20, 0)
    fake[place] = gone
    assert duplicates(normal(13, 20, 3), fake) == np.float32(19 / 20)
    alone = np.array([[gone], [1.0]], np.float32)
    assert duplicates(np.array([[0.0], [1.0]], np.float32), alone) == 0
    real, fake = normal(14, 30, 3), normal(15, 30, 3)
    without = proxies(real, np.delete(fake, place, 0))
    fake[place] = gone
    got = proxies(real, fake)
    np.testing.assert_allclose(got.precision * 30, without.precision * 29, rtol=1e-5)
    assert got.recall == without.recall


def test_duplicates_name_what_they_cannot_compare():
    with pytest.raises(DataError, match="two shapes"):
        duplicates(jnp.zeros((4, 2)), jnp.zeros((4, 3)))
    with pytest.raises(DataError, match="needs 2"):
        duplicates(jnp.zeros((4, 2)), jnp.zeros((1, 2)))


# ---- precision and recall of a batch --------------------------------------------------

SETS = {
    "alike": (normal(20, 60, 4), normal(21, 50, 4)),
    "narrow": (normal(22, 60, 4), 0.4 * normal(23, 50, 4)),
    "apart": (normal(24, 60, 4), 9.0 + normal(25, 50, 4)),
    "offset": (500.0 + normal(26, 60, 4), 500.0 + normal(27, 50, 4)),
    "part": (normal(28, 60, 4), normal(28, 60, 4)[:50]),
    "constant": (np.full((60, 4), 0.1, np.float32), np.full((50, 4), 0.1, np.float32)),
    "lattice": (
        np.random.default_rng(29).integers(0, 4, (60, 4)).astype(np.float32),
        np.random.default_rng(30).integers(1, 4, (50, 4)).astype(np.float32),
    ),
    "outlier": (normal(31, 60, 4), np.r_[normal(32, 49, 4), np.full((1, 4), 1e4, np.float32)]),
}


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", SETS)
def test_proxies_are_the_exact_metric_on_a_batch(name, k):
    real, fake = SETS[name]
    got = proxies(real, fake, k)
    exact = prdc(real, fake, k)
    np.testing.assert_allclose(got, (exact.precision, exact.recall), atol=1e-6)


def test_proxies_tell_precision_from_recall():
    real = normal(32, 200, 2)
    real[:100] += 20.0
    one_mode = real[:100] + 0.1 * normal(33, 100, 2)
    precision, recall = proxies(real, one_mode)
    assert precision > 0.9
    assert 0.4 < recall < 0.6


def test_proxies_name_what_they_cannot_compare():
    for shapes in (((4, 2), (4, 3)), ((4, 2, 1), (4, 2, 1)), ((3, 2), (9, 2)), ((9, 2), (3, 2))):
        with pytest.raises(DataError, match="proxies"):
            health.proxies(*map(jnp.zeros, shapes))
    with pytest.raises(ConfigError, match="k = 0"):
        health.proxies(jnp.zeros((4, 2)), jnp.zeros((4, 2)), 0)


# ---- trees ----------------------------------------------------------------------------

TREE = {
    "w": normal(40, 3, 4),
    "b": normal(41, 5),
    "half": jnp.asarray(normal(42, 6), jnp.bfloat16),
    "step": jnp.int32(7),
    "key": jax.random.key(0),
    "none": jnp.zeros((0, 3)),
}


def test_norm_is_over_floating_leaves():
    parts = [np.asarray(TREE[name], np.float64).ravel() for name in ("w", "b", "half")]
    expected = np.linalg.norm(np.concatenate(parts))
    np.testing.assert_allclose(norm(TREE), expected, rtol=1e-6)


def test_norm_at_the_ends_of_the_range():
    for size in (1e30, 1e-30):
        got = norm({"a": jnp.array([3.0 * size]), "b": jnp.array([[-4.0 * size]])})
        np.testing.assert_allclose(got, 5.0 * size, rtol=1e-6)
    assert norm({}) == norm({"a": jnp.zeros(3)}) == 0
    assert norm({"a": jnp.ones(2), "b": jnp.array([-jnp.inf])}) == np.inf
    assert np.isnan(norm({"a": jnp.ones(2), "b": jnp.array([jnp.nan, jnp.inf])}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["w", "b", "half"])
def test_finite_finds_one_entry(bad, where):
    assert finite(TREE) == 1
    leaf = jnp.asarray(TREE[where])
    assert finite({**TREE, where: leaf.ravel().at[3].set(bad).reshape(leaf.shape)}) == 0
    assert finite({}) == 1


def test_largest_spectral_norm_is_that_of_svd():
    rng = np.random.default_rng(43)
    kernels = {
        "conv": rng.standard_normal((3, 3, 4, 6)).astype(np.float32),
        "small": rng.standard_normal((20, 50)).astype(np.float32),
        "dense": rng.standard_normal((20, 50)).astype(np.float32),
        "other": 2.0 * rng.standard_normal((20, 50)).astype(np.float32),
        "frequencies": 100.0 * np.ones((4, 4), np.float32),
        "bias": 1000.0 * np.ones(9, np.float32),
        "step": jnp.ones((2, 2), jnp.int32),
    }
    exact = max(
        np.linalg.svd(kernels[name].reshape(-1, kernels[name].shape[-1]), compute_uv=False)[0]
        for name in ("conv", "small", "dense", "other")
    )
    got = float(spectral_norm(kernels))
    assert 0.98 * exact < got <= exact * (1 + 1e-5)
    more = spectral_norm(kernels, 500)
    np.testing.assert_allclose(more, exact, rtol=1e-4)
    conv = kernels["conv"].reshape(-1, 6)
    np.testing.assert_allclose(
        spectral_norm({"a": {"conv": kernels["conv"]}}, 500),
        np.linalg.svd(conv, compute_uv=False)[0],
        rtol=1e-4,
    )


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_largest_spectral_norm_at_the_ends_of_the_range(size):
    # Rows that sum to 0: a constant start would see nothing.
    w = size * jnp.array([[1.0, -1.0], [1.0, -1.0], [2.0, -2.0]])
    np.testing.assert_allclose(spectral_norm([w]) / size, math.sqrt(12), rtol=1e-5)


def test_largest_spectral_norm_of_nothing_and_of_nan():
    assert spectral_norm({"b": jnp.ones(3)}) == 0
    assert spectral_norm({"w": jnp.zeros((3, 2))}) == 0
    w = jnp.ones((3, 2))
    assert np.isnan(spectral_norm({"a": w.at[0, 0].set(jnp.nan), "b": w}))


# ---- the table ------------------------------------------------------------------------

START = {  # of a healthy run, around which its records scatter by a tenth
    "critic_loss": 1.2,
    "generator_loss": -0.5,
    "critic_grad_norm": 3.0,
    "generator_grad_norm": 2.0,
}
HELD_OUT = {
    "heldout_loss": 0.55,
    "heldout_auc": 0.75,
    "train_auc": 0.78,
    "heldout_normalisation": 1.1,
    "heldout_calibration_error": 0.04,
    "heldout_calibration_slope": 0.9,
    "heldout_saturation": 0.001,
    "critic_spread": 4.0,
    "moved_share": 0.3,
    "duplicates": 0.02,
    "precision_proxy": 0.7,
    "recall_proxy": 0.6,
    "generator_norm": 40.0,
    "critic_norm": 30.0,
    "generator_spectral_norm": 2.0,
    "critic_spectral_norm": 1.5,
}


def healthy(checks=12):
    """[(step, scalars)]: a record every 25 steps, held-out ones every 100, by another call."""
    rng = np.random.default_rng(50)
    records = []
    for step in range(25, 100 * checks + 1, 25):

        def scatter(values):
            return {name: v * math.exp(0.1 * rng.uniform(-1, 1)) for name, v in values.items()}

        records.append((step, {**scatter(START), "finite": 1.0, "log_r_data": 0.4, "alpha": 0.6}))
        if step % 100 == 0:
            found = scatter(HELD_OUT)
            found["reliability_mass"] = np.full(10, 0.1)  # no scalar, and no check's
            records.append((step, found))
    return records


def ill(fault, start=600, stop=math.inf):
    """The same records with the fault's values in [start, stop)."""
    return [
        (step, {n: fault.get(n, v) if start <= step < stop else v for n, v in values.items()})
        for step, values in healthy()
    ]


def watched(records, watch=None):
    watch = watch or Watch()
    return [alarm for step, values in records for alarm in watch.see(step, values)]


# For every group of limits of every check: values that pass it, and values that only nearly do.
NAN, INF = math.nan, math.inf
BLIND = {"heldout_auc": 0.51, "train_auc": 0.51, "heldout_loss": 0.69}
BESIDE = {"critic_died": ("blind",)}  # what rings with it
FAULTS = {
    "exploding": [
        ({"generator_grad_norm": 250.0}, {"generator_grad_norm": 150.0}),
        ({"generator_norm": 500.0}, {"generator_norm": 300.0}),
        ({"generator_spectral_norm": 25.0}, {"generator_spectral_norm": 17.0}),
        ({"critic_grad_norm": 400.0}, {"critic_grad_norm": 250.0}),
        ({"critic_norm": 400.0}, {"critic_norm": 250.0}),
        ({"critic_spectral_norm": 20.0}, {"critic_spectral_norm": 12.0}),
    ],
    "not_finite": [
        ({"finite": 0.0}, {"finite": 1.0}),
        ({"generator_loss": NAN}, {"generator_loss": 1e30}),
        ({"generator_grad_norm": NAN}, {"generator_grad_norm": 9.0}),
        ({"critic_grad_norm": NAN}, {"critic_grad_norm": 9.0}),
        ({"generator_norm": NAN}, {"generator_norm": 99.0}),
        ({"critic_norm": NAN}, {"critic_norm": 99.0}),
    ],
    "overfitted": [
        ({"train_auc": 0.95, "heldout_auc": 0.79}, {"train_auc": 0.95, "heldout_auc": 0.81}),
    ],
    "saturated": [
        ({"heldout_saturation": 0.51}, {"heldout_saturation": 0.49}),
        ({"heldout_auc": 0.9995}, {"heldout_auc": 0.998}),
    ],
    "blind": [
        (
            BLIND,
            {"heldout_auc": 0.51, "train_auc": 0.51, "heldout_loss": 0.67},
        ),
    ],
    "unnormalised": [({"heldout_normalisation": 0.19}, {"heldout_normalisation": 0.21})],
    "uncalibrated": [
        ({"heldout_calibration_error": 0.16}, {"heldout_calibration_error": 0.14}),
        ({"heldout_calibration_slope": 0.19}, {"heldout_calibration_slope": 0.21}),
        ({"heldout_calibration_slope": 5.1}, {"heldout_calibration_slope": 4.9}),
    ],
    "nothing_moves": [({"moved_share": 0.009}, {"moved_share": 0.011})],
    "collapsed": [
        ({"duplicates": 0.51}, {"duplicates": 0.49}),
        ({"recall_proxy": 0.15}, {"recall_proxy": 0.25}),
    ],
    "critic_died": [
        ({**BLIND, "precision_proxy": 0.55}, {**BLIND, "precision_proxy": 0.7}),
        ({"critic_spread": 5e-6}, {"critic_spread": 5e-5}),
    ],
    "falling_apart": [
        ({"precision_proxy": 0.2}, {"precision_proxy": 0.3, "recall_proxy": 0.9}),
        (
            {"precision_proxy": 0.4, "recall_proxy": 0.15},
            {"precision_proxy": 0.4, "recall_proxy": 0.9},
        ),
    ],
}
CASES = [
    pytest.param(check, place, id=f"{check.name}-{place}")
    for check in CHECKS
    for place in range(len(check.when))
]


def test_a_healthy_run_rings_nothing():
    watch = Watch()
    assert watched(healthy(), watch) == []
    assert watch.ringing == ()
    assert watch.healthy


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_row_is_whole_and_has_its_faults(check):
    assert len(FAULTS[check.name]) == len(check.when)
    assert check.severity in ("fatal", "warning")
    assert check.patience >= 1
    for text in (check.means, check.advice, check.reason):
        assert "\n" not in text
        assert len(text) > 20
    assert not check.means.endswith(".")
    assert not check.advice.endswith(".")
    assert check.reason.endswith(".")
    for name in check.scalars:
        assert name in {**START, **HELD_OUT, "finite": 1, "*_loss": 1}


@pytest.mark.parametrize(("check", "place"), CASES)
def test_every_group_rings_once_at_its_patience_and_no_other_check_does(check, place):
    fault, nearly = FAULTS[check.name][place]
    assert set(fault) <= {*START, *HELD_OUT, "finite"}
    beside = BESIDE.get(check.name, ())
    alarms = [alarm for alarm in watched(ill(fault)) if alarm.check not in beside]
    assert [alarm.check for alarm in alarms] == [check.name]
    (alarm,) = alarms
    every = 25 if set(fault) & {*START, "finite"} else 100
    assert alarm.step == 600 + every * (check.patience - 1)
    assert alarm.severity == check.severity
    for name, value in fault.items():
        if name in alarm.values:
            np.testing.assert_equal(alarm.values[name], value)
    assert set(alarm.values) & set(fault)
    line = alarm.text()
    assert "\n" not in line
    assert line.startswith(f"{check.name}: {check.means} (")
    assert line.endswith(f"): {check.advice}.")
    assert all(f"{name}" in line for name in alarm.values)
    assert [alarm for alarm in watched(ill(nearly)) if alarm.check not in beside] == []


def test_little_recall_at_the_start_is_nothing_to_lose():
    """From 5 items of 160 to 1."""
    watch = Watch()
    for step, recall in ((0, 0.03), (100, 0.006), (200, 0.006)):
        assert watch.see(step, {"precision_proxy": 0.8, "recall_proxy": recall}) == []


def test_what_was_ignored_when_it_rang_rings_again():
    lost = {"duplicates": 0.9}
    watch = Watch(recovery.checks(("collapsed",), fine_tuned=True))
    watch.see(0, {"duplicates": 0.0})
    assert [a.severity for step in (1, 2, 3) for a in watch.see(step, lost)] == ["warning"]
    again = Watch.from_state(watch.state()).rearm()
    assert [(a.check, a.severity) for a in again.see(4, lost)] == [("collapsed", "fatal")]
    # One that is still ignored has rung.
    ignored = Watch.from_state(watch.state(), watch.checks).rearm()
    assert ignored.see(4, lost) == []


def test_severities_are_as_a_recovery_needs_them():
    fatal = {check.name for check in CHECKS if check.severity == "fatal"}
    assert fatal == {"exploding", "not_finite", "collapsed", "critic_died", "falling_apart"}
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("scalar", ["heldout_normalisation"])
@pytest.mark.parametrize("value", [0.0, 5.1, 1e30, INF])
def test_normalisation_far_off_1_on_either_side(scalar, value):
    assert [alarm.check for alarm in watched(ill({scalar: value}))] == ["unnormalised"]


@pytest.mark.parametrize("name", ["critic_loss", "heldout_loss", "some_new_loss"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_any_loss_that_is_not_finite_rings_at_once(name, value):
    watch = Watch()
    (alarm,) = watch.see(25, {"a_loss": 1.0, name: value, "z_loss": 2.0})
    assert (alarm.check, alarm.severity) == ("not_finite", "fatal")
    assert set(alarm.values) == {name}
    # Another record's losses say nothing about this one.
    assert watch.see(26, {"other_loss": 1.0}) == []
    assert watch.ringing == ("not_finite",)
    assert Watch.from_state(watch.state()).ringing == ("not_finite",)
    assert watch.see(27, {name: 1.0}) == []
    assert watch.ringing == ()


def test_nan_elsewhere_passes_no_limit_and_breaks_no_count():
    watch = begun()
    got = [
        [alarm.check for alarm in watch.see(step, {"duplicates": value})]
        for step, value in enumerate((0.9, NAN, 0.9))
    ]
    assert got == [[], [], ["collapsed"]]


def test_small_gradients_that_grow_are_no_explosion():
    low = [(step, {"generator_grad_norm": 1e-6}) for step in range(25, 500, 25)]
    woke = [(step, {"generator_grad_norm": 0.5}) for step in range(500, 900, 25)]
    assert watched(low + woke) == []
    blown = [(step, {"generator_grad_norm": 1.5}) for step in range(500, 900, 25)]
    assert [alarm.check for alarm in watched(low + blown)] == ["exploding"]


def test_a_median_wants_a_few_values_first_and_is_of_the_last_fifty():
    def norms(*values):
        return [(i, {"critic_grad_norm": v}) for i, v in enumerate(values)]

    assert watched(norms(*[1.0] * 2, *[1e3] * 9)) == []
    assert watched(norms(*[1.0] * 3, *[1e3] * 3)) == []  # the median would be 1 all along
    assert [a.step for a in watched(norms(*[1.0] * 5, *[1e3] * 9))] == [7]
    # 60 large ones are history once 50 small ones have followed.
    later = watched(norms(*[1e3] * 60, *[1.0] * 50, *[1e3] * 3))
    assert [a.step for a in later] == [112]
    even = (1.0, 1.0, 1.0, 3.0, 3.0, 3.0)  # their median is 2; with one more it is 3
    for value, count in ((199.0, 0), (201.0, 1)):
        watch = Watch([CHECKS[0]._replace(patience=1)])
        assert len(watched(norms(*even, value), watch)) == count


def test_recall_that_a_model_never_had_is_not_lost():
    # From scratch: noise covers all data and resembles none.
    values = [(1.0, 0.02), (0.2, 0.3), (0.2, 0.5), (0.2, 0.6)]
    records = [(i, {"recall_proxy": r, "precision_proxy": p}) for i, (r, p) in enumerate(values)]
    assert watched(records) == []
    # Both fell: that is falling_apart's to say.
    both = ill({"recall_proxy": 0.1, "precision_proxy": 0.5})
    assert watched(both) == []
    both = ill({"recall_proxy": 0.1, "precision_proxy": 0.1})
    assert [alarm.check for alarm in watched(both)] == ["falling_apart"]


# ---- the watch ------------------------------------------------------------------------


def begun():
    """A watch of a run that began without duplicates."""
    watch = Watch()
    assert watch.see(0, {"duplicates": 0.02}) == []
    return watch


def seen(watch, values, name="duplicates"):
    """The places at which a stream of one scalar rings."""
    return [i for i, v in enumerate(values) if watch.see(i, {} if v is None else {name: v})]


def test_it_rings_once_and_again_only_after_a_quiet_record():
    assert seen(begun(), [0.9] * 6) == [1]
    assert seen(begun(), [0.9, 0.9, 0.1, 0.9, 0.9, 0.9]) == [1, 4]
    assert seen(begun(), [0.9, 0.1, 0.9, 0.1, 0.9, 0.1]) == []
    assert seen(begun(), [0.9, None, None, 0.9, None, 0.9]) == [3]
    assert seen(begun(), [0.0, 0.0, 1.0], "finite") == [0]


def test_two_groups_of_a_check_count_apart_and_ring_together():
    watch = Watch()
    for step in (1, 2):
        assert watch.see(step, {"heldout_saturation": 0.9}) == []
        assert watch.see(step, {"heldout_auc": 0.9999}) == []
    (alarm,) = watch.see(3, {"heldout_saturation": 0.9, "heldout_auc": 0.9999})
    assert alarm.values == {"heldout_saturation": 0.9, "heldout_auc": 0.9999}
    assert "heldout_saturation = 0.9, above 0.5; heldout_auc = 1, above 0.999" in alarm.text()
    # One of the two goes quiet: the check still holds, and does not ring anew.
    assert watch.see(4, {"heldout_saturation": 0.1, "heldout_auc": 0.9999}) == []
    assert watch.ringing == ("saturated",)
    for step in (5, 6, 7):
        assert watch.see(step, {"heldout_saturation": 0.9, "heldout_auc": 0.9999}) == []
    watch.see(8, {"heldout_saturation": 0.1, "heldout_auc": 0.9})
    assert watch.ringing == ()


def test_it_says_from_where_a_start_or_a_median_is_counted():
    (alarm,) = watched(ill({"recall_proxy": 0.125}))
    start = next(v["recall_proxy"] for _, v in healthy() if "recall_proxy" in v)
    assert f"recall_proxy = 0.125, below 0.333 times its start of {start:.3g}" in alarm.found
    assert set(alarm.values) == {"recall_proxy", "precision_proxy"}
    (alarm,) = watched(ill({"critic_grad_norm": 1e4}))
    assert re.search(
        r"critic_grad_norm = 1e\+04, above 100 times its running median of [23][.\d]* and above 1",
        alarm.found,
    )
    (alarm,) = watched(ill({"train_auc": 0.97, "heldout_auc": 0.72}))
    assert "train_auc - heldout_auc = 0.25, above 0.15" in alarm.found


def test_scalars_may_be_arrays_of_jax():
    watch = begun()
    watch.see(jnp.int32(1), {"duplicates": jnp.float32(0.75)})
    (alarm,) = watch.see(np.int64(2), {"duplicates": np.float32(0.75), "image": np.ones(3)})
    assert json.loads(json.dumps(alarm._asdict()))["values"] == {"duplicates": 0.75}


def test_healthy_is_lost_before_a_fatal_alarm_rings_and_not_by_a_warning():
    watch = begun()
    watch.see(1, {"duplicates": 0.9})
    assert (watch.ringing, watch.healthy) == ((), False)
    watch.see(2, {"duplicates": 0.1})
    assert watch.healthy
    for step in (3, 4, 5):
        watch.see(step, {"moved_share": 0.0})
    assert (watch.ringing, watch.healthy) == (("nothing_moves",), True)


def eventful(checks=16):
    """A stream in which much begins, ends, and begins again."""
    fault = {
        "critic_grad_norm": 900.0,
        "duplicates": 0.8,
        "heldout_auc": 0.9999,
        "generator_loss": NAN,
        "precision_proxy": 0.1,
        "moved_share": 0.0,
    }
    return [
        (step, {n: fault.get(n, v) if step % 700 > 200 else v for n, v in values.items()})
        for step, values in healthy(checks)
    ]


def test_a_watch_that_is_restored_at_any_point_rings_as_an_uninterrupted_one():
    records = eventful()
    expected = [watched_text(alarm) for alarm in watched(records)]
    assert len({alarm[0] for alarm in expected}) >= 5
    first = Watch()
    rung = []
    for i, record in enumerate([*records, (0, {})]):
        state = first.state()
        again = Watch.from_state(json.loads(json.dumps(state, allow_nan=False)))
        assert again.state() == state
        assert rung + [watched_text(a) for a in watched(records[i:], again)] == expected
        rung += [watched_text(alarm) for alarm in first.see(*record)]


def watched_text(alarm):
    return (alarm.check, alarm.step, alarm.text())


def test_a_state_of_another_table_keeps_what_still_has_a_row():
    watch = begun()
    watch.see(1, {"duplicates": 0.9, "moved_share": 0.0})
    row = next(check for check in CHECKS if check.name == "collapsed")
    less = Watch.from_state(watch.state(), [row])
    assert [alarm.check for alarm in less.see(2, {"duplicates": 0.9, "moved_share": 0.0})] == [
        "collapsed"
    ]
    assert watched(healthy(), Watch.from_state({})) == []


def test_a_table_of_ones_own():
    row = Check("late", "warning", 1, ((Limit("lag", "above", 3.0),),), "too late", "run", "why.")
    assert [a.text() for a in Watch([row]).see(1, {"lag": 4.0})] == [
        "late: too late (lag = 4, above 3): run."
    ]


# ---- the manual -----------------------------------------------------------------------


def alarm_of(check, step=300):
    row = next(row for row in CHECKS if row.name == check)
    return Alarm(check, row.severity, step, {}, f"{check} was read", row.means, row.advice)


def test_the_manual_names_each_alarm_once_the_cause_first():
    names = [check.name for check in CHECKS]
    text = manual([alarm_of(name) for name in reversed(names)])
    heads = re.findall(r"^\d+\. (\w+) \(", text, re.M)
    assert heads == names
    for check in CHECKS:
        assert check.means in text
        assert check.advice in text
        assert f"{check.name} was read" in text
    few = manual([alarm_of("collapsed", 900), alarm_of("saturated", 500)])
    assert re.findall(r"^\d+\. (\w+) \(", few, re.M) == ["saturated", "collapsed"]
    assert "exploding" not in few
    assert "step 900" in few


def test_the_manual_counts_an_alarm_that_rang_again_and_shows_the_first():
    text = manual([alarm_of("collapsed", step) for step in (700, 300, 500)])
    assert "1. collapsed (fatal), first at step 300, 3 times, last at step 700" in text


def test_the_manual_says_what_alarms_mean_together():
    names = {check.name for check in CHECKS}
    for those, sentence in health._TOGETHER:
        assert those <= names
        assert sentence in manual([alarm_of(name) for name in those])
        for missing in those:
            assert sentence not in manual([alarm_of(name) for name in those - {missing}])
    assert "No alarm rang" in manual([])


def test_every_knob_that_is_named_exists():
    everything = manual([alarm_of(check.name) for check in CHECKS])
    texts = [everything, *(f"{check.advice} {check.reason}" for check in CHECKS)]
    known = config.flatten(config.defaults())
    named = {knob for text in texts for knob in re.findall(r"\bconfig\.([a-z_0-9.]*\w)", text)}
    assert len(named) > 15
    assert named <= set(known)
    for check in CHECKS:
        assert "config." in check.advice


def test_every_alarm_is_explained_in_the_docs_and_on_the_command_line():
    said, page = health.describe(), (DOCS / "stability.md").read_text(encoding="utf-8")
    assert "nan" not in said.lower().replace("nan or infinity", "")
    for check in CHECKS:
        assert f"{check.name} ({check.severity}; " in said
        name = f"**{check.name}**" if check.severity == "fatal" else check.name
        assert f"| {name} | " in page
        assert check.advice in said
        assert check.reason in said
