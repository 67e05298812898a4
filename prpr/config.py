"""Every knob, once: its default, what it may be, and what it does.

    cfg = config.defaults()          # a locked ml_collections.ConfigDict
    cfg.lams = (0.2, 1.0, 5.0)
    config.validate(cfg)             # ConfigError names knob, value and allowed values

`configs/*.py` are short deltas on `defaults()`. `base_of` and `control_of` derive, from the
configuration of a fine-tune, those of the run it starts from and of the run it is compared with.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ml_collections import ConfigDict

from prpr import augment, config_steadying, data, encoders, health, models, objectives, ratio
from prpr.errors import ConfigError, unknown_name
from prpr.numerics import check_lam

# An ml_collections.ConfigDict: which attributes it has is known at run time only.
Config: TypeAlias = Any

DECAYS = ("constant", "linear", "late_linear", "cosine")
ROUTES = ("samples", "data", "balanced", "implicit")
_IGNORABLE = tuple(
    check.name
    for check in health.CHECKS
    if check.severity == "fatal" and check.name != "not_finite"  # no step can mend that
)
# Knobs of config.model that not every model reads, and those that do.
_TRANSFORMERS = ("jet", "tarflow")
_READ_BY = {
    "fourier": ("mlp", *models.FLOWS),  # of points; of images `build.system` refuses it
    "patch": _TRANSFORMERS,
    "heads": _TRANSFORMERS,
    "dequantiser": models.FLOWS,
}


class Knob(NamedTuple):
    """A setting: its default value, a check that raises ConfigError, and what it does."""

    default: Any
    check: Callable[[str, Any], None]
    help: str


def _fail(knob: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"config.{knob} = {value!r}: must be {allowed}.")


def _whole(low: int) -> Callable[[str, Any], None]:
    def check(knob: str, value: Any) -> None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not low <= value < 2**31:
            raise _fail(knob, value, f"a whole number, at least {low} and below 2³¹")

    return check


def _number(
    low: float, high: float = math.inf, *, low_open: bool = False, high_open: bool = False
) -> Callable[[str, Any], None]:
    left, right = "(" if low_open else "[", ")" if high_open or high == math.inf else "]"

    def check(knob: str, value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        inside = (
            number
            and math.isfinite(value)
            and (value > low if low_open else value >= low)
            and (value < high if high_open else value <= high)
        )
        if not inside:
            raise _fail(knob, value, f"a finite number in {left}{low:g}, {high:g}{right}")

    return check


def _name(kind: str, known: Callable[[], tuple[str, ...]]) -> Callable[[str, Any], None]:
    def check(knob: str, value: Any) -> None:
        if value not in known():
            raise ConfigError(f"config.{knob}: {unknown_name(kind, value, known())}")

    return check


def _flag(knob: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _fail(knob, value, "True or False")


def _text(knob: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _fail(knob, value, "a string")


def _some_text(knob: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise _fail(knob, value, "a string, not empty")


def _lam(value: Any) -> None:
    check_lam(value)
    if not 1e-30 < float(value) < 1e30:
        raise ConfigError(
            f"λ = {value!r} is out of the range of training in float32, (1e-30, 1e30)."
        )


def _tuple_of(check_one: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    def check(knob: str, value: Any) -> None:
        if not isinstance(value, tuple | list):
            raise _fail(knob, value, "a tuple, such as 1,2")
        for item in value:
            check_one(knob, item)
        if len(set(value)) != len(value):
            raise _fail(knob, value, "without repeats")

    return check


def _accepted_by(function: Callable[[Any], Any]) -> Callable[[str, Any], None]:
    """The check that a function of the library makes of its argument."""

    def check(knob: str, value: Any) -> None:
        try:
            function(value)
        except ConfigError as error:
            raise ConfigError(f"config.{knob}: {error}") from None

    return check


def _lam_or_0(knob: str, value: Any) -> None:
    if value != 0 or isinstance(value, bool):
        _accepted_by(_lam)(knob, value)


def _policy(knob: str, value: Any) -> None:
    _text(knob, value)
    # Whether the data can take it is known when they are: `build.system`.
    _accepted_by(lambda policy: augment.parts(policy, (1, 1, 1)))(knob, value)


def _span(knob: str, value: Any) -> None:
    _tuple_of(_accepted_by(_lam))(knob, value)
    if len(value) not in (0, 2) or tuple(value) != tuple(sorted(value)):
        raise _fail(knob, value, "empty, or two λ, the smaller first, such as (0.05, 20.0)")


def _optimiser(lr: float) -> dict[str, Knob]:
    return {
        "lr": Knob(lr, _number(0, low_open=True), "Adam's learning rate"),
        "b1": Knob(0.0, _number(0, 1, high_open=True), "Adam's β₁"),
        "b2": Knob(0.99, _number(0, 1, high_open=True), "Adam's β₂"),
        "eps": Knob(1e-8, _number(0, low_open=True), "Adam's ε"),
        "clip": Knob(0.0, _number(0), "gradients are clipped to this global norm; 0: not"),
        "ortho": Knob(0.0, _number(0), "weight of the orthogonal regularisation"),
    }


KNOBS: dict[str, Any] = {
    "name": Knob("run", _some_text, "what the run is called on its page"),
    "lams": Knob(
        (0.2, 1.0, 5.0, 20.0),
        _tuple_of(_accepted_by(_lam)),
        "trade-offs λ to train at, all in one run",
    ),
    "dial": Knob(
        (),
        _span,
        "two λ, such as 0.05,20: one model for every λ between them, scored at lams; empty: a "
        "model for each of lams",
    ),
    "seeds": Knob((0,), _tuple_of(_whole(0)), "random seeds; every λ is trained at every seed"),
    "control": Knob(True, _flag, "also train on with the base's own loss, for comparison"),
    "control_recipe": Knob(
        "base",
        _name("control recipe", lambda: ("base", "finetune")),
        "whose critic steps, rates and moving average the control takes",
    ),
    "objective": Knob("envelope", _accepted_by(objectives.get), "what the generator ascends"),
    "route": Knob(
        "samples",
        _name("route", lambda: ROUTES),
        "how the generator learns: through its samples; or, of a flow: by reweighted data, by "
        "reweighted data and samples (balanced), or as its own critic against its frozen start "
        "(implicit)",
    ),
    "log_ratio": Knob(
        "critic",
        _name("kind of log-ratio", lambda: ("critic", "density")),
        "the critic's; or a flow's own density, where the critic estimates that of the data",
    ),
    "normalise": Knob(False, _flag, "subtract the running log E_q[r̂] from the log-ratio"),
    "conditional_ratio": Knob(
        True,
        _flag,
        "take the classes' shares of labelled data out of the log-ratio, so that λ acts on a rare "
        "class as on any other",
    ),
    "dials": {
        "tau": Knob(0.5, _number(0, low_open=True), "temperature τ of the envelope, in nats"),
        "epsilon": Knob(0.1, _number(0), "weight of KL in envelope_kl"),
        "width": Knob(1.0, _number(0, low_open=True), "half width in log λ of band, in nats"),
    },
    "data": {
        "name": Knob("digits", _name("data set", lambda: tuple(data.SOURCES)), "data set"),
        "split_seed": Knob(0, _whole(0), "seed of the split into train, valid and test"),
        "fractions": Knob(
            data.FRACTIONS, _accepted_by(data.check_fractions), "shares of train, valid and test"
        ),
        "path": Knob("", _text, "folder of the data; empty: where TFDS keeps its data sets"),
        "resolution": Knob(0, _whole(0), "side that images are resized to; 0: as stored"),
        "crop": Knob("center", _name("crop", lambda: ("center", "random")), "crop to a square"),
        "classes": Knob(0, _whole(0), "number of classes that there must be; 0: as found"),
        "flip": Knob(False, _flag, "mirror every second training image, anew in every epoch"),
        "workers": Knob(0, _whole(0), "threads that decode images; 0: one a core"),
        "prefetch": Knob(2, _whole(0), "batches prepared ahead; 0: none"),
        "max_corrupt": Knob(10, _whole(0), "images that may be unreadable before the run ends"),
        "miniature": Knob(
            False, _flag, "write and use a tiny made-up copy of the data set, for smoke tests"
        ),
    },
    "model": {
        "name": Knob("biggan", _name("model", lambda: models.NAMES), "model"),
        "generator_ch": Knob(64, _whole(1), "channels (or width) of the generator"),
        "critic_ch": Knob(64, _whole(1), "channels (or width) of the critic"),
        "dim_z": Knob(128, _whole(1), "dimension of the latent z"),
        "shared_dim": Knob(128, _whole(1), "dimension of the shared class embedding"),
        "output_ch": Knob(
            0, _whole(0), "channels that the generator's last layer makes; 0: those of an image"
        ),
        "depth": Knob(
            2, _whole(1), "hidden layers (mlp), blocks at one size (biggan_deep), maps of a flow"
        ),
        "dial": Knob(
            "weights",
            _name("dial", lambda: ("weights", "input")),
            "how λ enters a generator with config.dial: in all its weights, which are then linear "
            "in log λ, or as an input (flows)",
        ),
        "dial_scale": Knob(0.1, _number(0, low_open=True), "of the weights that log λ turns"),
        "dial_items": Knob(
            0, _whole(0), "items in a row that share a λ, with dial = 'weights'; 0: a quarter"
        ),
        "fourier": Knob(
            0.0,
            _number(0),
            "deviation of the frequencies, in radians a unit, of the Fourier features that a "
            "critic of points sees; 0: none",
        ),
        "layers": Knob(2, _whole(1), "layers or blocks of the network in each map of a flow"),
        "scales": Knob(0, _whole(0), "squeezes of a flow of images; 0: up to 3, to a side of 2"),
        "patch": Knob(2, _whole(1), "side of the patches of jet and tarflow"),
        "heads": Knob(4, _whole(1), "attention heads of jet and tarflow"),
        "dequantiser": Knob(
            "uniform",
            _name("dequantiser", lambda: ("uniform", "variational")),
            "the noise that a flow sees between the values of images",
        ),
        "attention_at": Knob((), _tuple_of(_whole(1)), "sides at which attention is applied"),
        "generator_spectral_norm": Knob(True, _flag, "spectral norm in the generator"),
        "critic_spectral_norm": Knob(True, _flag, "spectral norm in the critic"),
        "hierarchical": Knob(True, _flag, "every block of the generator sees its part of z"),
        "shared_embedding": Knob(
            True, _flag, "one class embedding for all blocks; False: a gain and bias a class"
        ),
        "init": Knob(
            "orthogonal",
            _name("initialisation", lambda: ("orthogonal", "normal", "xavier")),
            "initial weights; normal has a standard deviation of .02",
        ),
        "sn_eps": Knob(1e-12, _number(0, low_open=True), "ε of the spectral norm's unit vectors"),
        "bn_eps": Knob(1e-5, _number(0, low_open=True), "ε of the batch norm's variance"),
        "dtype": Knob(
            "float32",
            _name("dtype", lambda: ("float32", "bfloat16")),
            "type of the activations; parameters stay float32",
        ),
        "remat": Knob(False, _flag, "recompute blocks in the backward pass: less memory, slower"),
    },
    "critic": {
        "loss": Knob("logistic", _accepted_by(ratio.get), "critic's loss"),
        "parametrisation": Knob(
            "log",
            _name("parametrisation", lambda: ratio.PARAMETRISATIONS),
            "the critic's output: the log-ratio itself (log) or the dual variable T (dual)",
        ),
        "scale": Knob(1.0, _number(0, low_open=True), "multiplies the critic's output"),
        "steps": Knob(1, _whole(1), "critic updates for a generator update"),
        "r1": Knob(0.0, _number(0), "weight of the gradient penalty at data"),
        "r2": Knob(0.0, _number(0), "weight of the gradient penalty at samples"),
        "lecam": Knob(
            0.0,
            _number(0),
            "weight of LeCam's penalty, for little data; it shrinks log r̂, so that an objective "
            "that reads λ acts as at a λ further from 1; 0: off",
        ),
        "lecam_decay": Knob(
            0.99, _number(0, 1, high_open=True), "decay of LeCam's averages of log r̂"
        ),
        "consistency": Knob(
            0.0,
            _number(0),
            "weight of the consistency penalty (bCR), at data and at samples: log r̂ is to stay "
            "where consistency_policy changes an item; 0: off",
        ),
        "consistency_policy": Knob(
            "", _policy, "parts of that change, such as translation,cutout; see augment.policy"
        ),
        "freeze": Knob(
            0,
            _whole(0),
            "layers, from the input on, that stay as the base's are (FreezeD); 0: all are trained",
        ),
        **_optimiser(2e-3),
    },
    "generator": {
        "ema": Knob(0.99, _number(0, 1, high_open=True), "decay of the moving average"),
        "ema_start": Knob(0, _whole(0), "step from which it averages; before, it is the last"),
        "mode_seeking": Knob(
            0.0,
            _number(0),
            "weight of the mode seeking penalty: samples of other latents are to differ, which "
            "pulls to recall whatever λ is; 0: off",
        ),
        **_optimiser(1e-3),
    },
    "augment": {
        "policy": Knob(
            "",
            _policy,
            "random changes of all that the critic sees, so that it estimates the ratio of the "
            "changed items: parts of color,translation,cutout (images) and noise; empty: none",
        ),
        "p": Knob(
            1.0, _number(0, 1), "probability of each change of an item; where adaptive, at first"
        ),
        "adaptive": Knob(
            0.0,
            _number(0, 1, high_open=True),
            "target of the mean sign of log r̂ at data, such as 0.6, by which p moves; 0: p stays",
        ),
        "kimg": Knob(
            500.0, _number(0, low_open=True), "thousands of data in which p can go from 0 to 1"
        ),
        "sigma": Knob(0.0, _number(0), "deviation of the part noise (instance noise)"),
        "sigma_steps": Knob(
            0, _whole(0), "generator steps in which sigma falls linearly to 0; 0: it stays"
        ),
    },
    "schedule": {
        "lam_from": Knob(
            0.0, _lam_or_0, "λ that the first generator step is for, geometric to the run's; 0: off"
        ),
        "tau_from": Knob(0.0, _number(0), "likewise of dials.tau; 0: off"),
        "steps": Knob(0, _whole(0), "generator steps until λ and τ are there; then they stay"),
    },
    "train": {
        "batch": Knob(64, _whole(1), "batch size of one update, all devices together"),
        "balance": Knob(
            False, _flag, "the critic sees all classes equally often, a rare class' items repeated"
        ),
        "accumulate": Knob(
            1, _whole(1), "parts that a batch is computed in, gradients summed: saves memory"
        ),
        "layout": Knob(
            "runs",
            _name("layout", lambda: ("runs", "data")),
            "what devices share out: whole runs (small models) or the batch of one run",
        ),
        "together": Knob(
            1,
            _whole(1),
            "runs that a device carries at once in layout 'runs': more fill an accelerator that a "
            "small model leaves idle, and need as much more memory; slower on a CPU for images",
        ),
        "replica_check_every": Knob(
            0, _whole(0), "steps between two checks that all devices hold the same; 0: never"
        ),
        "steps": Knob(1000, _whole(1), "generator updates"),
        "warmup": Knob(0, _whole(0), "critic-only steps before the first generator update"),
        "decay": Knob(
            "constant",
            _name("decay", lambda: DECAYS),
            "learning rates over the generator updates: to zero, late_linear from half way on",
        ),
        "log_every": Knob(25, _whole(1), "steps between two lines of metrics.jsonl"),
        "diagnose_every": Knob(100, _whole(1), "steps between two held-out checks of the ratio"),
        "checkpoint_every": Knob(250, _whole(1), "steps between two checkpoints"),
        "diagnose_size": Knob(2048, _whole(2), "held-out items in such a check, at most"),
        "keep": Knob(2, _whole(1), "checkpoints kept"),
        "keep_best": Knob(
            0, _whole(0), "best checkpoints kept besides: held-out α(λ) while calibrated"
        ),
        "tensorboard": Knob(False, _flag, "also write TensorBoard scalars"),
        "devices": Knob(0, _whole(0), "devices to spread the runs over; 0: all"),
    },
    "recovery": {
        "attempts": Knob(
            3, _whole(0), "times that a run goes back to its last healthy checkpoint; then it ends"
        ),
        "rate": Knob(
            0.3, _number(0, 1, low_open=True), "both learning rates are multiplied by it each time"
        ),
        "ignore": Knob(
            (),
            _tuple_of(_name("fatal alarm that may be ignored", lambda: _IGNORABLE)),
            "fatal alarms that are only told",
        ),
    },
    "base": {
        "path": Knob(
            "",
            _text,
            "workdir of the base run, or converted weights; empty: WORKDIR/base, made if missing",
        ),
        "required": Knob(False, _flag, "refuse to train a base here: base.path must name one"),
        "steps": Knob(1000, _whole(1), "generator updates of the base run"),
        "batch": Knob(0, _whole(0), "its batch; 0: train.batch"),
        "critic_steps": Knob(1, _whole(1), "its critic updates for a generator update"),
        "critic_lr": Knob(2e-3, _number(0, low_open=True), "its critic's learning rate"),
        "generator_lr": Knob(1e-3, _number(0, low_open=True), "its generator's learning rate"),
        "ema": Knob(0.99, _number(0, 1, high_open=True), "decay of its moving average"),
        "r1": Knob(0.0, _number(0), "its critic's weight of the gradient penalty at data"),
        "r2": Knob(0.0, _number(0), "its critic's weight of the gradient penalty at samples"),
        "loss": Knob(
            "hinge",
            _name("base loss", lambda: ("hinge", "logistic", objectives.LIKELIHOOD)),
            "loss of base and control; likelihood is for flows",
        ),
        "fit_steps": Knob(
            20_000, _whole(1), "most critic updates in fitting a critic to a base that has none"
        ),
        "fit_every": Knob(100, _whole(1), "updates between two held-out checks of that fit"),
        "fit_error": Knob(
            0.05, _number(0, 1, low_open=True), "held-out calibration error at which it ends"
        ),
    },
    "score": {
        "split": Knob(
            "test", _name("split", lambda: ("valid", "test")), "held-out images scored against"
        ),
        "encoder": Knob("classifier", _accepted_by(encoders.get), "features for kNN metrics"),
        "k": Knob(3, _whole(1), "neighbours of precision and recall"),
        "k_coverage": Knob(5, _whole(1), "neighbours of density and coverage"),
        "n_real": Knob(0, _whole(0), "held-out images scored against; 0: all"),
        "n_fake": Knob(0, _whole(0), "samples in a scored set; 0: as many as held-out"),
        "repeats": Knob(1, _whole(1), "independent sets of n_fake samples, scores averaged"),
        "level": Knob(0.95, _number(0, 1, low_open=True, high_open=True), "of the intervals"),
        "truncation": Knob(0.0, _number(0), "|z| bound in sampling; 0: none"),
        "batch": Knob(256, _whole(1), "samples drawn at once, at most"),
        "checkpoint": Knob(
            "last", _name("checkpoint", lambda: ("last", "best")), "scored: see train.keep_best"
        ),
        "standing": Knob(
            0, _whole(0), "batches that moments are taken from before sampling; 0: running moments"
        ),
    },
}


def _default_tree(knobs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: item.default if isinstance(item, Knob) else _default_tree(item)
        for name, item in knobs.items()
    }


def defaults() -> Config:
    """All knobs at their defaults, locked: setting a name that is not a knob is an error."""
    return ConfigDict(_default_tree(KNOBS)).lock()


def _check_tree(cfg: Mapping[str, Any], knobs: Mapping[str, Any], prefix: str) -> None:
    for name in cfg:
        if name not in knobs:
            known = [prefix + known for known in knobs]
            raise unknown_name("knob", prefix + name, known)
    for name, item in knobs.items():
        if name not in cfg:
            raise ConfigError(f"config.{prefix}{name} is missing; start from config.defaults().")
        if isinstance(item, Knob):
            item.check(prefix + name, cfg[name])
        else:
            _check_tree(cfg[name], item, prefix + name + ".")


def validate(cfg: Config) -> None:
    """Raises ConfigError at the first knob, or combination of knobs, that cannot be used."""
    _check_tree(cfg, KNOBS, "")
    if not cfg.seeds:
        raise _fail("seeds", cfg.seeds, "at least one seed, such as 0 or 0,1,2")
    if cfg.score.checkpoint == "best" and not cfg.train.keep_best:
        raise ConfigError(
            "config.score.checkpoint = 'best' needs the best to be kept; set train.keep_best = 1."
        )
    objective = objectives.get(cfg.objective)
    if not cfg.lams and not cfg.control and objective.needs_ratio:
        raise ConfigError("config.lams is empty and config.control is False: nothing to train.")
    critic = ratio.get(
        cfg.critic.loss, scale=cfg.critic.scale, parametrisation=cfg.critic.parametrisation
    )
    if objective.needs_ratio and not critic.identified:
        raise ConfigError(
            f"config.objective = {cfg.objective!r} needs a log-ratio, and config.critic.loss = "
            f"{cfg.critic.loss!r} estimates none; use critic.loss = 'logistic' (or a divergence), "
            "or objective = 'hinge'."
        )
    if cfg.train.together > 1 and cfg.train.layout == "data":
        raise ConfigError(
            f"config.train.together = {cfg.train.together}: in layout 'data' a device has a part "
            "of one run; leave it at 1, or set train.layout = 'runs'."
        )
    _check_dial(cfg)
    _check_read(cfg.model)
    _check_density(cfg)
    config_steadying.check(cfg)


def _check_dial(cfg: Config) -> None:
    """What a model for every λ asks of the other settings."""
    if not cfg.dial:
        return
    low, high = cfg.dial
    outside = [lam for lam in cfg.lams if not low <= lam <= high]
    if outside or not cfg.lams:
        raise ConfigError(
            f"config.lams = {tuple(cfg.lams)!r} with config.dial = {tuple(cfg.dial)!r}: the model "
            f"is scored at λ from {low:g} to {high:g}; name at least one, and none outside."
        )
    if "lam" not in objectives.get(cfg.objective).dials:
        raise ConfigError(
            f"config.dial = {tuple(cfg.dial)!r}: config.objective = {cfg.objective!r} reads no λ; "
            "set dial to (), or objective to 'envelope'."
        )
    if cfg.model.dial != "weights":
        return
    if cfg.model.name in models.FLOWS:
        raise ConfigError(
            f"config.model.dial = 'weights': {cfg.model.name} is a flow, which takes λ as an "
            "input; set it to 'input'."
        )
    piece, items = cfg.train.batch // cfg.train.accumulate, models.dial_items(cfg)
    if piece % items or not 2 <= piece // items <= 16:
        raise ConfigError(
            f"config.model.dial_items = {cfg.model.dial_items}: items that share a λ; a piece of "
            f"{piece} (config.train.batch / accumulate) must hold 2 to 16 such groups, all alike; "
            "0 makes four."
        )
    if cfg.train.layout == "data":
        raise ConfigError(
            "config.model.dial = 'weights' with config.train.layout = 'data': batch norm would mix "
            "the moments of several λ; set the layout to 'runs', or the dial to 'input'."
        )
    if cfg.model.name != "mlp" and not cfg.score.standing:
        raise ConfigError(
            "config.model.dial = 'weights' with config.score.standing = 0: the running moments are "
            "those of all λ together; set it to 16, and each λ is scored with its own."
        )
    if cfg.generator.ortho:
        raise ConfigError(
            f"config.generator.ortho = {cfg.generator.ortho!r} with config.model.dial = 'weights': "
            "what λ turns is no kernel of its own; set it to 0."
        )


def _check_read(model: Config) -> None:
    """Settings that the model would not read."""
    for knob, readers in _READ_BY.items():
        value, default = model[knob], KNOBS["model"][knob].default
        if value != default and model.name not in readers:
            raise ConfigError(
                f"config.model.{knob} = {value!r}: {model.name} does not read it; leave it at "
                f"{default!r}, or set config.model.name to one of {', '.join(readers)}."
            )


def _check_density(cfg: Config) -> None:
    """What only a model with a density can do."""
    likelihood = cfg.objective == objectives.LIKELIHOOD
    wanted = {
        f"config.objective = {objectives.LIKELIHOOD!r}": likelihood,
        f"config.base.loss = {cfg.base.loss!r}": cfg.base.loss == objectives.LIKELIHOOD,
        f"config.route = {cfg.route!r}": cfg.route != "samples",
        f"config.log_ratio = {cfg.log_ratio!r}": cfg.log_ratio == "density",
    }
    asked = next((knob for knob, does in wanted.items() if does), None)
    if asked and cfg.model.name not in models.FLOWS:
        raise ConfigError(
            f"{asked} needs a model with a density, and config.model.name = {cfg.model.name!r} "
            f"has none; choose one of {', '.join(models.FLOWS)}."
        )
    if cfg.model.name in models.FLOWS and cfg.model.dtype != "float32":
        raise ConfigError(
            f"config.model.dtype = {cfg.model.dtype!r}: flows have float32 only, since they are "
            "inverted exactly."
        )
    if cfg.route == "implicit" and not likelihood:
        objectives.check_implicit(cfg.objective)
    reweights = cfg.route in ("data", "balanced") and not likelihood
    if reweights and not objectives.get(cfg.objective).needs_ratio:
        raise ConfigError(
            f"config.route = {cfg.route!r} reweights by a log-ratio, which objective "
            f"{cfg.objective!r} does not read; use 'envelope'."
        )
    if reweights and cfg.model.dequantiser == "variational":
        raise ConfigError(
            f"config.model.dequantiser = 'variational' with config.route = {cfg.route!r}: some "
            "data have negative weights, which would loosen its bound; take 'uniform', or "
            "config.route = 'samples'."
        )
    if cfg.train.warmup and (likelihood or cfg.route == "implicit"):
        knob, value = ("objective", cfg.objective) if likelihood else ("route", cfg.route)
        raise ConfigError(
            f"config.train.warmup = {cfg.train.warmup}: with config.{knob} = {value!r} nothing "
            "reads the critic that it would train; set config.train.warmup = 0."
        )
    if cfg.log_ratio == "density" and cfg.critic.parametrisation != "log":
        raise ConfigError(
            "config.log_ratio = 'density' adds log-densities to the critic's output, which must be "
            "a log-ratio then; set critic.parametrisation = 'log'."
        )


check_scratch = config_steadying.check_scratch


def check_base(cfg: Config) -> None:
    """Raises ConfigError if a fine-tune needs weights and none are named."""
    if cfg.base.required and not cfg.base.path:
        raise ConfigError(
            "config.base.path is empty, and this configuration starts from pre-trained weights: "
            "convert them with scripts/convert_biggan --generator G_ema.pth --critic D.pth "
            "--out DIR and give --config.base.path=DIR, or train a base here with "
            "--config.base.required=false."
        )


def flow_of(cfg: Config) -> Config:
    """A GAN's configuration made that of a flow: likelihood first, then λ; sizes are to be set.

    λ acts by reweighted data and samples, with the flow's own density in the ratio: of the routes
    the steadiest one (docs/flows.md). The critic is one for the flow's samples.
    """
    out = cfg.copy_and_resolve_references()
    out.name = f"{cfg.name}_flow"
    out.base.loss, out.control_recipe = objectives.LIKELIHOOD, "base"
    out.route, out.log_ratio, out.model.dial = "balanced", "density", "input"
    out.generator.b1, out.generator.b2 = 0.9, 0.999
    out.critic.b1, out.critic.b2 = 0.0, 0.99
    return out


def base_of(cfg: Config) -> Config:
    """The configuration of the run that a fine-tune starts from, by the knobs in `base`."""
    out = _with_base_recipe(cfg)
    out.name = f"{cfg.name}/base"  # its default workdir is where the fine-tune looks for it
    out.train.steps = cfg.base.steps
    out.train.decay = "constant"
    return out


def control_of(cfg: Config) -> Config:
    """The control of a fine-tune: as many further generator updates, with the base's loss.

    By default it goes on exactly as the base was trained (`control_recipe = "base"`); with
    "finetune" it takes the fine-tune's batch, critic steps, rates, decay and moving average, its
    augmentation, its frozen layers, and its penalties but for R1 and R2, which `base` has of its
    own. No schedule: it reads no λ. Where the base is trained by likelihood it has no critic, and
    takes none of what acts through one.
    """
    out = _with_base_recipe(cfg)
    if cfg.control_recipe == "finetune":
        if cfg.base.loss != objectives.LIKELIHOOD:
            config_steadying.shared(cfg, out)
        out.critic.steps, out.train.batch = cfg.critic.steps, cfg.train.batch
        out.critic.lr, out.generator.lr = cfg.critic.lr, cfg.generator.lr
        out.generator.ema, out.train.balance = cfg.generator.ema, cfg.train.balance
    else:
        out.train.decay = "constant"
    return out


def fit_of(cfg: Config) -> Config:
    """The configuration of the fit of a critic to a base that comes without one.

    It is the fine-tune's, but for what would spoil the fit: frozen layers, which are random there,
    LeCam, which no calibrated critic minimises, a decay, which would end the fit with the
    fine-tune's steps whatever is learned, instance noise that fades with steps that are not the
    fit's, and schedules and mode seeking, which are the generator's.
    """
    out = config_steadying.for_fit(cfg.copy_and_resolve_references(), defaults())
    out.train.decay = "constant"
    return out


def plain(cfg: Config) -> Config:
    """The same without augmentation, penalties, frozen layers and schedules; R1 and R2 stay."""
    return config_steadying.without(cfg.copy_and_resolve_references(), defaults())


def _with_base_recipe(cfg: Config) -> Config:
    # A base is trained from scratch by a recipe of its own: what steadies the fine-tune (and what
    # was frozen, scheduled, or augmented there) is no part of it.
    out = plain(cfg)
    loss = cfg.base.loss
    out.objective, out.route, out.log_ratio = loss, "samples", "critic"
    out.critic.parametrisation, out.critic.scale = "log", 1.0
    # Likelihood has no critic: the one that is carried along is trained when the fine-tune begins.
    out.critic.loss = "logistic" if loss == objectives.LIKELIHOOD else loss
    out.critic.r1, out.critic.r2 = cfg.base.r1, cfg.base.r2
    out.critic.steps, out.train.batch = cfg.base.critic_steps, cfg.base.batch or cfg.train.batch
    out.critic.lr, out.generator.lr = cfg.base.critic_lr, cfg.base.generator_lr
    out.generator.ema = cfg.base.ema
    out.lams, out.control, out.normalise = (), False, False
    out.dial, out.train.warmup, out.train.balance = (), 0, False
    return out


def shrink(cfg: Config) -> Config:
    """The same run in seconds, for `:smoke`: a made-up copy of the data, toy width, few steps.

    What stays is the path through the code: data format, model, losses, layout.
    """
    out = cfg.copy_and_resolve_references()
    out.name = f"{cfg.name}-smoke"
    out.lams = tuple(cfg.lams[:: max(len(cfg.lams) - 1, 1)])
    out.data.miniature, out.data.path, out.data.workers = True, "", 1
    out.data.resolution = 32
    out.model.generator_ch = out.model.critic_ch = 4
    out.model.dim_z, out.model.shared_dim = 20, 8
    if cfg.model.name in models.FLOWS:
        out.model.depth, out.model.layers = 2, 1
    if cfg.model.name in _TRANSFORMERS:
        out.model.heads = 2
    if cfg.model.attention_at:  # which needs 8 channels
        out.model.attention_at = (16,)
        out.model.generator_ch = out.model.critic_ch = 8
    out.base.required = False
    out.base.batch, out.base.steps, out.train.steps = 0, 2, 2
    out.train.warmup = min(cfg.train.warmup, 1)
    out.schedule.steps, out.critic.freeze = min(cfg.schedule.steps, 2), min(cfg.critic.freeze, 1)
    out.base.critic_steps = out.critic.steps = 1
    out.train.batch = 8
    out.train.log_every = out.train.diagnose_every = out.train.replica_check_every = 1
    out.train.checkpoint_every, out.train.diagnose_size = 2, 16
    out.score.encoder, out.score.repeats = "pixels", 1
    out.score.n_real = out.score.n_fake = 16
    return out


def flatten(cfg: Config, prefix: str = "") -> dict[str, Any]:
    """{"train.steps": 1000, ...}: every knob by its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in cfg.items():
        inner = isinstance(value, ConfigDict)
        flat |= flatten(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def describe() -> str:
    """One line a knob: name, default, meaning. `python -m prpr.config` prints it."""
    lines = []

    def walk(knobs: Mapping[str, Any], prefix: str) -> None:
        for name, item in knobs.items():
            if isinstance(item, Knob):
                lines.append(f"{prefix}{name} = {item.default!r}: {item.help}")
            else:
                walk(item, f"{prefix}{name}.")

    walk(KNOBS, "")
    return "\n".join(lines)


if __name__ == "__main__":
    print(describe())
