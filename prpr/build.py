"""From a configuration to the parts of a run: data, models, losses, optimisers.

Nothing here trains; a configuration that cannot be built ends here, before anything is written.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prpr import augment, config, data, models, objectives, parallel, ratio, regularizers, train
from prpr.errors import ConfigError, DataError

_EXAMPLES = 256  # items by which a density's layers are set up


class Splits(NamedTuple):
    """The three disjoint parts of a data set; see `prpr.data.load`."""

    train: data.AnyDataset
    valid: data.AnyDataset
    test: data.AnyDataset

    def held_out(self, name: str) -> data.AnyDataset:
        """The part that scores are taken on."""
        return self.valid if name == "valid" else self.test


def splits(cfg: config.Config) -> Splits:
    """Loads the data; raises ConfigError or DataError for what cannot be used."""
    d = cfg.data
    options = data.Options(
        path=d.path,
        resolution=d.resolution,
        crop=d.crop,
        workers=d.workers,
        max_corrupt=d.max_corrupt,
        miniature=d.miniature,
        classes=d.classes,
    )
    parts = Splits(
        *(
            data.load(d.name, name, d.split_seed, d.fractions, options=options)
            for name in data.SPLITS
        )
    )
    for part in parts:
        if isinstance(part, data.Dataset) and len(part.shape) == 3:
            data.check_images(part.images, part.labels, part.num_classes, part.levels)
        elif isinstance(part, data.Dataset) and not np.isfinite(part.images).all():
            raise DataError(f"points of {part.name!r} have NaN or infinity: drop them.")
    if cfg.train.batch > parts.train.size:
        raise ConfigError(
            f"config.train.batch = {cfg.train.batch}: larger than the training split of "
            f"{cfg.data.name!r}, {parts.train.size} samples; choose at most that."
        )
    return parts


def spread(size: int, count: int) -> np.ndarray:
    """`count` rows (all, where there are fewer) spread evenly over `size` of them."""
    return np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int))


def share(cfg: config.Config, devices: int) -> int:
    """One device's part of a batch.

    Args:
      cfg: the configuration.
      devices: local ones that share a batch.

    Raises:
      ConfigError: parts that are not equal.
    """
    batch, pieces = cfg.train.batch, cfg.train.accumulate
    whole = devices * pieces * (jax.process_count() if cfg.train.layout == parallel.DATA else 1)
    if batch % whole:
        near = max(batch // whole, 1) * whole
        raise ConfigError(
            f"config.train.batch = {batch}: must be a multiple of {whole}, since all devices "
            f"({whole // pieces}) and all pieces of train.accumulate = {pieces} take equal parts; "
            f"{near} is."
        )
    return batch * pieces // whole


def batches(cfg: config.Config, dataset: data.AnyDataset, seed: int) -> data.Batches:
    """The stream of training batches; of several processes that share a batch, this one's part."""
    alone = cfg.train.layout != parallel.DATA
    part = (0, 1) if alone else (jax.process_index(), jax.process_count())
    return data.Batches(
        dataset, cfg.train.batch, seed, flip=cfg.data.flip, balance=cfg.train.balance, shard=part
    )


def stream(
    cfg: config.Config,
    fleet: parallel.Fleet | parallel.Team,
    sources: Sequence[data.Batches],
    updates: range,
    place: Callable[[int], tuple[int, bool]],
) -> data.Loader:
    """The batches of critic updates, one a source side by side, on the devices ahead of their use.

    Args:
      cfg: the configuration.
      fleet: the devices.
      sources: of one data set, one a run, from `batches`.
      updates: counted over all steps.
      place: update -> (its number within the step, whether it ends the step).
    """

    def placed(update: int) -> Any:
        index, ends = place(update)
        scalars = {"index": np.int32(index), "advance": np.int32(ends)}
        return fleet.batch([{**source.batch(update), **scalars} for source in sources])

    # What is in memory is there at once; files are read and decoded.
    on_disk = isinstance(sources[0].dataset, data.FileDataset)
    images = len(sources) * share(cfg, fleet.share) * fleet.share
    ahead = cfg.data.prefetch if on_disk else 0
    return data.Loader(placed, updates, images=images, prefetch=ahead)


def _schedule(lr: float, decay: str, hold: int, steps: int) -> optax.Schedule:
    """`lr` for `hold` updates, then over `steps` updates constant or down to zero."""
    if decay == "constant":
        return optax.constant_schedule(lr)
    if decay == "linear":
        return optax.linear_schedule(lr, 0.0, steps, hold)
    if decay == "late_linear":
        return optax.linear_schedule(lr, 0.0, steps - steps // 2, hold + steps // 2)
    cosine = optax.cosine_decay_schedule(lr, steps)
    return optax.join_schedules([optax.constant_schedule(lr), cosine], [hold])


def _optimiser(opt: config.Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam, whose gradients are clipped first where `opt.clip` says so.

    The state is Adam's either way (a clip has none), so that a base that was trained without can
    be fine-tuned with it.
    """
    adam = optax.adam(schedule, b1=opt.b1, b2=opt.b2, eps=opt.eps)
    if not opt.clip:
        return adam
    clip = optax.clip_by_global_norm(opt.clip)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return adam.update(clip.update(updates, optax.EmptyState())[0], state, params)

    return optax.GradientTransformation(adam.init, update)


def _held(tx: optax.GradientTransformation, layers: int) -> optax.GradientTransformation:
    """The critic's, with so many layers from the input on at rest; a clip is of the others' norm.

    The masks are made when a state is, so that is when ConfigError is raised for too many.
    """
    if not layers:
        return tx

    def trained(params: Any) -> Any:
        try:
            return regularizers.frozen(params, layers)
        except ConfigError as error:
            raise ConfigError(f"config.critic.freeze = {layers}: {error}") from None

    def at_rest(params: Any) -> Any:
        return jax.tree.map(lambda moves: not moves, trained(params))

    # A mask passes what it leaves out on as it is, so that is set to zero.
    return optax.chain(optax.masked(tx, trained), optax.masked(optax.set_to_zero(), at_rest))


def _check_policies(cfg: config.Config, shape: tuple[int, ...]) -> None:
    """ConfigError for an augmentation that items of that shape cannot take."""
    for knob, policy in (
        ("augment.policy", cfg.augment.policy),
        ("critic.consistency_policy", cfg.critic.consistency_policy),
    ):
        try:
            augment.parts(policy, shape)
        except ConfigError as error:
            raise ConfigError(f"config.{knob}: {error}") from None


def route_of(cfg: config.Config) -> train.Route:
    """How the generator learns."""
    return "likelihood" if cfg.objective == objectives.LIKELIHOOD else cfg.route


def critic_steps(cfg: config.Config) -> int:
    """Critic updates for a generator update: none where there is no critic to train."""
    return 0 if route_of(cfg) in ("likelihood", "implicit") else cfg.critic.steps


def reads_data(cfg: config.Config) -> bool:
    """Whether a generator update reads a batch of data."""
    return route_of(cfg) != "samples"


def system(
    cfg: config.Config, dataset: data.AnyDataset, axis_name: str | None = None
) -> train.System:
    """The system that `prpr.train` steps, for data like `dataset`.

    Args:
      cfg: the configuration.
      dataset: gives the shape of an item and the number of classes.
      axis_name: of the devices that share a batch; None where nothing is mapped.

    Raises:
      ConfigError: a model that cannot make such items, or settings that it would not read.
    """
    if cfg.model.fourier and len(dataset.shape) == 3:
        raise ConfigError(
            f"config.model.fourier = {cfg.model.fourier!r}: the critic of images, as in "
            f"config.data.name = {cfg.data.name!r}, does not read it, that of points does; leave "
            "it at 0.0."
        )
    _check_policies(cfg, dataset.shape)
    span = (math.log(cfg.dial[0]), math.log(cfg.dial[1])) if cfg.dial else None
    generator, critic = models.build(
        cfg, dataset.shape, dataset.num_classes, axis_name, levels=dataset.levels, dial=span
    )
    density = train.has_density(generator)
    steps, warmup, decay = cfg.train.steps, cfg.train.warmup, cfg.train.decay
    route, each = route_of(cfg), critic_steps(cfg)
    exact = cfg.log_ratio == "density" and each > 0
    return train.System(
        generator=generator,
        critic=critic,
        critic_loss=ratio.get(
            cfg.critic.loss, scale=cfg.critic.scale, parametrisation=cfg.critic.parametrisation
        ),
        objective=objectives.get(cfg.objective),
        critic_tx=_held(
            _optimiser(
                cfg.critic,
                _schedule(
                    cfg.critic.lr, decay, warmup * (each + reads_data(cfg)), max(steps * each, 1)
                ),
            ),
            cfg.critic.freeze,
        ),
        generator_tx=_optimiser(cfg.generator, _schedule(cfg.generator.lr, decay, 0, steps)),
        dim_z=math.prod(dataset.shape) if density else cfg.model.dim_z,
        num_classes=dataset.num_classes,
        critic_steps=each,
        ema=cfg.generator.ema,
        ema_start=cfg.generator.ema_start,
        critic_ortho=cfg.critic.ortho,
        generator_ortho=cfg.generator.ortho,
        generator_tables=() if cfg.model.shared_embedding else ("gain", "bias"),
        axis_name=axis_name,
        accumulate=cfg.train.accumulate,
        r1=cfg.critic.r1,
        r2=cfg.critic.r2,
        normalise=cfg.normalise,
        route=route,
        exact=exact,
        reference=exact or route == "implicit",
        levels=dataset.levels if density else 0,
        dial=span,
        dial_items=models.dial_items(cfg),
        warmup=warmup,
        augment=train.Augment(**cfg.augment),
        lecam=cfg.critic.lecam,
        lecam_decay=cfg.critic.lecam_decay,
        consistency=cfg.critic.consistency,
        consistency_policy=cfg.critic.consistency_policy,
        mode_seeking=cfg.generator.mode_seeking,
        schedule=train.Schedule(**cfg.schedule),
        log_prior=_log_prior(cfg, dataset),
    )


def _log_prior(cfg: config.Config, dataset: data.AnyDataset) -> tuple[float, ...]:
    """`System.log_prior`; () too where the labels are known only once the images are read."""
    labels, classes = dataset.labels, dataset.num_classes
    wanted = cfg.conditional_ratio and objectives.get(cfg.objective).needs_ratio
    if not wanted or classes < 2 or labels is None:
        return ()
    # A class without data has half an item, so that its log is a number.
    counts = np.bincount(labels, minlength=classes)
    counts = np.maximum(counts > 0 if cfg.train.balance else counts, 0.5)
    if (counts == counts[0]).all():
        return ()
    return tuple(np.log(counts / counts.sum() * classes).tolist())


def example(system: train.System, dataset: data.AnyDataset) -> jax.Array:
    """Items by which a state is initialised, (N, ...): data where a layer may be set up by them."""
    if not train.has_density(system.generator):
        return jnp.zeros((2, *dataset.shape), jnp.float32)
    return jnp.asarray(dataset.take(spread(dataset.size, _EXAMPLES)).images)


def generator_step(system: train.System, n: int) -> Callable[..., Any]:
    """The generator's update as a trainer maps it: of (state), or (state, batch) if it reads data.

    Args:
      system: what is trained.
      n: samples of one device.
    """
    if system.reads_data:
        return lambda state, batch: train.generator_update(system, state, batch)
    return lambda state: train.generator_update(system, state, n)


def dials(cfg: config.Config, lam: float | None) -> dict[str, float]:
    """The objective's dials at this λ; a run without λ (a control) keeps λ = 1, unread."""
    return {"lam": 1.0 if lam is None else float(lam), **cfg.dials.to_dict()}


def check(cfg: config.Config, devices: int = 1) -> Splits:
    """Validates the configuration whole, without training: knobs, data, and models' shapes.

    Args:
      cfg: the configuration.
      devices: local ones, from `parallel.setup`.
    """
    config.validate(cfg)
    shared = devices if cfg.train.layout == parallel.DATA else 1
    share(cfg, shared)
    parts = splits(cfg)
    if min(cfg.train.diagnose_size, parts.valid.size) < shared * jax.process_count():
        raise ConfigError(
            f"config.train.diagnose_size = {cfg.train.diagnose_size}, and {parts.valid.size} "
            "validation items: the held-out checks need at least one for each device."
        )
    example = jax.ShapeDtypeStruct((2, *parts.train.shape), "float32")
    parts_system = system(cfg, parts.train)
    jax.eval_shape(
        lambda key, x: train.init(parts_system, key, x, dials(cfg, None)),
        jax.random.key(0),
        example,
    )
    if cfg.train.balance:
        data.balanced_rows(parts.train)
    if cfg.score.encoder == "classifier" and parts.train.num_classes < 2:
        raise ConfigError(
            f"config.score.encoder = 'classifier': {cfg.data.name!r} has one class, and a "
            "classifier needs two; use 'pixels'."
        )
    need = max(cfg.score.k, cfg.score.k_coverage) + 1
    held_out = parts.held_out(cfg.score.split).size
    n_real = min(cfg.score.n_real or held_out, held_out)
    n_fake = cfg.score.n_fake or n_real
    if min(n_fake, n_real) < need:
        raise ConfigError(
            f"config.score.k = {cfg.score.k}, k_coverage = {cfg.score.k_coverage}: "
            f"need at least {need} real and {need} generated samples, and there are "
            f"{n_real} and {n_fake}; lower k or raise config.score.n_real and n_fake."
        )
    return parts
