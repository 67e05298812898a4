"""One training step, the same for every objective, model and λ.

    state, scalars = step(state, batch)

pure, to be jitted or mapped over devices. A step is `critic_steps` critic updates on fresh
batches of data and of samples, then one generator update and its moving average. λ, τ and the
other dials are leaves of the state, so that one compilation serves all their values.

Notation: θ generator parameters, φ critic parameters, log_r = log p/q as the critic estimates
it. The generator's objective freezes φ (the envelope theorem, see `prpr.objectives`).

Where the step is mapped over devices, `System.axis_name` names the axis: each device has its
part of the batch, every mean (gradients, losses, moments, E_q[r̂]) is over all of them, and the
latents are drawn for the whole batch and then cut, so that the numbers do not depend on how
many devices there are. With `System.accumulate` > 1 a device computes its part in as many
pieces and sums the gradients: singular vectors move once, batch norm sees one piece (of all
devices) at a time.

A generator whose density is known (`prpr.models.flows`) can learn by other routes than through
its samples, and knows its own half of the ratio: see `Route` and `System.exact` in `prpr.systems`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from prpr import augment, health, objectives, pieces, ratio, regularizers, seen
from prpr.models.dial import heard
from prpr.systems import (
    Array,
    Augment,
    Batch,
    Net,
    Route,
    Scalars,
    Schedule,
    Step,
    System,
    TrainState,
    Tree,
    apply_frozen,
    apply_training,
    grafted,
    has_density,
    init,
    log_density,
    log_likelihood,
    sample_and_log_density,
    split,
    start,
    to_float,
    turned,
)

__all__ = [
    "Augment",
    "Batch",
    "Net",
    "Route",
    "Scalars",
    "Schedule",
    "Step",
    "System",
    "TrainState",
    "apply_frozen",
    "class_prior",
    "critic_update",
    "diagnose",
    "generator_update",
    "grafted",
    "has_density",
    "held_out",
    "init",
    "joint_log_ratio",
    "log_density",
    "log_ratio",
    "make_step",
    "sample_and_log_density",
    "split",
    "start",
    "turned",
]

_DIAGNOSE = 2**20  # place of the diagnosis among a step's updates, out of their way
_COARSE = 8
_SECOND = 2**17  # place of a second draw of latents among the draws of an update


# ---- dials -----------------------------------------------------------------------------


def _dials(system: System, state: TrainState, y: Array) -> dict[str, Array]:
    """The objective's dials for samples of y: λ is each sample's own where there is a dial."""
    _, log_lam = heard(y)
    own = state.dials if log_lam is None else {**state.dials, "lam": jnp.exp(log_lam)}
    return {**own, **_scheduled(system, state, own)}


def _scheduled(system: System, state: TrainState, dials: dict[str, Array]) -> dict[str, Array]:
    """Those dials that are on their way to their end, where they are now."""
    s = system.schedule
    starts = {"lam": s.lam_from, "tau": s.tau_from}
    return {
        name: regularizers.schedule(start, dials[name], s.steps, "linear")(
            state.step - system.warmup
        )
        for name, start in starts.items()
        if start
    }


# ---- densities ------------------------------------------------------------------------


def _continuous(system: System, image: Array, noise: Array) -> Array:
    """Data as a density sees them: noise in (0, 1) between the values on their grid."""
    if not system.levels:
        return image
    return image + 2.0 / (system.levels - 1) * (noise - 0.5)


def _with_density(system: System, state: TrainState, out: Array, x: Array, y: Array) -> Array:
    """The critic's raw output at x, and in it the generator's own half of the ratio."""
    if not system.exact:
        return out
    own = -log_density(system, state.generator, x, y)
    if state.reference is not None:
        own = own + log_density(system, state.reference, x, y)
    return out + own / system.critic_loss.scale


# ---- the two updates ------------------------------------------------------------------


def _critic_update(
    system: System, state: TrainState, key: Array, image: Array, label: Array
) -> tuple[TrainState, Scalars]:
    z, y = pieces.latents(system, key, image.shape[0] // system.accumulate)
    noise = pieces.noise(system, key, image)
    loss_of, to_log_r = system.critic_loss.loss, system.critic_loss.log_ratio
    drawn = seen.draws(system, key, image.shape, "data", "samples")
    again = seen.draws_again(system, key, image.shape)

    def loss(
        params: Tree,
        real: Array,
        label: Array,
        noise: Array,
        z: Array,
        y: Array,
        drawn: dict[str, augment.Draws],
        again: tuple[augment.Draws, ...],
    ) -> tuple[Array, tuple[Tree, tuple[Array, Array]]]:
        fake, _ = apply_training(
            system.generator, state.generator.params, state.generator.extra, z, y
        )
        real = seen.as_seen(system, state, drawn, "data", _continuous(system, real, noise))
        fake = seen.as_seen(system, state, drawn, "samples", fake)
        both, classes = jnp.concatenate([real, fake]), jnp.concatenate([label, y])
        out, extra = apply_training(system.critic, params, state.critic.extra, both, classes)
        out = _with_density(system, state, out, both, classes)
        real_out, fake_out = jnp.split(out, 2)
        value = loss_of(real_out, fake_out)

        def penalty(x: Array, classes: Array) -> Array:
            net = Net(params, state.critic.extra)
            return regularizers.gradient_penalty(
                lambda inputs: to_log_r(apply_frozen(system.critic, net, inputs, classes)), x
            )

        if system.r1:
            value = value + system.r1 * penalty(real, label)
        if system.r2:
            value = value + system.r2 * penalty(fake, y)
        if system.critic_ortho:
            value = value + system.critic_ortho * regularizers.orthogonal(params)
        log_r_real, log_r_fake = to_log_r(real_out), to_log_r(fake_out)
        if state.anchors is not None:
            at = state.anchors["data"], state.anchors["samples"]
            value = value + system.lecam * regularizers.lecam(log_r_real, log_r_fake, *at)
        if again:
            changed = seen.changed_again(system, state, again, real, fake)
            # Singular vectors move from where they were in the first pass, so both have the same.
            other, _ = apply_training(system.critic, params, state.critic.extra, changed, classes)
            # Of data and of samples, equally many: twice the mean of both.
            apart = 2.0 * regularizers.consistency(to_log_r(out), to_log_r(other))
            value = value + system.consistency * apart
        return value, (extra, (log_r_real, log_r_fake))

    real = pieces.cut(system, to_float(image))
    labels = pieces.told_as(system, pieces.cut(system, label), y)
    value, gradient, extra, (log_r_real, log_r_fake) = pieces.gradient(
        system, loss, state.critic.params, real, labels, noise, z, y, drawn, again
    )
    updates, opt = system.critic_tx.update(gradient, state.critic_opt, state.critic.params)
    params = optax.apply_updates(state.critic.params, _slowed(state, updates))
    # A mean of E_q[r̂] over about 50 batches; in logs, since one r̂ may be e^80.
    batch_norm = _log_mean_exp(system, log_r_fake)
    log_norm = jnp.logaddexp(jnp.log(0.98) + state.log_norm, jnp.log(0.02) + batch_norm)
    scalars = {
        "critic_loss": value,
        "log_r_data": pieces.mean(system, log_r_real.mean()),
        "log_r_samples": pieces.mean(system, log_r_fake.mean()),
        "normalisation": jnp.exp(batch_norm),
        "critic_grad_norm": optax.tree.norm(gradient),
    }
    moved = state.replace(critic=Net(params, extra), critic_opt=opt, log_norm=log_norm)
    if state.anchors is not None:
        means = {"data": scalars["log_r_data"], "samples": scalars["log_r_samples"]}
        moved = moved.replace(
            anchors={
                side: regularizers.moved_anchor(anchor, means[side], system.lecam_decay)
                for side, anchor in state.anchors.items()
            }
        )
    if state.augment_p is not None:
        p = augment.adapted(
            state.augment_p,
            log_r_real,
            batch=image.shape[0] * pieces.place(system)[0],
            target=system.augment.adaptive,
            kimg=system.augment.kimg,
            axis_name=system.axis_name,
        )
        moved, scalars["augment_p"] = moved.replace(augment_p=p), p
    return moved, scalars


def _slowed(state: TrainState, updates: Tree) -> Tree:
    return updates if state.rate is None else jax.tree.map(lambda u: state.rate * u, updates)


def _log_mean_exp(system: System, x: Array) -> Array:
    """log of the mean of eˣ over all entries and devices."""
    local = jax.nn.logsumexp(x) - jnp.log(float(x.size))
    if system.axis_name is None:
        return local
    top = jax.lax.pmax(local, system.axis_name)
    return top + jnp.log(jax.lax.pmean(jnp.exp(local - top), system.axis_name))


# Of a generator's route: (params, *piece) -> value, (collections, scalars to average).
_Loss = Callable[..., tuple[Array, tuple[Tree, Scalars]]]


def _through_samples(system: System, state: TrainState) -> _Loss:
    """Pieces (z, y, what augments the samples)."""

    def loss(
        params: Tree, z: Array, y: Array, drawn: dict[str, augment.Draws]
    ) -> tuple[Array, tuple[Tree, Scalars]]:
        dials = _dials(system, state, y)
        fake, extra = apply_training(system.generator, params, state.generator.extra, z, y)
        fake = seen.as_seen(system, state, drawn, "samples", fake)
        out = apply_frozen(system.critic, state.critic, fake, y)
        out = _with_density(system, state, out, fake, y)
        log_r = _normalised(system, state, system.critic_loss.log_ratio(out))
        log_r = log_r - class_prior(system, y)
        value = objectives.sampler_loss(system.objective, out, log_r, dials)
        alpha = jnp.exp(jnp.minimum(log_r + jnp.log(dials["lam"]), 0.0)).mean()
        return value, (extra, {"alpha": alpha})

    return loss


def _through_data(system: System, state: TrainState) -> _Loss:
    """Pieces (x, y, noise). Losses of densities are nats an entry, to be of one size everywhere."""

    def loss(params: Tree, x: Array, y: Array, noise: Array) -> tuple[Array, tuple[Tree, Scalars]]:
        extra = state.generator.extra
        log_q = log_likelihood(system, Net(params, extra), x, y, noise)
        scalars = {"log_likelihood": log_q.mean()}
        if system.route == "likelihood":
            return -log_q.mean() / system.dim_z, (extra, scalars)
        log_r = log_ratio(system, state, _continuous(system, x, noise), y)
        dials, prior = _dials(system, state, y), class_prior(system, y)
        # The other form of α(λ), E_p[min(λ, 1/r)]; p and q as they are drawn, classes and all.
        least = jnp.minimum(-log_r, jnp.log(dials["lam"]))
        scalars["alpha"] = jnp.exp(least - prior).mean()
        value = objectives.density_loss(system.objective, log_q, log_r, dials, prior)
        return value / system.dim_z, (extra, scalars)

    return loss


def _through_both(system: System, state: TrainState) -> _Loss:
    """Pieces (x, y, noise, z, y of the samples)."""

    def loss(
        params: Tree, x: Array, y: Array, noise: Array, z: Array, classes: Array
    ) -> tuple[Array, tuple[Tree, Scalars]]:
        net, now = Net(params, state.generator.extra), state.generator
        fake = jax.lax.stop_gradient(apply_frozen(system.generator, now, z, classes))
        at_data = log_likelihood(system, net, x, y, noise)
        log_r_data = log_ratio(system, state, _continuous(system, x, noise), y)
        log_r_samples = log_ratio(system, state, fake, classes)
        # Data and samples have the same λ, in the same places.
        dials = _dials(system, state, classes)
        value = objectives.balanced_loss(
            system.objective,
            (at_data, log_density(system, net, fake, classes, z)),
            (log_r_data, log_r_samples),
            dials,
            system.axis_name,
            (class_prior(system, y), class_prior(system, classes)),
        )
        alpha = jnp.exp(jnp.minimum(log_r_samples + jnp.log(dials["lam"]), 0.0)).mean()
        scalars = {"log_likelihood": at_data.mean(), "alpha": alpha}
        return value / system.dim_z, (net.extra, scalars)

    return loss


def _against_start(system: System, state: TrainState) -> _Loss:
    """Pieces (x, y, noise, z, y of the samples)."""
    before = state.reference
    assert before is not None

    def loss(
        params: Tree, x: Array, y: Array, noise: Array, z: Array, classes: Array
    ) -> tuple[Array, tuple[Tree, Scalars]]:
        now, scale = Net(params, state.generator.extra), system.critic_loss.scale
        log_q = log_likelihood(system, now, x, y, noise)
        old, log_old = sample_and_log_density(system, before, z, classes, z)
        at_data = scale * (log_q - log_likelihood(system, before, x, y, noise))
        at_old = scale * (log_density(system, now, old, classes, z) - log_old)
        dials, prior = _dials(system, state, classes), class_prior(system, y)
        value = objectives.implicit_loss(system.objective.name, at_data, at_old, dials, prior)
        return value, (now.extra, {"log_likelihood": log_q.mean()})

    return loss


_LOSSES: dict[Route, Callable[[System, TrainState], _Loss]] = {
    "samples": _through_samples,
    "data": _through_data,
    "likelihood": _through_data,
    "balanced": _through_both,
    "implicit": _against_start,
}


def _generator_update(
    system: System, state: TrainState, key: Array, data: Batch | int
) -> tuple[TrainState, Scalars]:
    given: tuple[Tree, ...] = ()
    if not isinstance(data, int):
        noise = pieces.noise(system, key, data["image"])
        images = pieces.cut(system, to_float(data["image"]))
        given = (images, pieces.cut(system, data["label"]), noise)
    z = y = jnp.zeros(())
    if system.route in ("samples", "balanced", "implicit") or system.dial is not None:
        n = data if isinstance(data, int) else data["image"].shape[0]
        z, y = pieces.latents(system, key, n // system.accumulate)
        if given:
            given = (given[0], pieces.told_as(system, given[1], y), given[2])
        if system.route in ("samples", "balanced", "implicit"):
            given += (z, y)
    if system.route == "samples":
        given += (seen.draws(system, key, _shape_of_samples(system, state, z, y), "samples"),)
    of_route = _LOSSES[system.route](system, state)

    def loss(params: Tree, *piece: Tree) -> tuple[Array, tuple[Tree, Scalars]]:
        value, kept = of_route(params, *piece)
        if system.generator_ortho:
            ortho = regularizers.orthogonal(params, tables=system.generator_tables)
            value = value + system.generator_ortho * ortho
        return value, kept

    value, gradient, extra, kept = pieces.gradient(system, loss, state.generator.params, *given)
    if system.mode_seeking:
        sought, slope = _mode_seeking(system, state, key, z, y)
        value = value + system.mode_seeking * sought
        gradient = jax.tree.map(lambda g, more: g + system.mode_seeking * more, gradient, slope)
    updates, opt = system.generator_tx.update(gradient, state.generator_opt, state.generator.params)
    params = optax.apply_updates(state.generator.params, _slowed(state, updates))
    generator = Net(params, extra)
    decay = jnp.where(state.step < system.ema_start, 0.0, system.ema)
    ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.ema, generator)
    scalars = {
        "generator_loss": value,
        "generator_grad_norm": optax.tree.norm(gradient),
        **{name: pieces.mean(system, each.mean()) for name, each in kept.items()},
        **_said(system, state),
    }
    return state.replace(generator=generator, generator_opt=opt, ema=ema), scalars


def _said(system: System, state: TrainState) -> Scalars:
    """Where the dials are that a schedule moves; not λ where each sample has its own."""
    now = _scheduled(system, state, state.dials)
    return {
        f"scheduled_{name}": value
        for name, value in now.items()
        if name != "lam" or system.dial is None
    }


def _shape_of_samples(system: System, state: TrainState, z: Array, y: Array) -> tuple[int, ...]:
    """Of all that this device draws, (pieces · n, ...)."""
    if not system.augment.policy:
        return ()
    one = jax.eval_shape(
        lambda net, z, y: apply_frozen(system.generator, net, z, y), state.generator, z[0], y[0]
    )
    return (z.shape[0] * z.shape[1], *one.shape[1:])


def _mode_seeking(
    system: System, state: TrainState, key: Array, z: Array, y: Array
) -> tuple[Array, Tree]:
    """The mode seeking penalty of this update's samples, and its gradient.

    Each sample is paired with one of other latents, of its class and its λ. The mean distance
    stands below the line, so it and its gradient are averaged over the whole batch first.
    """
    other, _ = pieces.latents(system, jax.random.fold_in(key, _SECOND), z.shape[1])

    def distance(params: Tree, z: Array, other: Array, y: Array) -> tuple[Array, tuple[Tree, Tree]]:
        x1, x2 = (
            apply_training(system.generator, params, state.generator.extra, each, y)[0]
            for each in (z, other)
        )
        return jnp.abs(x1 - x2).mean(), ({}, ())

    between, slope, _, _ = pieces.gradient(system, distance, state.generator.params, z, other, y)
    latents = pieces.mean(system, jnp.abs(z - other).mean())
    value, factor = jax.value_and_grad(regularizers.sought)(between, latents)
    return value, jax.tree.map(lambda leaf: factor * leaf, slope)


def _key(state: TrainState, index: Array | int) -> Array:
    """The key of one update: a function of the run's key, the step and the update's place in it."""
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), index)


def critic_update(system: System, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
    """One critic update.

    Args:
      batch: {"image": (N, ...) float32, or uint8 as stored, "label": (N,), "index": () int32, the
        update's place in its step, "advance": () int32, what is added to the step number: 1 for
        the last critic update of a step in which the generator rests, else 0}. N is this device's
        part, a multiple of `accumulate`.
    """
    key = _key(state, batch["index"])
    state, scalars = _critic_update(system, state, key, batch["image"], batch["label"])
    scalars["finite"] = health.finite(state.critic.params)
    return state.replace(step=state.step + batch["advance"]), scalars


def generator_update(
    system: System, state: TrainState, data: Batch | int
) -> tuple[TrainState, Scalars]:
    """One generator update; it ends the step.

    Args:
      system: what is trained.
      state: of this device.
      data: how many samples of this device to learn from; by another route than through samples
        a batch, as in `critic_update`.
    """
    key = _key(state, system.critic_steps)
    state, scalars = _generator_update(system, state, key, data)
    scalars["finite"] = health.finite(state.generator.params)
    return state.replace(step=state.step + 1), scalars


def make_step(system: System, *, move_generator: bool = True) -> Step:
    """The step function of a system: `critic_steps` critic updates, then one of the generator.

    `batch["image"]` has shape (reads, N, ...), `batch["label"]` (reads, N), with one batch more
    than `critic_steps` where the generator learns from data. With `move_generator=False` it is
    the critic-only step of a warm-up: the generator, its moving average and its optimiser stay,
    and the critic takes all batches. The scalars end with `finite`: 1 while every parameter is.

    One program for the whole step. `prpr.run` calls the same updates one by one instead, since on
    a CPU the compile time of this one grows with `critic_steps` (a loop inside it would run its
    convolutions an order of magnitude slower).
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        scalars: Scalars = {}
        updates = system.critic_steps if move_generator else system.reads
        last = updates - 1
        for i in range(updates):
            update = {
                "image": batch["image"][i],
                "label": batch["label"][i],
                "index": jnp.int32(i),
                "advance": jnp.int32(i == last and not move_generator),
            }
            state, scalars = critic_update(system, state, update)
        if move_generator:
            data: Batch | int = batch["image"].shape[1]
            if system.reads_data:
                data = {"image": batch["image"][-1], "label": batch["label"][-1]}
            state, more = generator_update(system, state, data)
            finite = scalars.get("finite", 1.0) * more["finite"]
            scalars = {**scalars, **more, "finite": finite}
        return state, scalars

    return step


def log_ratio(system: System, state: TrainState, x: Array, y: Array) -> Array:
    """log_r̂ of the state at x (N, ...), y (N,): (N,).

    It is what the objective sees: normalised if the system says so, and with `System.log_prior`
    that of a class' data to its samples, log p(x|y)/q(x|y).
    """
    return joint_log_ratio(system, state, x, y) - class_prior(system, y)


def joint_log_ratio(system: System, state: TrainState, x: Array, y: Array) -> Array:
    """The same of items with their classes as they are drawn, log p(x, y)/q(x, y)."""
    out = apply_frozen(system.critic, state.critic, x, y)
    out = _with_density(system, state, out, x, y)
    return _normalised(system, state, system.critic_loss.log_ratio(out))


def class_prior(system: System, y: Array) -> Array:
    """What `System.log_prior` takes out at y: (N,), or () where nothing is.

    Samples are drawn of all K classes alike, so log p(x, y)/q(x, y) = log p(x|y)/q(x|y) +
    log p(y)K. At λ < 1 a class of one in a hundred would have all its samples beyond the
    threshold, and get no gradient.
    """
    if not system.log_prior:
        return jnp.zeros(())
    return jnp.asarray(system.log_prior, jnp.float32)[heard(y)[0]]


def _normalised(system: System, state: TrainState, log_r: Array) -> Array:
    return log_r - state.log_norm if system.normalise else log_r


def held_out(system: System, state: TrainState, batch: Batch) -> dict[str, Array]:
    """log_r̂ at held-out data and at as many samples, as the critic sees them in training.

    With `System.augment` both are augmented, by the p and σ of now: the critic estimates
    log Kp/Kq (see `prpr.augment`), and only of that can it be checked. So what `diagnose` makes of
    it is of Kp and Kq too, and its α(λ) is at least that of p and q. "data_seen" and
    "samples_seen" are of the items themselves.

    Args:
      batch: {"image": (N, ...) of p, "label": (N,), "index": () int32, which batch it is}; N is
        this device's part.

    Returns:
      {"data": (M,), "samples": (M,)} log-ratios of items with their classes, {"data_prior",
      "samples_prior"} (M,) what `System.log_prior` takes out of them, {"data_seen",
      "samples_seen"} (M, D) features that do not change (`prpr.health` compares them),
      {"generator_norm", "critic_norm"} (devices,), of all devices together; of a generator that
      has a density also {"log_likelihood": (M,)} of the
      data, and that alone where there is no ratio.
    """
    whole, key = system._replace(accumulate=1), _key(state, _DIAGNOSE + batch["index"])
    image, found = to_float(batch["image"]), {}
    z, y = pieces.latents(whole, key, image.shape[0])
    labels = pieces.told_as(whole, batch["label"], y[0])
    if has_density(system.generator):
        (noise,) = pieces.noise(whole, key, image)
        found["log_likelihood"] = log_likelihood(system, state.generator, image, labels, noise)
        image = _continuous(system, image, noise)
    if system.has_ratio:
        found |= _held_out_ratio(whole, state, key, image, labels, z[0], y[0])
    if system.axis_name is not None:
        found = jax.lax.all_gather(found, system.axis_name, tiled=True)
    return found


def _held_out_ratio(
    system: System, state: TrainState, key: Array, image: Array, labels: Array, z: Array, y: Array
) -> dict[str, Array]:
    fake, _ = apply_training(system.generator, state.generator.params, state.generator.extra, z, y)
    drawn = seen.draws(system, key, image.shape, "data", "samples")
    drawn = jax.tree.map(lambda leaf: leaf[0], drawn)
    real, shown = (
        seen.as_seen(system, state, drawn, side, x)
        for side, x in (("data", image), ("samples", fake))
    )
    n = image.shape[:1]
    return {
        "data": joint_log_ratio(system, state, real, labels),
        "samples": joint_log_ratio(system, state, shown, y),
        "data_prior": jnp.broadcast_to(class_prior(system, labels), n),
        "samples_prior": jnp.broadcast_to(class_prior(system, y), n),
        "data_seen": _seen(image),
        "samples_seen": _seen(fake),
        "generator_norm": health.norm(state.generator.params)[None],
        "critic_norm": health.norm(state.critic.params)[None],
    }


def _seen(x: Array) -> Array:
    """Features that no training moves, (N, D): points as they are, images by means of 8 x 8."""
    if x.ndim == 4 and x.shape[1] % _COARSE == 0 and x.shape[2] % _COARSE == 0:
        n, height, width, channels = x.shape
        shape = (n, _COARSE, height // _COARSE, _COARSE, width // _COARSE, channels)
        x = x.reshape(shape).mean((2, 4))
    return x.reshape(x.shape[0], -1)


def diagnose(
    log_r_real: Array,
    log_r_fake: Array,
    lam: Array | float,
    prior_real: Array | float = 0.0,
    prior_fake: Array | float = 0.0,
) -> Scalars:
    """Held-out checks of an estimated ratio.

    Args:
      log_r_real, log_r_fake: log_r̂ at held-out data and at samples, (N,) each; of items with
        their classes, as the critic was trained.
      lam: λ of the bound.
      prior_real, prior_fake: (N,) what is taken out of them before the objective sees them; the
        bound is then that of data of all classes alike, by weights.

    Returns:
      Calibration error and slope (1: right; below 1: log_r̂ too wide), the loss of classification
      in nats (log 2 knows nothing), AUC, E_q[r̂] (1: right), E_p[1/r̂], the upper bound of α(λ) (see
      `frontier.upper_bound`), and the reliability curve, (10,) each.
    """
    curve = ratio.calibration(log_r_real, log_r_fake)
    threshold = -jnp.log(lam)
    weight = jnp.exp(-jnp.asarray(prior_real)) * jnp.ones_like(log_r_real)
    below = jnp.where(log_r_real - prior_real < threshold, weight, 0.0).sum() / weight.sum()
    bound = lam * below + (log_r_fake - prior_fake >= threshold).mean()
    return {
        "heldout_calibration_error": curve.error,
        "heldout_calibration_slope": ratio.recalibrate(log_r_real, log_r_fake).slope,
        "heldout_loss": (jax.nn.softplus(-log_r_real).mean() + jax.nn.softplus(log_r_fake).mean())
        / 2,
        "heldout_auc": ratio.auc(log_r_real, log_r_fake),
        "heldout_normalisation": ratio.normalisation(log_r_fake),
        "heldout_inverse_normalisation": ratio.inverse_normalisation(log_r_real),
        "heldout_alpha": jnp.minimum(bound, jnp.minimum(1.0, lam)),
        "reliability_predicted": curve.predicted,
        "reliability_observed": curve.observed,
        "reliability_mass": curve.mass,
    }
