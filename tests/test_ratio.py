"""Critic losses × parametrisations: the ratio they find; then the checks of an estimate."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from prpr import ratio
from prpr.errors import ConfigError, DataError
from prpr.numerics import float64

Array = jax.Array
STEPS = ("pr", "total_variation")  # their optimal critic takes two values
IDENTIFIED = tuple(name for name in ratio.NAMES if name not in ("hinge", *STEPS))
LAM, SCALE = 2.0, 3.0
every_loss = pytest.mark.parametrize("name", IDENTIFIED)
every_way = pytest.mark.parametrize("parametrisation", ratio.PARAMETRISATIONS)


def population_loss(critic: ratio.CriticLoss, p: Array, q: Array, v: Array) -> Array:
    """The loss for a table of outputs v, one an atom: Σ p·A(v) + Σ q·B(v), exact expectations.

    `critic.loss` is A.mean() + B.mean(), so one atom at a time gives A + B, and at another
    output of the other side the difference is A alone.
    """

    def one(p_i: Array, q_i: Array, v_i: Array) -> Array:
        v, zero = v_i[None], jnp.zeros((1,))
        # p·A(v) + q·B(v) = p·(A(v) + B(0)) + q·(A(0) + B(v)) − p·B(0) − q·A(0); the last two sum
        # over all atoms to −(A(0) + B(0)).
        return p_i * critic.loss(v, zero) + q_i * critic.loss(zero, v)

    zero = jnp.zeros((1,))
    return jax.vmap(one)(p, q, v).sum() - critic.loss(zero, zero)


@every_way
@every_loss
def test_descent_on_the_loss_finds_the_log_ratio_and_the_divergence(name, parametrisation):
    """And at the minimum the loss is −D_g(P‖Q): the dual is tight."""
    p, q = oracles.discrete_pair(3, size=7)
    log_r = np.log(p / q)
    assert np.abs(log_r).max() < 4.0
    g = oracles.F["gan" if name == "logistic" else name]
    with float64():
        critic = ratio.get(name, scale=SCALE, parametrisation=parametrisation, lam=LAM)

        @jax.jit
        def look(v: Array) -> tuple[Array, Array, Array]:
            loss, slope = jax.value_and_grad(lambda v: population_loss(critic, p, q, v))(v)
            return loss, slope, critic.log_ratio(v)

        # Raw outputs that stand for log-ratios −4 and 4: themselves, or g' there.
        ends = np.array([-4.0, 4.0])
        if parametrisation == "dual":
            ends = oracles.derivative(lambda u: g(u, LAM), np.exp(ends))
        low, high = (np.full(p.shape, end / SCALE) for end in ends)
        for v, sign in ((low, -1), (high, 1)):
            np.testing.assert_allclose(look(v)[2], 4 * sign, rtol=1e-5)
            np.testing.assert_array_equal(np.sign(look(v)[1]), sign)
        # Downhill by ever smaller steps: every atom's loss is unimodal in its own output.
        v, step = 0.5 * (low + high), 0.25 * (high - low)
        for _ in range(45):
            v = v - step * np.sign(look(v)[1])
            step = 0.5 * step
        loss, _, found = look(v)
        np.testing.assert_allclose(found, log_r, atol=1e-6)
        divergence = oracles.f_divergence(p, q, lambda u: g(u, LAM))
        np.testing.assert_allclose(loss, -divergence, atol=1e-7)
        assert critic.identified


def test_logistic_is_softplus_up_to_a_constant():
    real, fake = jnp.array([-3.0, 0.5, 2.0]), jnp.array([-1.0, 4.0])
    got = ratio.get("logistic").loss(real, fake)
    # D_gan is 2·JS, which adds 2 log 2 to the value function of Goodfellow et al.
    expected = jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean() - 2 * np.log(2)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_hinge_identifies_no_ratio():
    critic = ratio.get("hinge", scale=2.0)
    assert not critic.identified
    # By hand, outputs doubled: relu(1 − 1), relu(1 + 1.5) on data; relu(1 − 4), relu(1 + 3).
    loss = critic.loss(jnp.array([0.5, -0.75]), jnp.array([-2.0, 1.5]))
    np.testing.assert_allclose(loss, (0 + 2.5) / 2 + (0 + 4) / 2)
    np.testing.assert_allclose(critic.log_ratio(jnp.array([1.5])), [3.0])


@pytest.mark.parametrize("name", STEPS)
@every_way
def test_a_two_valued_critic_is_refused(name, parametrisation):
    with pytest.raises(ConfigError, match="logistic"):
        ratio.get(name, parametrisation=parametrisation)


def test_unknown_names_suggest():
    with pytest.raises(ConfigError, match="Did you mean 'logistic'"):
        ratio.get("logistics")
    with pytest.raises(ConfigError, match="Did you mean 'dual'"):
        ratio.get("kl", parametrisation="duel")


@every_way
@pytest.mark.parametrize("name", ["hinge", *IDENTIFIED])
def test_finite_at_extreme_outputs(name, parametrisation):
    """float32, several saturated items in a batch: neither their sum nor its gradient overflows."""
    critic = ratio.get(name, parametrisation=parametrisation, lam=LAM)
    v = jnp.array([-80.0, 80.0, 80.0, 80.0, 0.0])

    @jax.jit
    def everything(v: Array) -> tuple[Array, ...]:
        value, slopes = jax.value_and_grad(critic.loss, argnums=(0, 1))(v, v)
        return value, *slopes, *jax.vmap(jax.value_and_grad(critic.log_ratio))(v)

    for array in everything(v):
        assert np.isfinite(array).all(), array


# ---------------------------------------------------------------------------- normalisation


def test_normalisations_of_the_exact_ratio_are_1():
    p, q = oracles.discrete_pair(5, size=9)
    # Each atom of the first argument once: an exact expectation under the uniform law.
    uniform = np.full(9, 1 / 9)
    f32 = np.float32
    np.testing.assert_allclose(ratio.normalisation(np.log(p / uniform).astype(f32)), 1, rtol=1e-6)
    inverse = ratio.inverse_normalisation(np.log(uniform / q).astype(f32))
    np.testing.assert_allclose(inverse, 1, rtol=1e-6)


def test_normalisation_is_a_mean_of_ratios_and_survives_extremes():
    np.testing.assert_allclose(ratio.normalisation(jnp.log(jnp.array([1.0, 2.0, 6.0]))), 3, 1e-6)
    inverse = ratio.inverse_normalisation(jnp.log(jnp.array([1.0, 0.5])))
    np.testing.assert_allclose(inverse, 1.5, rtol=1e-6)
    assert np.isfinite(ratio.normalisation(jnp.full((1000,), 80.0)))


# ---------------------------------------------------------------------------- calibration


def logit(c: np.ndarray) -> np.ndarray:
    return np.log(c / (1 - c)).astype(np.float32)


def gaussian_log_ratios(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact log-ratios at n samples each of p = N(¾, 1) and q = N(−¾, 1): log p/q = 1.5 x."""
    noise = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
    return 1.5 * (noise[0] + 0.75), 1.5 * (noise[1] - 0.75)


def test_calibration_by_hand():
    real = logit(np.array([0.84, 0.88, 0.3, 0.88]))
    fake = logit(np.array([0.3, 0.3, 0.3, 0.3, 0.88]))
    got = ratio.calibration(real, fake, bins=5)
    # A datum weighs 1/8, a sample 1/10. Bin [.2, .4): one datum and four samples; bin [.8, 1]:
    # three data and one sample.
    np.testing.assert_allclose(got.mass, [0, 0.525, 0, 0, 0.475], rtol=1e-6)
    observed = [0.1, 0.125 / 0.525, 0.5, 0.7, 0.375 / 0.475]
    predicted = [0.1, 0.3, 0.5, 0.7, (0.125 * (0.84 + 0.88 + 0.88) + 0.1 * 0.88) / 0.475]
    np.testing.assert_allclose(got.observed, observed, rtol=1e-5)
    np.testing.assert_allclose(got.predicted, predicted, rtol=1e-5)
    error = 0.525 * (0.3 - observed[1]) + 0.475 * (predicted[4] - observed[4])
    np.testing.assert_allclose(got.error, error, rtol=1e-4)


def test_calibration_keeps_the_ends():
    got = ratio.calibration(jnp.full((3,), 80.0), jnp.full((3,), -80.0))
    np.testing.assert_allclose(got.mass.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(got.error, 0, atol=1e-30)


def test_the_exact_ratio_is_calibrated_and_a_wide_one_is_caught():
    real, fake = gaussian_log_ratios(40_000)
    assert ratio.calibration(real, fake).error < 0.01
    exact = ratio.recalibrate(real, fake)
    np.testing.assert_allclose(exact.slope, 1, atol=0.02)
    np.testing.assert_allclose(exact.offset, 0, atol=0.02)
    wide = ratio.calibration(3 * real, 3 * fake)
    assert wide.error > 0.05
    mend = ratio.recalibrate(3 * real, 3 * fake)
    np.testing.assert_allclose(mend.slope, 1 / 3, atol=0.01)
    assert ratio.calibration(mend(3 * real), mend(3 * fake)).error < 0.01
    # A log-ratio that is off by a constant is off in the offset only.
    np.testing.assert_allclose(ratio.recalibrate(real + 1, fake + 1).offset, -1, atol=0.03)


def test_recalibration_weighs_data_and_samples_half_each():
    real, fake = gaussian_log_ratios(40_000)
    got = ratio.recalibrate(real, fake[:4000])
    np.testing.assert_allclose(got.slope, 1, atol=0.06)
    np.testing.assert_allclose(got.offset, 0, atol=0.06)


@pytest.mark.parametrize("width", [0.01, 1.0, 80.0])
def test_recalibration_of_separable_sets_is_finite(width):
    x = width * jnp.linspace(0.1, 1.0, 8)
    for real, fake in [(x, -x), (-x, x)]:
        got = ratio.recalibrate(real, fake)
        assert np.isfinite(got.slope)
        assert np.isfinite(got.offset)
        # Whichever way round, the recalibrated log-ratio separates the right way.
        assert got(real).mean() > got(fake).mean()


# ---------------------------------------------------------------------------- AUC


def test_auc_against_all_pairs():
    rng = np.random.default_rng(1)
    real = rng.integers(-3, 5, 33).astype(np.float32)  # integers: many ties
    fake = rng.integers(-4, 3, 20).astype(np.float32)
    above = real[:, None] > fake[None, :]
    equal = real[:, None] == fake[None, :]
    assert equal.any()
    np.testing.assert_allclose(ratio.auc(real, fake), (above + 0.5 * equal).mean(), rtol=1e-6)
    np.testing.assert_allclose(ratio.auc(jnp.zeros((4,)), jnp.zeros((3,))), 0.5)
    np.testing.assert_allclose(ratio.auc(jnp.ones((4,)), jnp.zeros((3,))), 1.0)


# ---------------------------------------------------------------------------- errors


def test_check_log_ratio():
    ratio.check_log_ratio(jnp.array([0.0, -jnp.inf]), "here")
    with pytest.raises(DataError, match=r"held-out: 2 of 3 log-ratios are NaN"):
        ratio.check_log_ratio(jnp.array([0.0, jnp.nan, jnp.nan]), "held-out")
    for shape in [(0,), (), (3, 1)]:
        with pytest.raises(DataError, match=r"here: .*non-empty"):
            ratio.check_log_ratio(jnp.zeros(shape), "here")
