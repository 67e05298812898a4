"""What a generator ascends, as pure functions of the critic's log-ratio.

Notation: p data density, q model density, log_r = log p/q, λ = `lam`, τ = `tau` > 0,
x = log_r + log λ, σ the logistic function, θ the model's parameters.

With the ratio frozen at the current model (the envelope theorem), every f-divergence has

    −∇_θ D_f = ∇_θ E_{q_θ}[a(log_r)],    a(log_r) = −(f(r) − r f'(r))

and for the PR-divergence of Verine et al. (NeurIPS 2023, arXiv:2305.18910) a is the step
1{λr > 1}. An `Objective` is such an ascended function a, here called `ascent`, smoothed where
it has to be. The same `ascent` trains both kinds of model:

  * samplers (GANs, reparameterised flows) through the sample: `sampler_loss`;
  * densities (flows) by data reweighted with a/r: `density_loss`;
  * densities by data and samples, both reweighted, by bounded weights: `balanced_loss`;
  * densities against a frozen reference, without a critic: `implicit_loss`.

Every dial (λ, τ, ...) is a traced leaf of the dictionary `dials`, so one compilation serves
all their values. The published way of training, `plug_in`, is kept as a baseline: its gradient
is not that of D_λ (tests/test_objectives.py measures by how much).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prpr import divergences
from prpr.errors import ConfigError, unknown_name

Array = jax.Array
Dials = Mapping[str, Array]
LIKELIHOOD = "likelihood"


class Objective(NamedTuple):
    """A generator objective.

    Attributes:
      name: its name in the table.
      ascent: (output, log_r, dials) -> the quantity that each sample ascends, (N,). `output` is
        the critic's raw output, which only the baseline hinge uses.
      dials: the names that it reads from `dials`.
      needs_ratio: whether `log_r` has to be a log-ratio for it to mean anything.
    """

    name: str
    ascent: Callable[[Array, Array, Dials], Array]
    dials: tuple[str, ...]
    needs_ratio: bool = True


def envelope(log_r: Array, lam: Array, tau: Array) -> Array:
    """σ((log_r + log λ)/τ): the step 1{λr > 1} smoothed at temperature τ; (N,) -> (N,).

    Ascending its mean over samples of q descends exactly the mixture of D_μ in which log μ is
    logistic around log λ with scale τ; as τ → 0 it is D_λ. τ is bias against signal.
    """
    return jax.nn.sigmoid((log_r + jnp.log(lam)) / tau)


def band(log_r: Array, lam: Array, tau: Array, width: Array) -> Array:
    """The envelope averaged over log μ uniform in [log λ − width, log λ + width]; (N,) -> (N,).

    In closed form, τ/(2·width) · [softplus((x + width)/τ) − softplus((x − width)/τ)] with
    x = log_r + log λ: a mixture of D_μ over a band of trade-offs.
    """
    x = log_r + jnp.log(lam)
    difference = jax.nn.softplus((x + width) / tau) - jax.nn.softplus((x - width) / tau)
    return tau / (2.0 * width) * difference


def plug_in(log_r: Array, lam: Array) -> Array:
    """min(λr, 1), the published objective: the estimate of α(λ) ascended with r̂ frozen.

    Its gradient is that of a mixture of D_μ over μ > λ, of weight λ/μ², not that of D_λ: mostly
    uphill but off in direction (for a sampler it can even be downhill, see the tests), and close
    to maximum likelihood for small λ.
    """
    return jnp.exp(jnp.minimum(log_r + jnp.log(lam), 0.0))


def of_divergence(name: str) -> Objective:
    """The objective of any f-divergence of `prpr.divergences`: a = −(f(r) − r f'(r)).

    Raises:
      ConfigError: for an unknown divergence, and for pr and total_variation, whose a is a step
        with no gradient (use `envelope`, or smoothed_pr).
    """
    if name in ("pr", "total_variation"):
        raise ConfigError(
            f"objective {name!r} is a step function of the ratio and gives a sampler no gradient; "
            "use 'envelope' (with its temperature tau) or 'smoothed_pr'."
        )
    divergence = divergences.get(name)

    def ascent(_output: Array, log_r: Array, dials: Dials) -> Array:
        return -divergence.h_log(log_r, dials["lam"])

    return Objective(name, ascent, ("lam",) if name == "smoothed_pr" else ())


def _no_sampler(_output: Array, _log_r: Array, _dials: Dials) -> Array:
    raise ConfigError(
        f"objective {LIKELIHOOD!r} is of a density alone: there is no critic to ascend at samples."
    )


_TABLE: dict[str, Objective] = {
    "envelope": Objective(
        "envelope", lambda _, log_r, d: envelope(log_r, d["lam"], d["tau"]), ("lam", "tau")
    ),
    "band": Objective(
        "band",
        lambda _, log_r, d: band(log_r, d["lam"], d["tau"], d["width"]),
        ("lam", "tau", "width"),
    ),
    # −h of KL is r: ascended beside the envelope it keeps a share of maximum likelihood.
    "envelope_kl": Objective(
        "envelope_kl",
        lambda _, log_r, d: (
            envelope(log_r, d["lam"], d["tau"])
            - d["epsilon"] * divergences.get("kl").h_log(log_r, d["lam"])
        ),
        ("lam", "tau", "epsilon"),
    ),
    "plug_in": Objective("plug_in", lambda _, log_r, d: plug_in(log_r, d["lam"]), ("lam",)),
    "hinge": Objective("hinge", lambda output, _, __: output, (), needs_ratio=False),
    "logistic": Objective(
        "logistic", lambda _, log_r, __: jax.nn.log_sigmoid(log_r), (), needs_ratio=False
    ),
    LIKELIHOOD: Objective(LIKELIHOOD, _no_sampler, (), needs_ratio=False),
}

NAMES: tuple[str, ...] = (
    *_TABLE,
    *(name for name in divergences.NAMES if name not in ("pr", "total_variation")),
)


def get(name: str) -> Objective:
    """The objective of that name; raises ConfigError for a name that `NAMES` does not have."""
    if name in _TABLE:
        return _TABLE[name]
    if name in divergences.NAMES:
        return of_divergence(name)
    raise unknown_name("objective", name, NAMES)


def sampler_loss(objective: Objective, output: Array, log_r: Array, dials: Dials) -> Array:
    """−E_q[a]: what a sampler descends; gradients reach θ through the samples inside log_r.

    Args:
      objective: from `get`.
      output, log_r: (N,) raw critic output and log-ratio at samples of q, differentiable in them.
      dials: traced scalars.
    """
    ascent = objective.ascent(output, log_r, dials)
    # Divided before it is summed: values saturated at the dtype's largest do not add up to ∞.
    return -(ascent / ascent.shape[0]).sum()


def density_loss(
    objective: Objective,
    log_q: Array,
    log_r: Array,
    dials: Dials,
    log_prior: Array | float = 0.0,
) -> Array:
    """−E_p[w log q], w = a/r frozen: maximum likelihood on reweighted data; -> ().

    Since E_q[a ∇log q] = E_p[(a/r) ∇log q], its gradient is exactly −∇_θ E_{q_θ}[a] for the exact
    ratio. The weight is computed in log space, so that it stays finite at log_r = ±80; it is
    negative where a is (for reverse_kl where r < e), and such data are pushed away.

    Args:
      objective: from `get`; one that needs a ratio.
      log_q: (N,) model log-density at samples of p, differentiable.
      log_r: (N,) log-ratio at the same samples.
      dials: traced scalars.
      log_prior: (N,) log p(y)/q(y) where data and samples are drawn of other classes and `log_r`
        is that within a class: the data have r e^log_prior times the samples' density.
    """
    if not objective.needs_ratio:
        raise ConfigError(f"objective {objective.name!r} has no likelihood form: it needs a ratio.")
    return -(data_weight(objective, log_r, dials, log_prior) * log_q).mean()


def data_weight(
    objective: Objective, log_r: Array, dials: Dials, log_prior: Array | float = 0.0
) -> Array:
    """a(log_r)/(r e^log_prior) at samples of p, (N,), cut from the gradient."""
    ascent = objective.ascent(log_r, log_r, dials)
    tiny = jnp.finfo(log_r.dtype).tiny
    log_size = jnp.log(jnp.maximum(jnp.abs(ascent), tiny))
    magnitude = jnp.exp(jnp.clip(log_size - log_r - log_prior, -80.0, 80.0))
    return jax.lax.stop_gradient(jnp.sign(ascent) * magnitude)


def balanced_loss(
    objective: Objective,
    log_q: tuple[Array, Array],
    log_r: tuple[Array, Array],
    dials: Dials,
    axis_name: str | None = None,
    log_prior: tuple[Array | float, Array | float] = (0.0, 0.0),
) -> Array:
    """−E_p[w log q] − E_q[w log q], w = (a − b)/(1 + r) frozen; -> ().

    In exact ratios its gradient is −∇_θ E_{q_θ}[a] in expectation, as `density_loss`'s is, since
    the sum over both is ∫ (p + q) w ∇q/q = ∫ (a − b) ∇q for any constant b. Here b is the mean of a
    over the samples, of a sample over the others. The weight q/(p + q) is the balance heuristic of
    multiple importance sampling (Veach & Guibas 1995): where a is in [0, 1], as the envelope's is,
    |w| ≤ 1 whatever the ratio. The weight a/r is near λ on the few data that a model of high λ
    leaves out, and says nothing of samples where there are no data.

    Args:
      objective: from `get`; one that needs a ratio.
      log_q, log_r: at samples of p and at samples of q: (N,) and (M,) each; log_q is
        differentiable in θ, with the samples frozen.
      dials: traced scalars.
      axis_name: of the devices that share the batch, for b; M is of all together.
      log_prior: at data and at samples, as in `density_loss`: w = (a(r) − b)/(1 + r e^log_prior).
    """
    if not objective.needs_ratio:
        raise ConfigError(f"objective {objective.name!r} has no likelihood form: it needs a ratio.")
    at_data, at_samples = (objective.ascent(each, each, dials) for each in log_r)
    total, count = at_samples.sum(), at_samples.size
    if axis_name is not None:
        total, count = jax.lax.psum(total, axis_name), count * jax.lax.axis_size(axis_name)
    ahead = (at_data - total / count, at_samples - (total - at_samples) / max(count - 1, 1))
    losses = [
        -(jax.lax.stop_gradient(a * jax.nn.sigmoid(-each - prior)) * density).mean()
        for a, each, prior, density in zip(ahead, log_r, log_prior, log_q, strict=True)
    ]
    return losses[0] + losses[1]


def check_implicit(name: str) -> None:
    """ConfigError unless the objective of that name is a divergence that `implicit_loss` takes."""
    if name not in divergences.NAMES or name in ("pr", "total_variation"):
        known = [one for one in divergences.NAMES if one not in ("pr", "total_variation")]
        raise ConfigError(
            f"config.objective = {name!r} has no implicit form, which is the dual of a divergence: "
            f"one of {', '.join(known)}; smoothed_pr is the one with a λ."
        )


def implicit_loss(
    name: str,
    log_r_data: Array,
    log_r_reference: Array,
    dials: Dials,
    prior: Array | float = 0.0,
) -> Array:
    """−(E_p[f'(r)] − E_ref[f*(f'(r))]) with r = q_θ/q_ref: a model that is its own critic; -> ().

    The dual of D_f(P‖Q_ref) with the density ratio of the model to its frozen start in the
    critic's place. It is largest where q_θ = p; how a model that cannot reach p errs is decided
    by f, whose curvature says at which ratios an error costs most: for smoothed_pr around 1/λ.
    With f of the logistic loss ("gan") it is DDO (Zheng et al. 2025, arXiv:2503.01103).

    Args:
      name: of the divergence, see `check_implicit`.
      log_r_data, log_r_reference: (N,), (M,) log q_θ − log q_ref at data and at samples of q_ref.
      dials: traced scalars.
      prior: (N,) log p(y)K of the data. E_p is then weighted by 1/p(y)K, and so is of all classes
        alike, as samples are: a model of p(x|y) cannot express another share of a class.
    """
    f = divergences.get(name)
    lam = dials["lam"]
    gain = jnp.exp(-jnp.asarray(prior)) * f.f_prime_log(log_r_data, lam) / log_r_data.shape[0]
    cost = -f.h_log(log_r_reference, lam) / log_r_reference.shape[0]
    return cost.sum() - gain.sum()
