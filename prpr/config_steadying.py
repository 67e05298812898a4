"""The knobs that steady a training (`prpr.regularizers`, `prpr.augment`): what they go with.

All are off by default. Augmentation ("augment.policy") and consistency ("critic.consistency", with
a policy of its own) do not depend on each other: the one is what the critic sees, the other how
its log-ratio at what it sees changes with a further change. Either may be on alone.
"""

from typing import Any

from prpr import objectives
from prpr.errors import ConfigError

# What the control of a fine-tune may share with it. R1, R2 and the orthogonal penalties are older
# than this list and have rules of their own.
_SHARED = (
    *(f"augment.{name}" for name in ("policy", "p", "adaptive", "kimg", "sigma", "sigma_steps")),
    *(f"critic.{name}" for name in ("lecam", "lecam_decay", "freeze")),
    *(f"critic.{name}" for name in ("consistency", "consistency_policy")),
    "generator.mode_seeking",
)
_NOT_FITTED = (
    *("critic.lecam", "critic.lecam_decay", "critic.freeze", "generator.mode_seeking"),
    "augment.sigma_steps",
)
_OWN = ("schedule.lam_from", "schedule.tau_from", "schedule.steps")


def _get(cfg: Any, knob: str) -> Any:
    group, name = knob.split(".")
    return cfg[group][name]


def _copy(of: Any, to: Any, knobs: tuple[str, ...]) -> Any:
    for knob in knobs:
        group, name = knob.split(".")
        to[group][name] = of[group][name]
    return to


def shared(of: Any, to: Any) -> Any:
    """`to` itself, with what a fine-tune's control may share with the fine-tune `of`."""
    return _copy(of, to, _SHARED)


def without(cfg: Any, defaults: Any) -> Any:
    """The configuration itself with all of these knobs at their defaults."""
    return _copy(defaults, cfg, (*_SHARED, *_OWN))


def for_fit(cfg: Any, defaults: Any) -> Any:
    """The configuration itself without those that act on a generator or on a trained critic."""
    return _copy(defaults, cfg, (*_NOT_FITTED, *_OWN))


def values(cfg: Any) -> tuple[Any, ...]:
    """What the knobs are set to: of one program where they are the same."""
    return tuple(_get(cfg, knob) for knob in (*_SHARED, *_OWN))


def check(cfg: Any) -> None:
    """Raises ConfigError for a setting that could not act, or would not mean what it says."""
    _check_augment(cfg)
    _check_noise(cfg)
    _check_consistency(cfg)
    _check_routes(cfg)
    _check_schedule(cfg)


def _check_augment(cfg: Any) -> None:
    a = cfg.augment
    if a.adaptive and not a.policy:
        raise ConfigError(
            f"config.augment.adaptive = {a.adaptive!r}: there is no augmentation whose probability "
            "it would move; set config.augment.policy, such as 'color,translation,cutout'."
        )
    if a.policy and not a.p and not a.adaptive:
        raise ConfigError(
            f"config.augment.p = {a.p!r}: config.augment.policy = {a.policy!r} is then never "
            "applied; set p in (0, 1], or config.augment.adaptive, such as 0.6."
        )


def _check_noise(cfg: Any) -> None:
    policies = {
        "augment.policy": cfg.augment.policy,
        "critic.consistency_policy": cfg.critic.consistency_policy,
    }
    noisy = [knob for knob, policy in policies.items() if "noise" in policy]
    sigma = cfg.augment.sigma
    if sigma and not noisy:
        raise ConfigError(
            f"config.augment.sigma = {sigma!r}: no policy has the part 'noise'; name it in "
            "config.augment.policy, or set sigma to 0."
        )
    if noisy and not sigma:
        raise ConfigError(
            f"config.augment.sigma = {sigma!r}: config.{noisy[0]} has the part 'noise', which is "
            "none then; set sigma, such as 0.1, or leave that part out."
        )
    if cfg.augment.sigma_steps and not sigma:
        raise ConfigError(
            f"config.augment.sigma_steps = {cfg.augment.sigma_steps}: there is no noise to "
            "anneal; set config.augment.sigma, or sigma_steps to 0."
        )


def _check_consistency(cfg: Any) -> None:
    weight, policy = cfg.critic.consistency, cfg.critic.consistency_policy
    if weight and not policy:
        raise ConfigError(
            f"config.critic.consistency = {weight!r}: nothing is changed for log r̂ to stay where "
            "it is; set config.critic.consistency_policy, such as 'translation,cutout'."
        )
    if policy and not weight:
        raise ConfigError(
            f"config.critic.consistency_policy = {policy!r}: without a weight nothing reads it; "
            "set config.critic.consistency, such as 10, or the policy to ''."
        )


def _check_routes(cfg: Any) -> None:
    """What acts through samples, through the critic alone, or on a critic that was trained."""
    likelihood = cfg.objective == objectives.LIKELIHOOD
    knob, value = ("objective", cfg.objective) if likelihood else ("route", cfg.route)
    where = f"with config.{knob} = {value!r}"
    augmented, consistent = cfg.augment.policy, cfg.critic.consistency
    if cfg.log_ratio == "density" and (augmented or consistent):
        named = (
            f"config.augment.policy = {augmented!r}"
            if augmented
            else f"config.critic.consistency = {consistent!r}"
        )
        raise ConfigError(
            f"{named} with config.log_ratio = 'density': a density of items is not one of changed "
            "items; turn it off, or set config.log_ratio = 'critic'."
        )
    through_samples = {
        "augment.policy": augmented,
        "generator.mode_seeking": cfg.generator.mode_seeking,
    }
    for name, set_to in through_samples.items():
        if set_to and (likelihood or cfg.route != "samples"):
            raise ConfigError(
                f"config.{name} = {set_to!r} {where}: it acts on a generator that learns through "
                "its samples; turn it off, or set config.route = 'samples'"
                + (" and another objective." if likelihood else ".")
            )
    on_critic = {f"critic.{name}": cfg.critic[name] for name in ("lecam", "consistency", "freeze")}
    for name, set_to in on_critic.items():
        if set_to and (likelihood or cfg.route == "implicit"):
            raise ConfigError(
                f"config.{name} = {set_to!r} {where}: no critic is trained there; set it to 0."
            )
    if cfg.critic.freeze and cfg.base.loss == objectives.LIKELIHOOD:
        raise ConfigError(
            f"config.critic.freeze = {cfg.critic.freeze} with config.base.loss = 'likelihood': "
            "such a base has trained no critic, and random layers would stay random; set it to 0."
        )


def check_scratch(cfg: Any) -> None:
    """Raises ConfigError for what only a run that starts from a trained critic can do."""
    if cfg.critic.freeze:
        raise ConfigError(
            f"config.critic.freeze = {cfg.critic.freeze}: this run starts from nothing, and random "
            "layers would stay random; set it to 0."
        )


def _check_schedule(cfg: Any) -> None:
    s = cfg.schedule
    starts = {"lam": s.lam_from, "tau": s.tau_from}
    moved = [name for name, start in starts.items() if start]
    for name in moved:
        if name not in objectives.get(cfg.objective).dials:
            raise ConfigError(
                f"config.schedule.{name}_from = {starts[name]!r}: config.objective = "
                f"{cfg.objective!r} does not read {name}; set it to 0."
            )
    if moved and not s.steps:
        raise ConfigError(
            f"config.schedule.steps = 0 with config.schedule.{moved[0]}_from = "
            f"{starts[moved[0]]!r}: set steps to the generator steps until the end is reached, at "
            f"most config.train.steps = {cfg.train.steps}."
        )
    if s.steps and not moved:
        raise ConfigError(
            f"config.schedule.steps = {s.steps}: nothing moves; set config.schedule.lam_from or "
            "tau_from, or steps to 0."
        )
    if s.steps > cfg.train.steps:
        raise ConfigError(
            f"config.schedule.steps = {s.steps}: the run has config.train.steps = "
            f"{cfg.train.steps} and would end on the way; choose at most that."
        )
