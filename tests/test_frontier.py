"""prpr.frontier against closed forms, a float64 brute force, and simulations.

Gaussians: P = N(0, 1), Q = N(δ, 1) have log r(x) = ((x−δ)² − x²)/2 = δ²/2 − δx, so r < 1/λ is the
half-line x > c, c = (log λ + δ²/2)/δ, and
    α(λ) = λ P(x > c) + Q(x ≤ c) = λ Φ(−c) + Φ(c − δ).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from prpr import frontier
from prpr.errors import ConfigError, DataError

SHIFT = 1.5
LAMS = np.geomspace(0.01, 100, 25)
FAR = np.array([-80.0, -3.0, 0.0, 3.0, 80.0], np.float32)
WIDE = [1e-30, 1e-3, 1.0, 1e3, 1e30]


def gauss_alpha(lam, shift=SHIFT):
    cut = (np.log(lam) + shift**2 / 2) / shift
    return lam * stats.norm.sf(cut) + stats.norm.cdf(cut - shift)


def gauss_log_r(x, shift=SHIFT):
    return shift**2 / 2 - shift * x


def quantiles(n, mean=0.0):
    """n equally likely points of N(mean, 1): a sample without sampling error."""
    return mean + stats.norm.ppf((np.arange(n) + 0.5) / n)


def brute(log_r, lam):
    """E[min(λr, 1)] in float64, straight from the definition."""
    return np.minimum(lam * np.exp(np.asarray(log_r, np.float64)), 1).mean()


REAL = gauss_log_r(quantiles(1000))
FAKE = gauss_log_r(quantiles(999, SHIFT))


def each(estimate, *log_r):
    return np.array([estimate(*log_r, lam) for lam in LAMS])


# --- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_alpha", "of_beta", "log_r"),
    [
        (frontier.alpha, frontier.beta, (FAKE,)),
        (frontier.alpha_from_data, frontier.beta_from_data, (REAL,)),
        (frontier.alpha_both, frontier.beta_both, (REAL, FAKE)),
    ],
)
def test_two_gaussians(of_alpha, of_beta, log_r):
    # Tails beyond the last quantile are what is missing: up to .8 %, at the ends.
    np.testing.assert_allclose(each(of_alpha, *log_r), gauss_alpha(LAMS), rtol=1e-2)
    np.testing.assert_allclose(each(of_beta, *log_r), gauss_alpha(LAMS) / LAMS, rtol=1e-2)


def test_random_samples_estimate_alpha_without_bias():
    rng = np.random.default_rng(0)
    for lam in (0.2, 1.0, 5.0):
        real = gauss_log_r(rng.normal(0, 1, 40_000))
        fake = gauss_log_r(rng.normal(SHIFT, 1, 10_000))
        for value, error in (
            (frontier.alpha(fake, lam), 0.5 / 100),
            (frontier.alpha_from_data(real, lam), 0.5 * lam / 200),
            (frontier.alpha_both(real, fake, lam), 0.5 * min(1 / 100, lam / 200)),
        ):
            assert abs(float(value) - gauss_alpha(lam)) < 4 * error


def test_both_weighs_by_the_inverse_of_the_variance_bounds():
    # M = 4 real, N = 1 fake, λ = 2: M/(M + Nλ²) = 1/2. All ratios e^80: min(λ, 1/r) = 0 and
    # min(λr, 1) = 1, so the average is 1/2. With λ = 4: weight 4/20, average 16/20.
    big_p, big_q = np.full(4, 80.0), np.full(1, 80.0)
    assert float(frontier.alpha_both(big_p, big_q, 2.0)) == pytest.approx(0.5)
    assert float(frontier.alpha_both(big_p, big_q, 4.0)) == pytest.approx(0.8)
    assert float(frontier.beta_both(big_p, big_q, 4.0)) == pytest.approx(0.2)


def test_exact_overlapping_uniforms():
    # P = U[0, 1], Q = U[s, 1+s]: on [s, 1] both are 1, elsewhere one is 0: α = min(λ, 1)(1 − s).
    x = (np.arange(2000) + 0.5) / 1000
    p, q = (x < 1) * 1.0, ((x > 0.3) & (x < 1.3)) * 1.0
    got = frontier.exact(p, q, LAMS, volume=1e-3)
    np.testing.assert_allclose(got, np.minimum(LAMS, 1) * 0.7, rtol=1e-5)
    # Q = U[0, 2]: min(λ, 1/2) on [0, 1]: half the samples are real (precision), all is recalled.
    got = frontier.exact(p, np.full(2000, 0.5), LAMS, volume=1e-3)
    np.testing.assert_allclose(got, np.minimum(LAMS, 0.5), rtol=1e-5)


def test_exact_by_hand_with_zero_cells():
    p, q = [0.5, 0.5, 0.0], [0.0, 0.25, 0.75]
    # Only the middle cell is shared: α = min(λ/2, 1/4); precision 1/4, recall 1/2.
    lam = np.array([0.1, 0.5, 1.0, 1e6])
    np.testing.assert_allclose(frontier.exact(p, q, lam), [0.05, 0.25, 0.25, 0.25], rtol=1e-6)
    assert frontier.exact(p, q, 0.2).shape == ()
    # D = min(1, λ) − α includes the mass that q misses: E_q f_λ(r) + λ P(q=0) with
    # f_λ(u) = max(λu, 1) − max(λ, 1): at λ = 2, ¼(4 − 2) + ¾(1 − 2) + 2·½ = ¾ = 1 − ¼.
    assert float(frontier.divergence(frontier.exact(p, q, 2.0), 2.0)) == pytest.approx(0.75)
    same, apart = frontier.exact(p, p, lam), frontier.exact([1.0, 0.0], [0.0, 1.0], lam)
    np.testing.assert_allclose(frontier.divergence(same, lam), 0, atol=1e-7)
    np.testing.assert_allclose(frontier.divergence(apart, lam), np.minimum(1, lam))


def test_estimates_accept_infinite_ratios():
    # The discrete case above through samples: log r is −∞ where p = 0 and ∞ where q = 0.
    real, fake = np.array([np.inf, np.log(2)]), np.log(np.array([2.0, 0, 0, 0]) + 1e-300)
    fake[1:] = -np.inf
    for lam, want in ((0.1, 0.05), (0.5, 0.25), (9.0, 0.25)):
        assert float(frontier.alpha(fake, lam)) == pytest.approx(want, rel=1e-5)
        assert float(frontier.alpha_from_data(real, lam)) == pytest.approx(want, rel=1e-5)
        got = frontier.curve(real, fake, lam=[lam])
        assert float(got.alpha[0]) == pytest.approx(want, rel=1e-5)
        assert float(got.beta[0]) == pytest.approx(want / lam, rel=1e-5)


def test_disjoint_samples_give_zero():
    # p = 0 at every sample of Q, q = 0 at every sample of P: no overlap, and no NaN.
    real, fake = np.full(5, np.inf), np.full(5, -np.inf)
    for value in (
        frontier.alpha(fake, 2.0),
        frontier.beta(fake, 2.0),
        frontier.alpha_from_data(real, 2.0),
        frontier.beta_from_data(real, 2.0),
        *frontier.alpha_both(real, fake, 2.0)[None],
        *frontier.curve(real, fake, lam=np.array([2.0])).alpha,
        frontier.area_under(frontier.curve(real, fake, lam=np.array([0.5, 2.0]))),
    ):
        assert float(value) == 0
    assert np.isfinite(jax.grad(frontier.alpha)(jnp.asarray(fake), 2.0)).all()
    same = np.zeros(4)
    assert float(frontier.area_under(frontier.curve(same, same))) == pytest.approx(1, abs=1e-3)


# --- properties ---------------------------------------------------------------------------------


def random_pair(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(30, 0.3), 2)
    p[:3], q[-3:] = 0, 0
    return p / p.sum(), q / q.sum()


@pytest.mark.parametrize("seed", range(3))
def test_monotone_concave_and_bounded(seed):
    p, q = random_pair(seed)
    lam = np.linspace(0.01, 8, 200)
    alphas = np.asarray(frontier.exact(p, q, lam), np.float64)
    assert (np.diff(alphas) >= -1e-6).all()
    assert (np.diff(alphas / lam) <= 1e-6).all()
    assert (np.diff(alphas, 2) <= 1e-6).all()
    assert (alphas <= np.minimum(1, lam) + 1e-6).all()
    ends = frontier.exact(p, q, [1e-9, 1e9])
    assert float(ends[1]) == pytest.approx(q[p > 0].sum(), rel=1e-5)  # precision = Q(supp P)
    assert float(ends[0]) * 1e9 == pytest.approx(p[q > 0].sum(), rel=1e-5)  # recall = P(supp Q)


def test_exchanging_p_and_q_exchanges_precision_and_recall():
    # α_QP(1/λ) = ∫ min(q/λ, p) = ∫ min(q, λp)/λ = β_PQ(λ); for samples the ratio turns over, too.
    p, q = random_pair(0)
    np.testing.assert_allclose(
        frontier.exact(q, p, 1 / LAMS), frontier.exact(p, q, LAMS) / LAMS, rtol=1e-5
    )
    there = frontier.curve(REAL, FAKE, lam=LAMS)
    back = frontier.curve(-FAKE, -REAL, lam=1 / LAMS)
    np.testing.assert_allclose(back.alpha, there.beta, rtol=1e-4)
    np.testing.assert_allclose(back.beta, there.alpha, rtol=1e-4)


def test_the_f_divergence_form_agrees():
    p, q = random_pair(1)
    q = (q + 1e-3) / (q + 1e-3).sum()
    for lam in (0.2, 1.0, 5.0):
        by_f = (q * (np.maximum(lam * p / q, 1) - max(lam, 1))).sum()
        got = frontier.divergence(frontier.exact(p, q, lam), lam)
        assert float(got) == pytest.approx(by_f, abs=1e-6)


# --- numerics -----------------------------------------------------------------------------------


def test_float32_against_the_float64_oracle():
    rng = np.random.default_rng(1)
    log_r = rng.normal(-2, 4, 5000)
    for lam in [1e-6, *LAMS, 1e6]:
        assert float(frontier.alpha(log_r, lam)) == pytest.approx(brute(log_r, lam), rel=2e-5)
        from_p = lam * brute(-log_r, 1 / lam)
        assert float(frontier.alpha_from_data(log_r, lam)) == pytest.approx(from_p, rel=2e-5)


def test_x64_is_kept_and_bfloat16_is_widened():
    assert frontier.alpha(jnp.asarray(FAKE, jnp.bfloat16), 1.0).dtype == jnp.float32
    with jax.enable_x64(True):
        got = frontier.alpha(FAKE, 0.3)
        curve = frontier.curve(REAL, FAKE, lam=LAMS)
        assert got.dtype == curve.alpha.dtype == jnp.float64
        assert float(got) == pytest.approx(brute(FAKE, 0.3), rel=1e-12)


@pytest.mark.parametrize("which", ["real", "fake", "both"])
def test_the_sorted_curve_equals_the_direct_means(which):
    rng = np.random.default_rng(2)
    real, fake = rng.normal(1, 3, 170).round(1), rng.normal(-1, 3, 60).round(1)  # with ties
    lam = np.concatenate([np.geomspace(1e-8, 1e8, 33)[::-1], np.exp(-fake[:9])])  # on ties, too
    log_r, of_alpha, of_beta = {
        "real": ((real,), frontier.alpha_from_data, frontier.beta_from_data),
        "fake": ((fake,), frontier.alpha, frontier.beta),
        "both": ((real, fake), frontier.alpha_both, frontier.beta_both),
    }[which]
    got = frontier.curve(
        real if which != "fake" else None, fake if which != "real" else None, lam=lam
    )
    np.testing.assert_allclose(got.alpha, [of_alpha(*log_r, x) for x in lam], rtol=3e-5)
    np.testing.assert_allclose(got.beta, [of_beta(*log_r, x) for x in lam], rtol=3e-5)
    np.testing.assert_allclose(got.lam, lam, rtol=1e-6)


def test_the_curve_of_a_large_sample_is_accurate():
    rng = np.random.default_rng(3)
    log_r = rng.normal(-4.5, 3, 200_000).astype(np.float32)
    got = frontier.curve(None, log_r, lam=LAMS)
    np.testing.assert_allclose(got.alpha, [brute(log_r, x) for x in LAMS], rtol=5e-6)


def test_the_curve_needs_memory_for_n_not_n_times_l():
    n, length = 100_000, 200
    compiled = frontier._grid.lower(
        jax.ShapeDtypeStruct((n,), jnp.float32), jax.ShapeDtypeStruct((length,), jnp.float32)
    ).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * length / 10


@pytest.mark.parametrize("lam", WIDE)
def test_values_and_gradients_are_finite_at_the_extremes(lam):
    lam = jnp.float32(lam)
    estimates = {
        "alpha": frontier.alpha,
        "alpha_from_data": frontier.alpha_from_data,
        "alpha_both": lambda x, y: frontier.alpha_both(x, x, y),
        "beta": frontier.beta,
        "beta_from_data": frontier.beta_from_data,
        "beta_both": lambda x, y: frontier.beta_both(x, x, y),
        "curve.alpha": lambda x, y: frontier.curve(x, x, lam=y[None]).alpha[0],
        "curve.beta": lambda x, y: frontier.curve(x, x, lam=y[None]).beta[0],
    }
    for name, estimate in estimates.items():
        value, grads = jax.value_and_grad(estimate, (0, 1))(jnp.asarray(FAR), lam)
        assert np.isfinite(value), name
        assert np.isfinite(grads[0]).all(), name
        # dβ/dλ itself is of the order of −1/λ², which no float32 holds at λ = 1e-30.
        assert np.isfinite(grads[1]) or ("beta" in name and lam < 1e-15), name
        assert not np.isnan(grads[1]), name


def test_a_mean_whose_sum_is_no_float32():
    # 1e5 ratios of e^80 sum to 5e39; at λ = e^−85 their mean of min(r, 1/λ) is e^80 = 5.5e34.
    many = np.full(100_000, 80, np.float32)
    assert float(frontier.beta(many, np.exp(-85.0))) == pytest.approx(np.exp(80), rel=1e-4)
    assert float(frontier.curve(None, many, lam=np.exp([-85.0])).beta[0]) == pytest.approx(
        np.exp(80), rel=1e-4
    )


def test_the_gradient_is_the_indicator_form():
    # d/d log r of the mean of min(λr, 1) is λr·1{λr < 1}/N, of min(λ, 1/r) is −1{λr > 1}/(rN).
    log_r, lam, n = jnp.asarray([-1.0, 0.5, 2.0]), 0.4, 3
    r = np.exp(np.asarray(log_r))
    np.testing.assert_allclose(
        jax.grad(frontier.alpha)(log_r, lam), lam * r * (lam * r < 1) / n, rtol=1e-5
    )
    np.testing.assert_allclose(
        jax.grad(frontier.alpha_from_data)(log_r, lam), -1.0 * (lam * r > 1) / r / n, rtol=1e-5
    )


def test_one_compilation_serves_every_lambda():
    traces = 0

    @jax.jit
    def all_of_it(real, fake, lam):
        nonlocal traces
        traces += 1
        alpha = frontier.alpha_both(real, fake, lam)
        return frontier.f_score(alpha, lam), frontier.divergence(alpha, lam)

    frontier.alpha(FAKE, 1.0)
    before = frontier._one._cache_size()
    for lam in np.geomspace(0.02, 50, 50):
        all_of_it(REAL, FAKE, jnp.float32(lam))
        frontier.alpha(FAKE, float(lam))
    assert traces == 1
    # One more for float32[1000], inside all_of_it.
    assert frontier._one._cache_size() <= before + 2


def test_vmap_and_jit_equal_the_loop():
    lam = jnp.asarray(LAMS)
    fake = jnp.asarray(FAKE)
    mapped = jax.jit(jax.vmap(frontier.alpha, in_axes=(None, 0)))(fake, lam)
    np.testing.assert_allclose(mapped, each(frontier.alpha, FAKE), rtol=1e-6)
    curve = jax.jit(lambda x, y: frontier.curve(None, x, lam=y))(fake, lam)
    np.testing.assert_allclose(curve.alpha, mapped, rtol=1e-5)


# --- what is read off ---------------------------------------------------------------------------


def test_f_scores_agree_on_the_ray():
    # Precision .6, recall .3: the ray is λ = 2. F_1 = 2·.18/.9 = .4 and, recall counting double,
    # F_2 = 5·.18/(4·.6 + .3) = 1/3: nearer to the recall. F_½ = 1.25·.18/(.15 + .3) = ½.
    lam = frontier.lam_of_wish(0.6, 0.3)
    assert lam == pytest.approx(2)
    for b, want in ((1, 0.4), (2, 1 / 3), (0.5, 0.5)):
        assert float(frontier.f_score(0.6, lam, b)) == pytest.approx(want, rel=1e-6)
        assert float(frontier.f_score_pr(0.6, 0.3, b)) == pytest.approx(want, rel=1e-6)
    rng = np.random.default_rng(4)
    precision, recall = rng.uniform(0.01, 1, (2, 50))
    got = frontier.f_score(precision, precision / recall, 3.0)
    np.testing.assert_allclose(got, frontier.f_score_pr(precision, recall, 3.0), rtol=1e-5)
    assert float(frontier.f_score_pr(0.0, 0.0)) == 0
    assert np.isfinite(jax.grad(frontier.f_score_pr, (0, 1))(0.0, 0.0)).all()


def test_best_f_finds_the_best_of_the_grid():
    curve = frontier.curve(REAL, FAKE, lam=np.geomspace(0.01, 100, 401))
    lam = np.asarray(curve.lam)
    scores = 5 * gauss_alpha(lam) / (1 + 4 * lam)
    best = frontier.best_f(curve, b=2.0)
    assert float(best.score) == pytest.approx(scores.max(), rel=2e-3)
    assert float(best.lam) == pytest.approx(lam[scores.argmax()], rel=0.1)
    # b = 1: the Gaussians are each other's mirror image, so the best λ is 1.
    assert float(frontier.best_f(curve).lam) == pytest.approx(1, rel=0.06)


def exact_curve(p, q, lam, volume=1.0):
    alpha = frontier.exact(p, q, lam, volume)
    return frontier.Curve(jnp.asarray(lam, jnp.float32), alpha, alpha / jnp.asarray(lam))


def test_area_and_ends():
    lam = np.geomspace(0.01, 100, 201)  # 1 and ½·4^k are near: the corners lie between
    ones, apart = [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]
    assert float(frontier.area_under(exact_curve(ones, ones, lam))) == pytest.approx(1, abs=1e-3)
    assert float(frontier.area_under(exact_curve(ones, apart, lam))) == 0
    # Uniforms shifted by .3: a square of side .7. U[0, 1] against U[0, 2]: precision ½, recall 1.
    x = (np.arange(2000) + 0.5) / 1000
    p, q = (x < 1) * 1.0, ((x > 0.3) & (x < 1.3)) * 1.0
    square = exact_curve(p, q, lam, 1e-3)
    half = exact_curve(p, np.full(2000, 0.5), lam, 1e-3)
    assert float(frontier.area_under(square)) == pytest.approx(0.49, abs=1e-3)
    assert float(frontier.area_under(half)) == pytest.approx(0.5, abs=2e-3)
    assert np.allclose(frontier.precision_recall(half), (0.5, 1.0), rtol=1e-5)
    # The order of the grid does not matter, nor do λ where β·β underflows.
    turned = frontier.Curve(*(x[::-1] for x in square))
    assert float(frontier.area_under(turned)) == pytest.approx(0.49, abs=1e-3)
    wide = exact_curve(ones, ones, np.geomspace(1e-30, 1e30, 6001))
    assert float(frontier.area_under(wide)) == pytest.approx(1, abs=2e-2)


def test_area_of_two_gaussians_and_how_it_is_closed():
    area = (
        0.5
        * integrate.quad(
            lambda t: (gauss_alpha(np.exp(t)) / np.exp(t)) ** 2 * np.exp(t), -20, 20, limit=200
        )[0]
    )
    lam = np.geomspace(1e-3, 1e3, 401)
    fine = frontier.curve(REAL, FAKE, lam=lam)
    assert float(frontier.area_under(fine)) == pytest.approx(area, rel=2e-3)
    # One λ: all that monotonicity allows is the rectangle α·β.
    alpha = gauss_alpha(0.5)
    point = frontier.Curve(*(jnp.asarray([v]) for v in (0.5, alpha, alpha / 0.5)))
    assert float(frontier.area_under(point)) == pytest.approx(alpha**2 / 0.5, rel=1e-6)


def test_lambda_grids():
    grid = frontier.lambda_grid(5, 0.01, 100.0)
    np.testing.assert_allclose(grid, [0.01, 0.1, 1, 10, 100], rtol=1e-6)
    angles = np.arctan(np.asarray(frontier.lambda_grid(1001, 1e-10, 1e10, "angle"), np.float64))
    np.testing.assert_allclose(angles, np.linspace(0, np.pi / 2, 1001), atol=1e-6)


# --- the held-out bound -------------------------------------------------------------------------

WRONG = {
    "right": lambda x, _: gauss_log_r(x),
    "turned over": lambda x, _: -gauss_log_r(x),
    "constant": lambda x, _: np.zeros_like(x),
    "noisy": lambda x, rng: gauss_log_r(x) + rng.normal(0, 2, x.shape),
    "overconfident": lambda x, _: 5 * gauss_log_r(x) + 1,
}


@pytest.mark.parametrize("name", WRONG)
def test_the_upper_bound_holds_for_any_ratio(name):
    rng = np.random.default_rng(5)
    lam, runs, true = np.array([0.3, 1.0, 3.0]), 300, gauss_alpha(np.array([0.3, 1.0, 3.0]))
    held, below = 0, 0
    for _ in range(runs):
        real = WRONG[name](rng.normal(0, 1, 150), rng)
        fake = WRONG[name](rng.normal(SHIFT, 1, 100), rng)
        bound = frontier.upper_bound(real, fake, lam, level=0.9)
        held = held + (bound.upper >= true)
        below = below + (bound.estimate < true)
    # 3 standard deviations of a proportion of .9 in 300 runs are .052; the bound is conservative.
    assert (held / runs >= 0.9).all()
    if name == "right":
        # The interval is needed (an unbiased estimate is too low half the time) and not idle.
        assert (below / runs > 0.3).all()
        assert bound.upper[1] < 0.8


def test_upper_bound_by_hand():
    # λ = 1, threshold log r = 0. Real: 1 of 4 below; fake: 0 of 3 at or above.
    real, fake = [-1.0, 0.0, 1.0, 2.0], [-3.0, -2.0, -1.0]
    bound = frontier.upper_bound(real, fake, 1.0, level=0.9)
    np.testing.assert_allclose(bound.estimate, [0.25])
    # Clopper-Pearson: the limit u solves P(Bin(n, u) ≤ k) = .05. k = 0: u = 1 − .05^(1/3) = .632.
    # k = 1 of 4: .751. Their sum is more than 1, the ceiling.
    assert bound.upper[0] == 1
    small = frontier.upper_bound(np.tile(real, 100), np.tile(fake, 100), 1.0, level=0.9)
    p_limit, q_limit = small.upper[0] - (1 - 0.05 ** (1 / 300)), 1 - 0.05 ** (1 / 300)
    assert stats.binom.cdf(100, 400, p_limit) == pytest.approx(0.05, rel=1e-6)
    assert stats.binom.cdf(0, 300, q_limit) == pytest.approx(0.05, rel=1e-6)
    grid = [0.5, 1.0, 2.0]
    each = frontier.upper_bound(REAL, FAKE, grid)
    together = frontier.upper_bound(REAL, FAKE, grid, simultaneous=True)
    alone = frontier.upper_bound(REAL, FAKE, grid, level=1 - 0.05 / 3)
    assert (together.upper > each.upper).all()
    np.testing.assert_allclose(together.upper, alone.upper, rtol=1e-12)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0, -1.0, float("nan"), float("inf"), "1", None, 1e-50, 2j])
def test_bad_lambdas_are_named(lam):
    for call in (
        lambda: frontier.alpha(FAKE, lam),
        lambda: frontier.alpha_both(REAL, FAKE, lam),
        lambda: frontier.exact([1.0], [1.0], lam),
        lambda: frontier.upper_bound(REAL, FAKE, lam),
    ):
        with pytest.raises(ConfigError, match="λ must be") as caught:
            call()
        assert repr(lam) in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frontier.alpha([], 1.0), "log_r_fake needs"),
        (lambda: frontier.alpha([[0.0]], 1.0), r"\(1, 1\)"),
        (lambda: frontier.alpha_from_data([0.0, np.nan], 1.0), "log_r_real has 1 NaN among 2"),
        (lambda: frontier.upper_bound([0.0], [np.nan], 1.0), "log_r_fake has 1 NaN"),
        (lambda: frontier.curve(), "neither"),
        (lambda: frontier.exact([0.5, 0.6], [0.5, 0.5], 1.0), "p sums to 1.1"),
        (lambda: frontier.exact([0.5, 0.5], [1.5, -0.5], 1.0), "q has a negative"),
        (lambda: frontier.exact([0.5, np.nan], [0.5, 0.5], 1.0), "p has a negative value or a NaN"),
        (lambda: frontier.exact([1.0], [0.5, 0.5], 1.0), "one shape"),
    ],
)
def test_bad_data_is_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frontier.alpha(FAKE, [1.0, 2.0]), "use vmap"),
        (lambda: frontier.curve(None, FAKE, lam=1.0), "grid"),
        (lambda: frontier.upper_bound(REAL, FAKE, 1.0, level=95), "level=95"),
        (lambda: frontier.lam_of_wish(0.0, 0.5), r"precision=0.0"),
        (lambda: frontier.lam_of_wish(0.5, 1.2), r"recall=1.2"),
        (lambda: frontier.lam_of_wish(0.5, "much"), "recall='much'"),
        (lambda: frontier.lambda_grid(1), "n=1"),
        (lambda: frontier.lambda_grid(9, 2.0, 1.0), "low=2.0"),
        (lambda: frontier.lambda_grid(9, 0.0, 1.0), "0.0"),
        (lambda: frontier.lambda_grid(9, spacing="linear"), "'linear'"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
