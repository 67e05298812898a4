"""Whether a run is well: scalars that show a fault while training, and the watch that reads them.

Notation: log_r = log p/q as the critic estimates it, P is the data and comes first, λ = `lam`.

Three parts, none of which trains anything:

  * measurements, pure and to be jitted: `moved_share`, `saturation`, `spread`, `duplicates`,
    `proxies`, `norm`, `finite`, `largest_spectral_norm`;
  * `CHECKS`, the table of alarms: which scalars each reads, their limits and why these, how long
    they must hold, what that means, and what to try;
  * `Watch`, which is fed a run's scalars as they come and returns the alarms that ring, and
    `manual`, which turns alarms into what to try next.

The scalars that `CHECKS` reads, besides those that `prpr.train` records:

  moved_share                     `moved_share` of the log-ratio at samples
  heldout_saturation              `saturation` of the held-out log-ratios at `LOG_R_LIMIT`
  critic_spread                   `spread` of the same
  train_auc                       `ratio.auc` at as many training items, beside heldout_auc
  duplicates                      `duplicates` of held-out data and samples
  precision_proxy, recall_proxy   `proxies`, in features that do not change while training
  generator_norm, critic_norm     `norm` of the parameters
  generator_spectral_norm, critic_spectral_norm   `largest_spectral_norm` of them
"""

import fnmatch
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import ConfigError, DataError
from prpr.frontier import PrecisionRecall

Array = jax.Array
Tree = Any
Severity = Literal["fatal", "warning"]

LOG_R_LIMIT = 20.0  # a ratio of 5e8, which no held-out set can confirm


# ---- measurements ---------------------------------------------------------------------


def moved_share(
    log_r: Array, lam: Array | float, tau: Array | float, width: Array | float | None = None
) -> Array:
    """Effective share of the samples that the envelope moves, mean of 4 σ'((log_r + log λ)/τ).

    σ' is the slope that the envelope (`objectives.envelope`) gives a sample, up to 1/τ, and is at
    most 1/4: 1 says that every sample sits on the threshold r = 1/λ, 0 that none gets a gradient.
    Of a band (`objectives.band`) likewise its slope over its largest one, that at r = 1/λ.

    Args:
      log_r: (N,) at samples.
      lam: λ, () or (N,).  tau: τ in nats, ().  width: of a band, in nats; None: the envelope.

    Returns:
      () in [0, 1].
    """
    x = (log_r + jnp.log(lam)) / tau
    if width is not None:
        edge = width / tau
        largest = jax.nn.sigmoid(edge) - jax.nn.sigmoid(-edge)
        return (jax.nn.sigmoid(x + edge) - jax.nn.sigmoid(x - edge)).mean() / largest
    # Not σ(1 − σ): 1 − σ is 0 in float32 from x = 17 on, and σ(−x) is not.
    return (4.0 * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)).mean()


def saturation(log_r_real: Array, log_r_fake: Array, limit: Array | float = LOG_R_LIMIT) -> Array:
    """Share of data and samples, pooled, with |log_r| > limit (nats): (N,), (M,) -> ()."""
    return (jnp.abs(jnp.concatenate([log_r_real, log_r_fake])) > limit).mean()


def spread(log_r_real: Array, log_r_fake: Array) -> Array:
    """Largest minus smallest log_r (nats) over data and samples: (N,), (M,) -> ().

    0 of a critic whose units are dead: it is a constant, and has no gradient to come back by.
    """
    return jnp.ptp(jnp.concatenate([log_r_real, log_r_fake]))


def duplicates(real: Array, fake: Array, fraction: Array | float = 0.25) -> Array:
    """Share of samples that have another sample next to them, nearer than data are to each other.

    "Next to" is nearer than `fraction` of the median distance from a real item to the nearest
    other one, among as many real items: the first n = min(N, M) of both are compared. About
    fraction^D for samples that are as good as data of intrinsic dimension D.

    Real items that have an exact copy do not count in that median; if all have, there is no scale
    to judge by, and the share is 0.

    Args:
      real, fake: (N, ...), (M, ...) items of one shape, of any real dtype; flattened, and
        compared in float32. Memory: n x n.
      fraction: of the median distance.

    Returns:
      () in [0, 1].

    Raises:
      DataError: items of two shapes, or fewer than 2 of either kind.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise DataError(f"duplicates: items of two shapes, {real.shape[1:]} and {fake.shape[1:]}.")
    n = min(real.shape[0], fake.shape[0])
    if n < 2:
        raise DataError(f"duplicates: needs 2 items of each kind, got {n}.")
    one, two = _centred(real[:n].reshape(n, -1), fake[:n].reshape(n, -1))
    among_data = _nearest_other(one)
    median = jnp.nanmedian(jnp.where(among_data > 0, among_data, jnp.nan))
    limit = fraction * jnp.nan_to_num(median)
    return (_nearest_other(two) < limit).mean()


def proxies(real: Array, fake: Array, k: int = 3) -> PrecisionRecall:
    """kNN precision and recall of one batch, in float32 on the device.

        precision = share of samples in the k-NN ball of a real item
        recall    = share of real items in the k-NN ball of a sample

    A proxy to be watched over time: biased at the size of a batch, in whatever features are at
    hand, with ties up to rounding. Numbers to be published are `prpr.metrics.prdc`'s.
    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991).

    Args:
      real, fake: (N, D), (M, D) features of any real dtype. Memory: (N + M)².
      k: neighbours.

    Returns:
      (precision, recall), () each, in [0, 1].

    Raises:
      DataError: not (N, D) and (M, D), or fewer than k + 1 of either kind.
      ConfigError: k below 1.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise DataError(f"proxies: features must be (N, D), got {real.shape} and {fake.shape}.")
    if k < 1:
        raise ConfigError(f"k = {k!r}: must be a whole number, at least 1.")
    if min(real.shape[0], fake.shape[0]) <= k:
        raise DataError(f"proxies: k = {k} needs more items, got {real.shape} and {fake.shape}.")
    x, y = _centred(real, fake)
    between, rounding = _squared(x, y)
    in_real = _within(between, _radius(x, k)[:, None], rounding)
    in_fake = _within(between, _radius(y, k)[None, :], rounding)
    return PrecisionRecall(in_real.any(0).mean(), in_fake.any(1).mean())


def norm(tree: Tree) -> Array:
    """Euclidean norm over all floating leaves, (); ∞ or NaN only if a leaf holds ∞ or NaN.

    Divided by the largest entry before it is squared: an entry of 1e20 is no ∞ in float32.
    """
    leaves = [leaf.astype(jnp.float32) for leaf in _floating(tree)]
    if not leaves:
        return jnp.zeros((), jnp.float32)
    top = jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()
    safe = jnp.where((top > 0) & jnp.isfinite(top), top, 1.0)
    total = jnp.stack([jnp.square(leaf / safe).sum() for leaf in leaves]).sum()
    return jnp.where(jnp.isfinite(top), safe * jnp.sqrt(total), top)


def finite(tree: Tree) -> Array:
    """1.0 while every entry of every floating leaf is finite, else 0.0; ()."""
    # By the largest entry, which NaN and ∞ come through: on a CPU it compiles in a tenth of the
    # time that isfinite(leaf).all() takes.
    tops = [jnp.abs(leaf).max() for leaf in _floating(tree)]
    every = [jnp.bool(True), *(jnp.isfinite(top) for top in tops)]
    return jnp.stack(every).all().astype(jnp.float32)


def largest_spectral_norm(params: Tree, iterations: int = 20) -> Array:
    """The largest singular value over all kernels, by power iteration from a fixed start; ().

    A kernel is a floating leaf with at least two axes, as a matrix (fan_in, out); the frequencies
    of Fourier features are passed over, since they are not learned. The estimate is from below:
    it is short by about 1 % where singular values crowd at the top, as in random matrices.
    Its growth marks the collapse of a GAN (Brock, Donahue & Simonyan 2019, section 4.1).

    Args:
      params: a tree of parameters.
      iterations: products with the kernel and its transpose, at least 1.

    Returns:
      () in units of the kernels; 0 without kernels.
    """
    by_shape: dict[tuple[int, int], list[Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = {getattr(entry, "key", None) for entry in path}
        if _floating(leaf) and leaf.ndim >= 2 and "frequencies" not in names:
            flat = leaf.reshape(-1, leaf.shape[-1]).astype(jnp.float32)
            by_shape.setdefault(flat.shape, []).append(flat)
    if not by_shape:
        return jnp.zeros((), jnp.float32)
    # Those of one shape together, and one loop for all: on a CPU it compiles sooner.
    stacks = [jnp.stack(kernels) for kernels in by_shape.values()]
    tops = [jnp.abs(w).max((1, 2)) for w in stacks]
    # Scaled, so that squares of what has exploded, or is nearly 0, stay in float32's range.
    scaled = [
        w / jnp.where(top > 0, top, 1.0)[:, None, None] for w, top in zip(stacks, tops, strict=True)
    ]

    def times(w: Array, v: Array) -> Array:
        # A fused sum, not jnp.matmul: float32 on every device, and sooner compiled on a CPU.
        return (w * v[:, None, :]).sum(2)

    def body(_, vs: list[Array]) -> list[Array]:
        moved = [(w * times(w, v)[:, :, None]).sum(1) for w, v in zip(scaled, vs, strict=True)]
        return [v / jnp.maximum(_length(v)[:, None], 1e-30) for v in moved]

    # Random rather than constant: kernels whose rows sum to 0 are common (before batch norm).
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal((w.shape[0], w.shape[2])).astype(np.float32) for w in stacks]
    found = jax.lax.fori_loop(0, iterations, body, [jnp.asarray(start) for start in starts])
    each = [
        (top * _length(times(w, v))).max() for top, w, v in zip(tops, scaled, found, strict=True)
    ]
    return jnp.stack(each).max()


def _length(x: Array) -> Array:
    """(B, N) -> (B,) Euclidean."""
    return jnp.sqrt(jnp.square(x).sum(1))


def _floating(tree: Tree) -> list[Array]:
    """Its floating leaves that are not empty; keys and counters have no norm."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size]


def _centred(real: Array, fake: Array) -> tuple[Array, Array]:
    """Both in float32 about the data's mean: squares of a common offset would cost digits."""
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    centre = real.mean(0, keepdims=True)
    return real - centre, fake - centre


def _squared(x: Array, y: Array) -> tuple[Array, Array]:
    """Squared distances (N, M) by the product, and how far rounding may have moved each.

    ∞ where a sample has left float32's range, so that it spoils no other's neighbours.
    """
    sizes = jnp.square(x).sum(1)[:, None] + jnp.square(y).sum(1)[None, :]
    squared = sizes - 2.0 * jnp.matmul(x, y.T, precision="highest")
    squared = jnp.where(jnp.isnan(squared), jnp.inf, jnp.maximum(squared, 0.0))
    return squared, 4.0 * float(jnp.finfo(jnp.float32).eps) * sizes


def _to_others(x: Array) -> Array:
    """Squared distances (N, N), ∞ from an item to itself."""
    return jnp.where(jnp.eye(x.shape[0], dtype=bool), jnp.inf, _squared(x, x)[0])


def _nearest_other(x: Array) -> Array:
    """(N, D) -> (N,) distance to the nearest other item; 0 for an exact copy.

    The product finds the neighbour, the difference measures it: near copies would else be as far
    apart as rounding says.
    """
    squared = _to_others(x)
    distance = jnp.linalg.norm(x - x[squared.argmin(1)], axis=1)
    # Where all others are out of range the first is "nearest", which may be the item itself.
    return jnp.where(jnp.isfinite(squared.min(1)), distance, jnp.inf)


def _radius(x: Array, k: int) -> Array:
    """(N, D) -> (N,) squared distance to the k-th nearest other item."""
    squared, rows = _to_others(x), jnp.arange(x.shape[0])
    for _ in range(k - 1):  # for a small k much faster on a CPU than a sort
        squared = squared.at[rows, squared.argmin(1)].set(jnp.inf)
    return squared.min(1)


def _within(squared: Array, radius: Array, rounding: Array) -> Array:
    """Closed balls up to rounding, as `prdc` has them; nothing lies in a ball of infinite size."""
    return (squared <= radius + rounding) & jnp.isfinite(squared) & jnp.isfinite(radius)


# ---- the alarms -----------------------------------------------------------------------


class Limit(NamedTuple):
    """A condition on one scalar.

    Attributes:
      scalar: its name; with a star, as in "*_loss", every such name, each with a count of its own.
      rule: a key of `RULES`.
      value: the number that the rule compares with.
      minus: name of a scalar that is subtracted first.
    """

    scalar: str
    rule: str
    value: float = 0.0
    minus: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The scalars that it reads."""
        return (self.scalar, self.minus) if self.minus else (self.scalar,)


class Rule(NamedTuple):
    """How a scalar is held against a limit.

    Attributes:
      holds: (scalar, limit, reference) -> whether the limit is passed.
      words: the same in words, with {limit} and {reference}.
      reference: "start", the first finite value; "median", that of the last `WINDOW` values
        before this one; or "".
    """

    holds: Callable[[float, float, float], bool]
    words: str
    reference: Literal["", "start", "median"] = ""


def _off(value: float, limit: float, _: float) -> bool:
    return value <= 0 or abs(math.log(value)) > math.log(limit)


RULES: dict[str, Rule] = {
    "above": Rule(lambda value, limit, _: value > limit, "above {limit:.3g}"),
    "below": Rule(lambda value, limit, _: value < limit, "below {limit:.3g}"),
    "off": Rule(_off, "more than {limit:.3g} times off 1"),
    "not_finite": Rule(lambda value, _, __: not math.isfinite(value), "not finite"),
    "above_start": Rule(
        lambda value, limit, start: value > limit * start,
        "above {limit:.3g} times its start of {reference:.3g}",
        "start",
    ),
    "below_start": Rule(
        lambda value, limit, start: value < limit * start,
        "below {limit:.3g} times its start of {reference:.3g}",
        "start",
    ),
    "keeps_start": Rule(
        lambda value, limit, start: value >= limit * start,
        "not below {limit:.3g} times its start of {reference:.3g}",
        "start",
    ),
    "started_above": Rule(
        lambda _, limit, start: start > limit, "its start above {limit:.3g}", "start"
    ),
    "started_below": Rule(
        lambda _, limit, start: start < limit, "its start below {limit:.3g}", "start"
    ),
    "above_median": Rule(
        lambda value, limit, median: value > limit * median,
        "above {limit:.3g} times its running median of {reference:.3g}",
        "median",
    ),
}


class Check(NamedTuple):
    """A row of `CHECKS`.

    Attributes:
      name: of the alarm.
      severity: "fatal" (go back to a healthy checkpoint) or "warning" (look at it).
      patience: consecutive records that it must hold for before it rings.
      when: it holds where all limits of one of these groups are passed. A record that lacks a
        scalar of a group says nothing about that group.
      means: one sentence, without its full stop.
      advice: what to try, without its full stop.
      reason: why these limits and this patience.
    """

    name: str
    severity: Severity
    patience: int
    when: tuple[tuple[Limit, ...], ...]
    means: str
    advice: str
    reason: str

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the scalars that it reads."""
        names = (name for group in self.when for limit in group for name in limit.names)
        return tuple(dict.fromkeys(names))


def _exploded(net: str) -> tuple[tuple[Limit, ...], ...]:
    gradient = f"{net}_grad_norm"
    return (
        (Limit(gradient, "above_median", 100.0), Limit(gradient, "above", 1.0)),
        (Limit(f"{net}_norm", "above_start", 10.0),),
        (Limit(f"{net}_spectral_norm", "above_start", 10.0),),
    )


# A fault can bring about those in the rows below it: `manual` names causes in this order.
CHECKS: tuple[Check, ...] = (
    Check(
        name="exploding",
        severity="fatal",
        patience=3,
        when=(*_exploded("generator"), *_exploded("critic")),
        means="gradients or weights have grown out of all proportion, and numbers that are not "
        "finite come next",
        advice="halve config.generator.lr and config.critic.lr; clip with config.generator.clip "
        "and config.critic.clip at a few times the usual norm; a small config.critic.r1 and "
        "config.critic.r2 (0.01) keep the critic smooth",
        reason="Batches differ by a factor of a few, so 100 medians are no bad batch. A gradient "
        "below 1 is no explosion: it is what a saturated critic gives when it wakes up. "
        "Fine-tuned weights move by far less than their own size; first singular values grow "
        "before a collapse (Brock et al. 2019). Three records: one or two outliers do no harm, "
        "since Adam bounds a step whatever the gradient.",
    ),
    Check(
        name="not_finite",
        severity="fatal",
        patience=1,
        when=(
            (Limit("finite", "below", 1.0),),
            (Limit("*_loss", "not_finite"),),
            (Limit("generator_grad_norm", "not_finite"),),
            (Limit("critic_grad_norm", "not_finite"),),
            (Limit("generator_norm", "not_finite"),),
            (Limit("critic_norm", "not_finite"),),
        ),
        means="NaN or infinity in parameters, gradients or losses, which no further step can mend",
        advice="lower config.generator.lr and config.critic.lr, and clip with "
        "config.generator.clip and config.critic.clip; if it rang within the first steps, look at "
        "the data for values that are not finite, and set config.model.dtype to float32",
        reason="Nothing that is not finite becomes finite again.",
    ),
    Check(
        name="overfitted",
        severity="warning",
        patience=3,
        when=((Limit("train_auc", "above", 0.15, minus="heldout_auc"),),),
        means="the critic knows its training data by heart: it tells them from samples far better "
        "than it tells held-out data",
        advice="train on more data (config.data.flip where mirrored images are data too); set "
        "config.critic.r1 and config.critic.r2 to 0.01; lower config.critic.steps and "
        "config.critic.lr",
        reason="At 500 held-out items the AUC's standard error is below .02, so .15 is no chance.",
    ),
    Check(
        name="saturated",
        severity="warning",
        patience=3,
        when=(
            (Limit("heldout_saturation", "above", 0.5),),
            (Limit("heldout_auc", "above", 0.999),),
        ),
        means="the critic tells data from samples almost without error, so the generator gets no "
        "signal and no λ acts",
        advice="lower config.critic.lr and config.critic.steps; set config.critic.r1 and "
        "config.critic.r2 to 0.01; raise config.dials.tau so that the envelope reaches further; "
        "make sure that data and samples have the same range and config.data.resolution",
        reason=f"|log r| above {LOG_R_LIMIT:g} is a ratio of 5e8, and the slope of an envelope of "
        "τ = 1 is 2e-9 there. An AUC of .999 leaves one pair of a thousand in the wrong order.",
    ),
    Check(
        name="blind",
        severity="warning",
        patience=3,
        when=((Limit("heldout_auc", "below", 0.52), Limit("heldout_loss", "above", 0.679)),),
        means="on held-out data the critic knows nothing and λ acts on nothing; a perfect "
        "generator looks the same, so compare samples with data by eye and by metrics first",
        advice="if the samples are not as good as data: raise config.critic.lr, "
        "config.critic.steps and config.train.warmup; lower config.critic.r1 and config.critic.r2; "
        "widen the critic by config.model.critic_ch (for points set config.model.fourier)",
        reason="0.679 is 0.98 log 2, and chance is AUC 1/2 and log 2. Both, since a critic of "
        "confident errors has the loss alone. A warning, since a perfect generator has it too.",
    ),
    Check(
        name="unnormalised",
        severity="warning",
        patience=3,
        when=((Limit("heldout_normalisation", "off", 5.0),),),
        means="E_q[r] of the estimated ratio is far from 1, so the λ that acts is not the λ that "
        "was asked for",
        advice="set config.normalise to True; lower config.generator.lr or raise "
        "config.critic.steps so that the critic keeps up; raise config.train.batch",
        reason="λ is off by as much as E_q[r]: beyond a factor of 5 it is a neighbour's λ, as the "
        "default config.lams lie that far apart. Patience, since one large ratio can make the "
        "mean of a record.",
    ),
    Check(
        name="uncalibrated",
        severity="warning",
        patience=3,
        when=(
            (Limit("heldout_calibration_error", "above", 0.15),),
            (Limit("heldout_calibration_slope", "below", 0.2),),
            (Limit("heldout_calibration_slope", "above", 5.0),),
        ),
        means="the estimated ratio is not the ratio: its held-out log is too wide (slope below 1), "
        "too narrow (above 1) or shifted",
        advice="too wide: set config.critic.r1 and config.critic.r2 to 0.01 and lower "
        "config.critic.steps; too narrow: lower config.critic.r1 and config.critic.r2, raise "
        "config.critic.steps or config.critic.scale; shifted: set config.normalise to True; the "
        "logistic config.critic.loss calibrates best",
        reason="A fitted critic reaches .05 (config.base.fit_error); at .15 a probability is wrong "
        "by that much on average. With a slope s, λ acts as λ^s: at .2 a λ of 5 is 1.4, at 5 it is "
        "3125.",
    ),
    Check(
        name="nothing_moves",
        severity="warning",
        patience=3,
        when=((Limit("moved_share", "below", 0.01),),),
        means="almost no sample lies near the threshold r = 1/λ, so the generator stands still; a "
        "generator that has reached its λ looks the same",
        advice="raise config.dials.tau; choose config.lams nearer 1; take the band of "
        "config.objective with a larger config.dials.width; if E_q[r] is off 1, set "
        "config.normalise to True",
        reason="Below .01 less than one sample of a batch of 64 carries the gradient, which then "
        "is noise.",
    ),
    Check(
        name="collapsed",
        severity="fatal",
        patience=2,
        when=(
            (Limit("duplicates", "above", 0.5), Limit("duplicates", "started_below", 0.25)),
            (
                Limit("recall_proxy", "below_start", 1 / 3),
                Limit("recall_proxy", "started_above", 0.1),
                Limit("precision_proxy", "keeps_start", 0.9),
                Limit("precision_proxy", "started_above", 0.1),
            ),
        ),
        means="the generator has lost modes: samples repeat each other, or cover less than a third "
        "of what they covered at the start",
        advice="lower config.generator.lr; move config.lams towards 1, since a high λ pays for "
        "precision with recall; raise config.train.batch, config.dials.tau and config.critic.steps",
        reason="Data of dimension 2 have 4 % such neighbours, images none; what began with a "
        "quarter of them has lost nothing since. A high λ may halve "
        "recall and is meant to; two thirds are lost by collapse. Precision within a tenth of its "
        "start has not fallen by more than a batch's noise; where one of them started below .1 "
        "there was little to lose, and of few items. Two records, as a batch of one class gives "
        "one.",
    ),
    Check(
        name="critic_died",
        severity="fatal",
        patience=3,
        when=(
            (
                Limit("heldout_auc", "below", 0.52),
                Limit("heldout_loss", "above", 0.679),
                Limit("precision_proxy", "below_start", 0.9),
                Limit("precision_proxy", "started_above", 0.1),
            ),
            (Limit("critic_spread", "below", 1e-5),),
        ),
        means="the critic gives every item the same ratio, or knows nothing although samples are "
        "worse than at the start: nothing will make them better",
        advice="lower config.critic.lr: a step that was too large has left it with units that no "
        "input reaches; set config.critic.r1 and config.critic.r2 to 0.01",
        reason="A perfect generator leaves a critic blind too, but it is no worse than the one "
        "before, and its critic's log-ratios still differ by chance: 1e-5 is what float32 rounds "
        "off. A tenth of precision is three standard errors of 160 held-out items.",
    ),
    Check(
        name="falling_apart",
        severity="fatal",
        patience=2,
        when=(
            (
                Limit("precision_proxy", "below_start", 1 / 3),
                Limit("precision_proxy", "started_above", 0.1),
            ),
            (
                Limit("precision_proxy", "below_start", 2 / 3),
                Limit("precision_proxy", "started_above", 0.1),
                Limit("recall_proxy", "below_start", 1.0),
            ),
        ),
        means="samples have left the data: precision is below a third of what it was at the start, "
        "or below two thirds and recall has not risen for it",
        advice="lower config.generator.lr; let the critic keep up by config.critic.steps, "
        "config.critic.lr or config.train.warmup; move config.lams towards 1, since a low λ pays "
        "for recall with precision",
        reason="A low λ lowers precision by tenths and is meant to; by two thirds it is a fault. "
        "What a low λ takes from precision it gives to recall: a model that has lost both was "
        "led by none. "
        "Two records, as a batch of one class gives one.",
    ),
)


class Alarm(NamedTuple):
    """A check that rang; of plain values, `_asdict()` is JSON where `values` are finite.

    Attributes:
      check: name of the check.
      severity: "fatal" or "warning".
      step: of the record at which it rang.
      values: the scalars that passed their limits.
      found: the same in words, with the limits.
      means, advice: of the check.
    """

    check: str
    severity: Severity
    step: int
    values: Mapping[str, float]
    found: str
    means: str
    advice: str

    def text(self) -> str:
        """One line: what it means, what was read, what to try."""
        return f"{self.check}: {self.means} ({self.found}): {self.advice}."


# ---- the watch ------------------------------------------------------------------------

WINDOW = 50  # values in a running median
_ENOUGH = 5  # values without which there is no median yet


class _Reading(NamedTuple):
    """What a record says about one group of limits."""

    hit: bool
    values: dict[str, float]
    found: str


class Watch:
    """Reads the scalars of one run as they come, and rings.

    A check counts the consecutive records that pass its limits. It rings once when the count of
    one of its groups reaches the patience, and again only after a record in which none of them
    does. A record without the scalars of a group leaves that group's count as it is. NaN passes no
    limit but that of being finite, and is not counted either.

    The watch needs no clock and no array: `state()` is to be saved with a checkpoint, and the
    watch that `from_state` makes of it rings as the first would have.

    Args:
      checks: the table to watch by.
    """

    def __init__(self, checks: Sequence[Check] = CHECKS):
        self.checks = tuple(checks)
        limits = [limit for check in self.checks for group in check.when for limit in group]
        referred = {kind: set[str]() for kind in ("", "start", "median")}
        for limit in limits:
            referred[RULES[limit.rule].reference].add(limit.scalar)
        self._of_start, self._of_median = sorted(referred["start"]), sorted(referred["median"])
        self._starts: dict[str, float] = {}
        self._recent = {name: deque[float](maxlen=WINDOW) for name in self._of_median}
        self._counts: dict[str, int] = {}  # of a group; it stops at the patience

    def see(self, step: int, scalars: Mapping[str, Any]) -> list[Alarm]:
        """Takes one record; returns the alarms that it makes ring.

        Args:
          step: training steps done.
          scalars: {name: number}, whatever was measured at this step; names that no check reads
            are passed over. A group that reads several scalars needs them in one call.
        """
        step = int(step)
        for name in self._of_start:
            value = _read(scalars, name)
            if name not in self._starts and value is not None and math.isfinite(value):
                self._starts[name] = value
        alarms = []
        for check in self.checks:
            rang = self._rings(check)
            over: list[_Reading] = []
            for group in _named(check.when, scalars):
                reading = self._judge(group, scalars)
                if reading is None:
                    continue
                key = _key(check, group)
                count = self._counts.get(key, 0) + 1 if reading.hit else 0
                self._counts[key] = min(count, check.patience)
                if reading.hit and count >= check.patience:
                    over.append(reading)
            if over and not rang:
                values = {name: v for reading in over for name, v in reading.values.items()}
                found = "; ".join(reading.found for reading in over)
                alarms.append(
                    Alarm(
                        check.name, check.severity, step, values, found, check.means, check.advice
                    )
                )
        # Afterwards: a value is held against those before it.
        for name in self._of_median:
            value = _read(scalars, name)
            if value is not None and math.isfinite(value):
                self._recent[name].append(value)
        return alarms

    @property
    def ringing(self) -> tuple[str, ...]:
        """Names of the checks that rang and have not been quiet since, in the table's order."""
        return tuple(dict.fromkeys(check.name for check in self.checks if self._rings(check)))

    @property
    def healthy(self) -> bool:
        """Whether the last records passed no limit of a fatal check, not even within patience.

        A checkpoint that is saved while this is False is none to go back to.
        """
        return not any(self._most(check) for check in self.checks if check.severity == "fatal")

    def state(self) -> dict[str, Any]:
        """All that the watch remembers, as plain JSON."""
        return {
            "starts": dict(self._starts),
            "recent": {name: list(kept) for name, kept in self._recent.items()},
            "counts": {key: count for key, count in self._counts.items() if count},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], checks: Sequence[Check] = CHECKS) -> "Watch":
        """The watch that gave this `state()`; what the table no longer has is dropped.

        Args:
          state: from `state`, perhaps through JSON; {} is a fresh watch.
          checks: the table to watch by.
        """
        watch = cls(checks)
        for name, value in state.get("starts", {}).items():
            if name in watch._of_start:
                watch._starts[name] = float(value)
        for name, values in state.get("recent", {}).items():
            if name in watch._recent:
                watch._recent[name].extend(map(float, values))
        for key, count in state.get("counts", {}).items():
            if any(_is_of(check, key) for check in watch.checks):
                watch._counts[key] = int(count)
        return watch

    def rearm(self) -> "Watch":
        """Lets the fatal checks that rang ring anew, at the next record in which they hold.

        Such a watch is saved where they were ignored at that time: no other is saved ringing.
        """
        for check in self.checks:
            for key, count in self._counts.items():
                if check.severity == "fatal" and _is_of(check, key):
                    self._counts[key] = min(count, check.patience - 1)
        return self

    def _most(self, check: Check) -> int:
        """The largest count of its groups."""
        return max((count for key, count in self._counts.items() if _is_of(check, key)), default=0)

    def _rings(self, check: Check) -> bool:
        return self._most(check) >= check.patience

    def _judge(self, group: Sequence[Limit], scalars: Mapping[str, Any]) -> _Reading | None:
        """None where the record, or what came before, does not tell."""
        hit, values, found = True, {}, {}
        for limit in group:
            read = {name: _read(scalars, name) for name in limit.names}
            known = {name: value for name, value in read.items() if value is not None}
            rule = RULES[limit.rule]
            reference = self._reference(rule.reference, limit.scalar)
            if len(known) < len(read) or reference is None:
                return None
            value = known[limit.scalar] - (known[limit.minus] if limit.minus else 0.0)
            if math.isnan(value) and limit.rule != "not_finite":
                return None
            hit = hit and rule.holds(value, limit.value, reference)
            values |= known
            shown = " - ".join(limit.names) + f" = {value:.3g}"
            words = rule.words.format(limit=limit.value, reference=reference)
            found[shown] = f"{found[shown]} and {words}" if shown in found else words
        text = ", ".join(f"{shown}, {words}" for shown, words in found.items())
        return _Reading(hit, values, text)

    def _reference(self, kind: str, name: str) -> float | None:
        if kind == "start":
            return self._starts.get(name)
        if kind == "median":
            kept = sorted(self._recent[name])
            middle = len(kept) // 2
            if len(kept) < _ENOUGH:
                return None
            return kept[middle] if len(kept) % 2 else 0.5 * (kept[middle - 1] + kept[middle])
        return 0.0


def _key(check: Check, group: Sequence[Limit]) -> str:
    """A group by what it compares, so that a state survives new rows and new limits."""
    return check.name + ":" + "+".join(f"{limit.scalar} {limit.rule}" for limit in group)


def _is_of(check: Check, key: str) -> bool:
    """Whether a count is of one of a check's groups; a table may split a check in two rows."""
    return any(fnmatch.fnmatchcase(key, _key(check, group)) for group in check.when)


def _named(
    groups: Sequence[Sequence[Limit]], scalars: Mapping[str, Any]
) -> Iterator[Sequence[Limit]]:
    """The groups; one whose first scalar has a star once for each name that it stands for."""
    for group in groups:
        first = group[0].scalar
        if "*" not in first:
            yield group
            continue
        for name in fnmatch.filter(scalars, first):
            yield (group[0]._replace(scalar=name), *group[1:])


def _read(scalars: Mapping[str, Any], name: str) -> float | None:
    return float(scalars[name]) if name in scalars else None


# ---- the manual -----------------------------------------------------------------------

# What several alarms say together that none says alone.
_TOGETHER: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"exploding", "not_finite"}),
        "Numbers grew before they ceased to be finite: the rates are the cause, not the data.",
    ),
    (
        frozenset({"overfitted", "saturated"}),
        "The critic saturates on data that it knows by heart: more data or a smoother critic "
        "helps, another λ or τ does not.",
    ),
    (
        frozenset({"saturated", "nothing_moves"}),
        "Nothing moves because the critic saturates: mend the critic before τ.",
    ),
    (
        frozenset({"blind", "nothing_moves"}),
        "Nothing moves because log r is near 0 everywhere and log λ is far from it: mend the "
        "critic before τ.",
    ),
    (
        frozenset({"unnormalised", "nothing_moves"}),
        "The threshold may lie beside the samples only because E_q[r] is off 1: normalise first.",
    ),
    (
        frozenset({"blind", "falling_apart"}),
        "The generator left the data while the critic saw nothing: the critic is too weak for it.",
    ),
    (
        frozenset({"saturated", "collapsed"}),
        "A generator that gets no signal but from a few samples gathers on them: mend the critic "
        "before λ.",
    ),
)


def manual(alarms: Iterable[Alarm]) -> str:
    """What to try next, for a person who comes back to a stopped run.

    Args:
      alarms: that rang, of one run, in any order.

    Returns:
      Lines of text: each check that rang once, the most likely cause first (the order of
      `CHECKS`), with when and at which values it rang first, what it means and what to try.
    """
    rang: dict[str, list[Alarm]] = {}
    for alarm in sorted(alarms, key=lambda alarm: alarm.step):
        rang.setdefault(alarm.check, []).append(alarm)
    if not rang:
        return "No alarm rang: the scalars of this run show no fault that is watched for."
    order = {check.name: place for place, check in enumerate(CHECKS)}
    names = sorted(rang, key=lambda name: order.get(name, len(order)))
    lines = ["What rang, the most likely cause first:"]
    for place, name in enumerate(names, 1):
        first, times = rang[name][0], len(rang[name])
        again = "" if times == 1 else f", {times} times, last at step {rang[name][-1].step}"
        lines += [
            f"{place}. {name} ({first.severity}), first at step {first.step}{again}",
            f"   What it means: {first.means}.",
            f"   What was read: {first.found}.",
            f"   What to try: {first.advice}.",
        ]
    together = [sentence for those, sentence in _TOGETHER if those <= set(names)]
    if together:
        lines += ["Taken together:", *(f"   {sentence}" for sentence in together)]
    lines.append(
        "Change one thing at a time, the first one first, in another --workdir: a workdir refuses "
        "other settings. If one λ alone fails, leave it out of config.lams."
    )
    return "\n".join(lines)


def describe() -> str:
    """All alarms with their limits and reasons; `python -m prpr.health` prints it."""
    lines = []
    for check in CHECKS:
        records = "at once" if check.patience == 1 else f"in {check.patience} records in a row"
        lines.append(f"{check.name} ({check.severity}; {records}): {check.means}.")
        for group in check.when:
            each = [
                f"{' - '.join(limit.names)} "
                + RULES[limit.rule].words.format(limit=limit.value, reference=math.nan)
                for limit in group
            ]
            # What a reference is, is known in a run only.
            lines.append("   " + " and ".join(each).replace(" of nan", ""))
        lines += [f"   Why: {check.reason}", f"   Try: {check.advice}.", ""]
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    print(describe())
