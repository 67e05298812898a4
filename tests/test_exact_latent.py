"""α(λ) by sums over a latent plane, against closed and integrated frontiers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from prpr import exact
from prpr.errors import DataError

LAMS = np.array([0.05, 0.5, 1.0, 2.0, 20.0])


def log_normal(x, mean=(0.0, 0.0), scale=1.0):
    z = (x - jnp.asarray(mean, x.dtype)[None]) / scale
    return -0.5 * (z**2).sum(-1) - 2 * math.log(scale) - math.log(2 * math.pi)


@jax.jit
def log_p(x):
    return log_normal(x)


def shifted(mean, scale=1.0):
    """A Gaussian as a flow: (z -> x, log q), (x -> log q)."""

    def sample(z):
        x = jnp.asarray(mean, z.dtype)[None] + scale * z
        return x, log_normal(x, mean, scale)

    return jax.jit(sample), jax.jit(lambda x: log_normal(x, mean, scale))


def test_two_gaussians_have_their_closed_frontier():
    sample, log_q = shifted((1.5, 0.0))
    found = exact.flow_curve(log_p, sample, log_q, LAMS, exact.Box(-6, 7, -6, 6))
    # log r is normal under both: α = λ P(log r < −log λ) + Q(log r >= −log λ).
    d, t = 1.5, -np.log(LAMS)
    want = LAMS * stats.norm.cdf((t - d * d / 2) / d) + stats.norm.sf((t + d * d / 2) / d)
    np.testing.assert_allclose(found.alpha, want, atol=1e-4)
    assert (found.error < 1e-3).all()
    np.testing.assert_allclose(found.p_mass, 1, atol=1e-6)


def test_folds_narrower_than_any_grid_are_seen():
    # Half of q is squeezed into a line of width 1e-3, where a grid over x sees nothing or far
    # too much; α of a mixture of p itself and that line is close to half of min(λ, ...).
    narrow = 1e-3

    @jax.jit
    def sample(z):
        u = jax.scipy.stats.norm.cdf(z[:, 0])
        left = u < 0.5
        # The halves of the first coordinate become a normal each: uniform shares, again normal.
        first = jax.scipy.stats.norm.ppf(
            jnp.clip(jnp.where(left, 2 * u, 2 * u - 1), 1e-7, 1 - 1e-7)
        )
        x = jnp.stack([first * jnp.where(left, 1.0, narrow), z[:, 1]], axis=1)
        return x, log_q(x)

    @jax.jit
    def log_q(x):
        line = log_normal(x / jnp.asarray([[narrow, 1.0]], x.dtype)) - math.log(narrow)
        return jnp.logaddexp(log_normal(x), line) + math.log(0.5)

    found = exact.flow_curve(log_p, sample, log_q, LAMS, exact.Box(-6, 6, -6, 6))
    # min(λp, q) = min(λp, p/2) off the line, at most λp on it, which holds 3e-3 of P.
    assert found.alpha[-1] == pytest.approx(0.5, abs=0.06)
    assert found.alpha[0] == pytest.approx(0.05, abs=1e-3)
    seen = exact.curve(log_p, log_q, LAMS, exact.Box(-6, 6, -6, 6), cells=32, most=64)
    assert seen.q_mass == pytest.approx(0.5, abs=0.01)


def test_a_stack_gives_what_each_gives_alone():
    means = jnp.asarray([[0.0, 0.0], [1.0, 0.5]])
    pairs = [shifted(tuple(map(float, mean))) for mean in means]

    @jax.jit
    def sample(z):
        return jax.vmap(lambda mean: (mean[None] + z, log_normal(z)))(means)

    @jax.jit
    def log_q(x):
        return jax.vmap(lambda mean: log_normal(x - mean[None]))(means)

    both = exact.flow_curve(log_p, sample, log_q, LAMS, latents=256, cells=128)
    for k, (one, density) in enumerate(pairs):
        alone = exact.flow_curve(log_p, one, density, LAMS, latents=256, cells=128)
        np.testing.assert_allclose(both.of(k).alpha, alone.alpha, atol=1e-6)
        np.testing.assert_allclose(both.of(k).support, alone.support, atol=1e-4)
        np.testing.assert_allclose(both.of(k).ends, alone.ends, atol=1e-5)
    # P = Q: the supports are the share, α is min(λ, 1).
    np.testing.assert_allclose(both.of(0).support[:2], 0.99, atol=1e-3)
    np.testing.assert_allclose(both.of(0).alpha, np.minimum(LAMS, 1), atol=1e-4)


def test_what_is_no_sampler_is_refused():
    good, log_q = shifted((0.0, 0.0))
    for bad, says in (
        (lambda z: (z, jnp.full(len(z), jnp.nan)), "NaN or infinity"),
        (lambda z: (z, jnp.zeros((len(z), 2))), r"x \(N, 2\) and log q \(N,\)"),
    ):
        with pytest.raises(DataError, match=says):
            exact.flow_curve(log_p, bad, log_q, LAMS, latents=32, cells=32)
    assert good(jnp.zeros((3, 2)))[0].shape == (3, 2)
