"""prpr.exact against closed forms.

P = N(m_p, S), Q = N(m_q, S) in the plane: log r is linear, and along S^(-1/2)(m_q − m_p), of
length δ, both are N(·, 1). So α(λ) = λ Φ(−c) + Φ(c − δ), c = (log λ + δ²/2)/δ, as on a line.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from prpr import exact, frontier
from prpr.data import planar
from prpr.errors import ConfigError, DataError
from prpr.exact.cells import _cell_masses

LAMS = np.geomspace(0.02, 50, 31)
BOX = exact.Box(-7, 7, -7, 7)
ROOT = np.array([[0.9, 0.0], [0.5, 0.7]])  # a root of S, for means 0 and SHIFT
SHIFT = np.array([1.0, -0.5])


@functools.cache
def gaussian(mean=(0.0, 0.0), root=((1.0, 0.0), (0.0, 1.0))):
    """x (N, 2) -> log N(x; mean, root rootᵀ)."""
    inverse = np.linalg.inv(root)
    constant = float(np.log(2 * np.pi) - np.linalg.slogdet(inverse)[1])

    @jax.jit
    def log_density(x):
        centre = jnp.asarray(np.asarray(mean)[None], x.dtype)
        z = (x - centre) @ jnp.asarray(inverse.T, x.dtype)
        return -0.5 * jnp.sum(z * z, axis=1) - constant

    return log_density


def uniform(x0, x1, y0, y1):
    def log_density(x):
        inside = (x[:, 0] > x0) & (x[:, 0] < x1) & (x[:, 1] > y0) & (x[:, 1] < y1)
        return jnp.where(inside, -float(np.log((x1 - x0) * (y1 - y0))), -jnp.inf)

    return jax.jit(log_density)


def as_tuple(matrix):
    return tuple(map(tuple, matrix))


def line_alpha(lam, delta):
    cut = (np.log(lam) + delta**2 / 2) / delta
    return lam * stats.norm.sf(cut) + stats.norm.cdf(cut - delta)


P = gaussian((0.0, 0.0), as_tuple(ROOT))
Q = gaussian(tuple(SHIFT), as_tuple(ROOT))
DELTA = float(np.linalg.norm(np.linalg.solve(ROOT, SHIFT)))
TRUE = line_alpha(LAMS, DELTA)

# --- densities --------------------------------------------------------------------------


def test_two_gaussians():
    got = exact.curve(P, Q, LAMS, BOX, tolerance=1e-4)
    np.testing.assert_allclose(got.alpha, TRUE, atol=1e-4 * np.minimum(1, LAMS).min())
    np.testing.assert_allclose(got.beta, TRUE / LAMS, atol=1e-4)
    assert (np.abs(got.alpha - TRUE) <= got.error + 2e-6).all()
    assert (got.error / np.minimum(1, LAMS)).max() < 2e-4
    assert got.p_mass == pytest.approx(1, abs=1e-5)
    assert got.q_mass == pytest.approx(1, abs=1e-5)
    hi, lo = line_alpha(np.array([20, 1 / 20]), DELTA)
    assert (got.ends.precision, got.ends.recall) == pytest.approx((hi, lo * 20), abs=1e-4)
    # Q's mean is δ from P's: a coarse grid with the same formula, from prpr.frontier.
    side = np.arange(-7, 7, 0.02) + 0.01
    x = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    p, q = (np.exp(f(jnp.asarray(x, jnp.float32))) for f in (P, Q))
    np.testing.assert_allclose(
        got.alpha[::10], frontier.exact(p, q, LAMS[::10], 0.02**2), atol=2e-4
    )


def test_the_order_of_lambda_is_the_callers():
    turned = exact.curve(P, Q, LAMS[::-1], BOX, cells=32, most=64)
    straight = exact.curve(P, Q, LAMS, BOX, cells=32, most=64)
    np.testing.assert_allclose(turned.lam, LAMS[::-1])
    np.testing.assert_allclose(turned.alpha[::-1], straight.alpha, rtol=1e-12)
    assert straight.step == 14 / 64


def test_equal_and_disjoint():
    same = exact.curve(P, P, LAMS, BOX)
    np.testing.assert_allclose(same.alpha, np.minimum(1, LAMS), atol=1e-6)
    assert same.support[:2] == pytest.approx((0.99, 0.99), abs=1e-5)
    apart = exact.curve(uniform(-3, -1, -2, 2), uniform(1, 3, -2, 2), LAMS)
    assert not apart.alpha.any()
    assert apart.ends[:2] == (0, 0)
    assert apart.support[:2] == (0, 0)
    far = exact.curve(gaussian((-3.5, 0.0)), gaussian((3.5, 0.0)), LAMS, exact.Box(-9, 9, -6, 6))
    np.testing.assert_allclose(far.alpha, line_alpha(LAMS, 7), atol=2e-5)


def test_uniforms_have_zeros_and_atoms():
    # Q on the left half of P: ∫ min(λ/4, 1/2) over the half is min(λ/2, 1). A_p is 99 % of
    # the square, in proportion; A_q 99 % of the half, so .495 of P.
    got = exact.curve(uniform(-1, 1, -1, 1), uniform(-1, 0, -1, 1), LAMS)
    np.testing.assert_allclose(got.alpha, np.minimum(LAMS / 2, 1), atol=1e-6)
    assert got.support[:2] == pytest.approx((0.99, 0.495), abs=1e-6)
    assert got.ends[:2] == pytest.approx((1, 0.5), abs=1e-6)


@pytest.mark.parametrize("share", [0.99, 0.8])
def test_the_support_of_concentric_gaussians(share):
    # P(|x| > ρ) = exp(−ρ²/2): A_p = {|x|² <= −2 log(1 − share)}, Q has the scale 2.
    got = exact.curve(
        gaussian(),
        gaussian((0.0, 0.0), ((2.0, 0.0), (0.0, 2.0))),
        box=exact.Box(-14, 14, -14, 14),
        share=share,
    )
    rest = 1 - share
    assert got.support[:2] == pytest.approx((1 - rest**0.25, 1 - rest**4), abs=1e-3)
    assert got.support.error < 3e-3


@pytest.mark.parametrize("name", ["ring8", "grid25"])
def test_default_accuracy(name):
    law = planar.law(name)
    moved = law._replace(
        means=law.means[1:] + 0.03, scale=1.3 * law.scale, weights=np.full(len(law.means) - 1, 1.0)
    )
    moved = moved._replace(weights=moved.weights / moved.weights.sum())
    p, q = jax.jit(law.log_density), jax.jit(moved.log_density)
    got = exact.curve(p, q)
    fine = exact.curve(p, q, cells=512, most=1024)
    size = np.minimum(1, got.lam)
    assert (np.abs(got.alpha - fine.alpha) / size).max() < 1e-3
    assert (got.error / size).max() < 1.1e-3
    assert got.ends[:2] == pytest.approx(fine.ends[:2], abs=1e-3)
    assert got.support[:2] == pytest.approx(fine.support[:2], abs=2e-3)
    # One mode is missing, and Q is wide enough for all of the others.
    assert got.ends.recall == pytest.approx(1 - 1 / len(law.means), abs=1e-3)


def test_what_the_box_misses_is_reported():
    # Half of P, and Q = N((−1, 0), I) of which Φ(−1) is inside x > 0.
    got = exact.curve(gaussian(), gaussian((-1.0, 0.0)), LAMS, exact.Box(0, 8, -7, 7))
    assert got.p_mass == pytest.approx(0.5, abs=1e-4)
    assert got.q_mass == pytest.approx(stats.norm.cdf(-1), abs=1e-4)
    outside = np.minimum(LAMS * 0.5, stats.norm.cdf(1))
    assert (got.error >= outside - 1e-3).all()
    true = line_alpha(LAMS, 1.0)
    assert (got.alpha <= true + 1e-4).all()
    assert (true <= got.alpha + got.error + 1e-4).all()
    assert np.isnan(got.support[:2]).all()


def test_a_stack_is_its_models():
    others = [gaussian((0.5, 0.0)), gaussian((-1.0, 1.0)), P]
    stack = jax.jit(lambda x: jnp.stack([q(x) for q in others]))
    got = exact.curve(P, stack, LAMS, BOX, cells=64, most=128)
    assert got.alpha.shape == got.beta.shape == got.error.shape == (3, 31)
    assert got.q_mass.shape == got.ends.precision.shape == got.support.recall.shape == (3,)
    for k, q in enumerate(others):
        alone = exact.curve(P, q, LAMS, BOX, cells=64, most=128)
        for one, of_stack in zip(jax.tree.leaves(alone), jax.tree.leaves(got.of(k)), strict=True):
            np.testing.assert_allclose(of_stack, one, rtol=1e-12)
    area = frontier.area_under(got.of(2).curve)
    assert float(area) == pytest.approx(1, abs=0.05)


def test_functions_see_tiles_of_one_shape():
    shapes = set()

    def log_q(x):
        shapes.add(x.shape)
        return Q(x)

    got = exact.curve(P, log_q, LAMS, BOX, cells=33, most=150, tile=1000)
    assert shapes == {(1000, 2)}
    np.testing.assert_allclose(got.alpha, TRUE, atol=2e-3)
    assert got.p_mass == pytest.approx(1, abs=1e-5)


def test_refines_until_it_has_the_tolerance():
    loose = exact.curve(P, Q, LAMS, BOX, cells=8, tolerance=0.3)
    tight = exact.curve(P, Q, LAMS, BOX, cells=8, tolerance=1e-3)
    stopped = exact.curve(P, Q, LAMS, BOX, cells=8, tolerance=1e-9, most=32)
    assert loose.step > tight.step
    assert stopped.step == 14 / 32
    assert stopped.error.max() > 1e-6


# --- generators and samples -------------------------------------------------------------


def affine(shift, root):
    def generate(z):
        return z @ jnp.asarray(np.transpose(root), z.dtype) + jnp.asarray(shift[None], z.dtype)

    return jax.jit(generate)


def test_an_affine_generator_is_its_gaussian():
    got = exact.generator_curve(P, affine(SHIFT, ROOT), LAMS, BOX, cells=256, latents=1024)
    away = got.alpha - TRUE
    assert (np.abs(away) <= got.error + 1e-6).all()
    # Merging into cells errs upwards; the lattice is what is left of the other direction.
    assert (away > -2e-4).all()
    assert (got.error / np.minimum(1, LAMS)).max() < 0.01
    assert got.q_mass == pytest.approx(1, abs=1e-4)
    both = exact.curve(P, Q, LAMS, BOX)
    assert got.support[:2] == pytest.approx(both.support[:2], abs=5e-3)
    assert got.ends[:2] == pytest.approx(both.ends[:2], abs=5e-3)
    # Smaller cells, smaller error.
    wide = exact.generator_curve(P, affine(SHIFT, ROOT), LAMS, BOX, cells=64, latents=1024)
    assert (wide.alpha - TRUE).max() > 2 * away.max()
    assert (np.abs(wide.alpha - TRUE) <= wide.error + 1e-6).all()


def test_a_generator_that_folds_the_plane():
    # (|z₁|, z₂) has twice the normal density on the right half: of P = Q, α = min(λ, 1).
    def log_p(x):
        twice = gaussian()(x) + float(np.log(2))
        return jnp.where(x[:, 0] > 0, twice, -jnp.inf)

    fold = jax.jit(lambda z: z * jnp.asarray([[0.0, 1.0]]) + jnp.abs(z) * jnp.asarray([[1.0, 0.0]]))
    got = exact.generator_curve(log_p, fold, LAMS, exact.Box(), cells=64, latents=1024)
    np.testing.assert_allclose(got.alpha, np.minimum(LAMS, 1), atol=0.01)
    assert got.q_mass == pytest.approx(1, abs=2e-4)
    half = exact.generator_curve(gaussian(), fold, LAMS, exact.Box(), cells=64, latents=1024)
    np.testing.assert_allclose(half.alpha, np.minimum(LAMS / 2, 1), atol=0.01)


def test_a_generator_on_a_line_has_no_frontier():
    line = jax.jit(lambda z: z * jnp.asarray([[1.0, 0.0]]) + 0.1234)
    areas = [
        exact.generator_curve(gaussian(), line, [1.0], cells=cells, latents=512).alpha[0]
        for cells in (32, 64, 128)
    ]
    assert areas[1] < 0.7 * areas[0]
    assert areas[2] < 0.7 * areas[1]


def test_a_stack_of_generators_and_mass_outside():
    # The second one is moved by 4: Φ(0) of its mass is beyond x = 4.
    first, second = affine(SHIFT, ROOT), affine(np.array([4.0, 0.0]), np.eye(2))
    settings = {"cells": 32, "latents": 256, "tile": 5000}
    got = exact.generator_curve(
        P, lambda z: jnp.stack([first(z), second(z)]), LAMS, exact.Box(), **settings
    )
    assert got.alpha.shape == (2, 31)
    assert got.q_mass[1] == pytest.approx(0.5, abs=2e-3)
    assert (got.error[1] >= np.minimum(LAMS * (1 - got.p_mass), 0.5) - 1e-6).all()
    alone = exact.generator_curve(P, first, LAMS, exact.Box(), **settings)
    np.testing.assert_allclose(got.of(0).alpha, alone.alpha, rtol=1e-12)
    np.testing.assert_allclose(got.of(0).error, alone.error, rtol=1e-9)


def test_the_outside_is_a_cell():
    # P = Q with a half outside: that half is one cell of both, and all of it is in the error.
    half = exact.Box(0, 7, -7, 7)
    equal = jax.jit(lambda z: z)
    got = exact.generator_curve(gaussian(), equal, LAMS, half, cells=32, latents=512)
    np.testing.assert_allclose(got.alpha, np.minimum(1, LAMS), atol=5e-3)
    assert (got.error >= np.minimum(1, LAMS) * 0.499).all()
    assert (got.p_mass, got.q_mass) == pytest.approx((0.5, 0.5), abs=1e-3)
    samples = np.random.default_rng(3).normal(size=(1000, 2))
    few = exact.sample_curve(gaussian(), samples, [1.0], half, cells=2)
    assert few.alpha[0] > 0.9
    assert few.error[0] > 0.45


def test_the_last_tile_of_a_lattice_is_not_filled_up():
    # Four latents at (±3, ±3), turned, of a quarter each.
    got = exact.generator_curve(
        gaussian(), jax.jit(lambda z: z), [1.0], exact.Box(), cells=2, latents=2, tile=3
    )
    assert got.q_mass == 0
    near = jax.jit(lambda z: 0.1 * z)
    got = exact.generator_curve(gaussian(), near, [1.0], cells=2, latents=2, tile=3)
    assert got.q_mass == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("cells", [8, 96])
def test_masses_of_cells(cells):
    got = _cell_masses(gaussian((0.3, -0.2), ((0.5, 0.0), (0.0, 0.4))), exact.Box(), cells)
    edges = np.linspace(-4, 4, cells + 1)
    x, y = (np.diff(stats.norm.cdf(edges, m, s)) for m, s in ((0.3, 0.5), (-0.2, 0.4)))
    np.testing.assert_allclose(got[:-1], np.outer(x, y).ravel(), rtol=3e-6, atol=1e-9)
    assert got[-1] == pytest.approx(0, abs=1e-6)


def test_few_samples_say_how_little_they_know():
    # Nearly all are alone in their cell, so P = Q looks like nothing in common.
    x = np.random.default_rng(1).normal(size=(300, 2))
    got = exact.sample_curve(gaussian(), x, LAMS, exact.Box(), cells=128)
    short = np.minimum(1, LAMS) - got.alpha
    assert short.max() > 0.5
    assert (short <= got.error).all()


def test_samples_within_the_stated_bias():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 20_000, 2)).astype(np.float32) @ ROOT.T.astype(np.float32)
    x[1] += SHIFT.astype(np.float32)
    got = exact.sample_curve(P, x, LAMS, BOX, cells=32)
    for k, true in enumerate((np.minimum(1, LAMS), TRUE)):
        assert (np.abs(got.alpha[k] - true) <= got.error[k]).all()
    assert (got.error < 0.15).all()
    # Their own P's frontier is below 1 by the noise: it is there, and is not hidden.
    at_one = np.argmin(np.abs(LAMS - 1))
    assert 0.9 < got.alpha[0, at_one] < 0.995
    # Q(A_p) of P's own samples is a share of them: .99 within 4 standard deviations.
    assert got.support.precision[0] == pytest.approx(0.99, abs=4 * np.sqrt(0.0099 / 20_000) + 2e-3)
    many = exact.sample_curve(P, np.repeat(x, 4, axis=1), LAMS, BOX, cells=32)
    np.testing.assert_allclose(many.alpha, got.alpha, rtol=1e-9)
    assert (many.error < got.error).all()


# --- hypervolume ------------------------------------------------------------------------


def test_hypervolume_by_hand():
    # Steps: [0, .2] × 1, [.2, .5] × .5, [.5, 1] × .2 = .2 + .15 + .1. (.4, .4) is dominated.
    precision, recall = [0.5, 1.0, 0.4, 0.2], [0.5, 0.2, 0.4, 1.0]
    assert exact.hypervolume(precision, recall) == pytest.approx(0.45)
    assert exact.hypervolume(recall, precision) == pytest.approx(0.45)
    assert exact.hypervolume([0.5, 0.5], [0.2, 0.6]) == pytest.approx(0.3)
    assert exact.hypervolume([0.0], [1.0]) == 0
    curve = exact.curve(P, Q, np.geomspace(1e-2, 1e2, 101), BOX).curve
    points = exact.hypervolume(curve.alpha[::5], curve.beta[::5])
    area = float(frontier.area_under(curve))
    assert 0.9 * area < points < area


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.curve(P, Q, 1.0), r"lam has shape \(\)"),
        (lambda: exact.curve(P, Q, [0.0, 1.0]), "λ must be"),
        (lambda: exact.curve(P, Q, ends=(20.0, 0.05)), r"ends=\(20.0, 0.05\)"),
        (lambda: exact.curve(P, Q, box=exact.Box(1, 1)), "box=.*x0 < x1"),
        (lambda: exact.curve(P, Q, box=(0, 1, 2)), "box=.*four numbers"),
        (lambda: exact.curve(P, Q, box=exact.Box(y1=float("inf"))), "box=.*finite"),
        (lambda: exact.curve(P, Q, tolerance=0.0), "tolerance=0.0"),
        (lambda: exact.curve(P, Q, cells=0), "cells=0 .* at least 1"),
        (lambda: exact.curve(P, Q, cells=100, most=150), "most=150 .* at least 200"),
        (lambda: exact.curve(P, Q, tile=0), "tile=0"),
        (lambda: exact.curve(P, Q, share=99), "share=99"),
        (lambda: exact.generator_curve(P, jnp.sin, cells=33), "cells=33 must be even"),
        (lambda: exact.generator_curve(P, jnp.sin, latents=1), "latents=1"),
        (lambda: exact.sample_curve(P, np.zeros((5, 2)), cells=2.5), "cells=2.5"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


SMALL = {"cells": 8, "most": 16}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.curve(lambda x: x, Q, **SMALL), r"log_p must .* gave \(64, 2\)"),
        (lambda: exact.curve(P, lambda x: Q(x)[:3], **SMALL), r"log_q must .* gave \(3,\)"),
        (lambda: exact.curve(lambda x: P(x)[None], Q, **SMALL), "log_p must"),
        (lambda: exact.curve(P, lambda x: Q(x) * jnp.nan, **SMALL), "log_q is nan at"),
        (lambda: exact.curve(lambda x: P(x) + jnp.inf, Q, **SMALL), "log_p is inf at"),
        (lambda: exact.curve(P, lambda x: Q(x) + 0.7, LAMS, BOX), "log_q integrates to 2"),
        (
            lambda: exact.generator_curve(
                lambda x: P(x) + 0.7, jnp.sin, LAMS, BOX, cells=8, latents=8
            ),
            "log_p integrates to 2",
        ),
        (
            lambda: exact.generator_curve(P, lambda z: z[:, :1], cells=8, latents=4),
            r"generate must .* gave \(16, 1\)",
        ),
        (
            lambda: exact.generator_curve(P, lambda z: z / 0.0, cells=8, latents=4),
            "generate gave -?inf in 32 of 32",
        ),
        (lambda: exact.sample_curve(P, np.zeros((0, 2))), r"samples need .* not \(0, 2\)"),
        (lambda: exact.sample_curve(P, np.zeros((4, 3))), r"not \(4, 3\)"),
        (lambda: exact.sample_curve(P, np.full((4, 2), np.nan), cells=8), "samples gave nan in 8"),
        (lambda: exact.hypervolume([0.1], [0.1, 0.2]), r"\(1,\) and \(2,\)"),
        (lambda: exact.hypervolume([], []), "K >= 1"),
        (lambda: exact.hypervolume([0.1, 1.2], [0.1, 0.2]), "precision has 1.2 at 1"),
        (lambda: exact.hypervolume([0.1], [np.nan]), "recall has nan at 0"),
    ],
)
def test_bad_data_is_named(call, message):
    with pytest.raises(DataError, match=message):
        call()
