"""The configuration: every knob is checked, and every message names knob, value and mend."""

import importlib.util
import math
from pathlib import Path

import pytest

from prpr import build, config, data, models
from prpr.errors import ConfigError, DataError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def load(path, argument=""):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.get_config(argument)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_valid_with_every_argument(path):
    module, _ = load(path)
    assert "smoke" in module.ARGUMENTS
    for argument in module.ARGUMENTS:
        cfg = load(path, argument)[1]
        if cfg.data.name in data.FILES and not cfg.data.miniature:
            # Its data are not here; its shapes are known all the same.
            config.validate(cfg)
            if argument != "smoke":
                small = config.shrink(cfg)
                small.score.encoder = cfg.score.encoder
                build.check(small)  # a data set of one class has no classifier
            channels = 1 if cfg.data.name == "mnist" else 3
            models.build(cfg, (cfg.data.resolution, cfg.data.resolution, channels), 10)
        else:
            build.check(cfg)
    for knobs in module.sweep():
        swept = load(path)[1]
        swept.update(knobs)
        config.validate(swept)
    with pytest.raises(ConfigError, match="smoke"):
        load(path, "smok")


def test_every_knob_has_a_check_that_its_default_passes_and_a_help():
    config.validate(config.defaults())
    lines = config.describe().splitlines()
    assert len(lines) == len(set(lines)) > 40
    assert all(line.partition(": ")[2] for line in lines)


def set_knob(cfg, knob, value):
    *groups, last = knob.split(".")
    for group in groups:
        cfg = cfg[group]
    with cfg.unlocked(), cfg.ignore_type():
        cfg[last] = value


@pytest.mark.parametrize(
    ("knob", "value", "allowed"),
    [
        ("lams", (0.0,), "positive"),
        ("lams", (-1.0,), "positive"),
        ("lams", (math.nan,), "positive"),
        ("lams", (math.inf,), "positive"),
        ("lams", ("high",), "positive"),
        ("lams", "5", "tuple"),
        ("lams", (5.0, 5.0), "repeats"),
        ("seeds", (), "at least one seed"),
        ("seeds", (1.5,), "whole number"),
        ("objective", "envelop", "'envelope'"),
        ("critic.loss", "logistc", "'logistic'"),
        ("critic.scale", 0.0, r"\(0, inf\)"),
        ("critic.parametrisation", "dul", "'dual'"),
        ("data.name", "digit", "'digits'"),
        ("data.fractions", (0.5, 0.6, 0.2), "sum to 1"),
        ("model.name", "bigan", "'biggan'"),
        ("model.generator_ch", 0, "at least 1"),
        ("generator.b1", 1.0, r"\[0, 1\)"),
        ("generator.lr", math.nan, "finite"),
        ("train.batch", True, "whole number"),
        ("train.decay", "linaer", "'linear'"),
        ("dials.tau", 0.0, r"\(0, inf\)"),
        ("score.encoder", "pixel", "'pixels'"),
        ("score.level", 1.0, r"\(0, 1\)"),
        ("control", 1, "True or False"),
    ],
)
def test_a_bad_value_names_knob_value_and_what_is_allowed(knob, value, allowed):
    cfg = config.defaults()
    set_knob(cfg, knob, value)
    with pytest.raises(ConfigError, match=allowed) as error:
        config.validate(cfg)
    assert f"config.{knob}" in str(error.value)
    shown = value[0] if isinstance(value, tuple) and value else value
    assert str(shown) in str(error.value)


def test_unknown_and_missing_knobs():
    cfg = config.defaults()
    with cfg.unlocked():
        cfg.train.step = 3
    with pytest.raises(ConfigError, match=r"'train\.step'.*train\.steps"):
        config.validate(cfg)
    cfg = config.defaults()
    with cfg.unlocked():
        del cfg.train.steps
    with pytest.raises(ConfigError, match=r"train\.steps is missing"):
        config.validate(cfg)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic.loss": "hinge"}, "needs a log-ratio"),
        ({"critic.loss": "pr"}, "two values"),
        ({"objective": "pr"}, "step function"),
        ({"lams": (), "control": False}, "nothing to train"),
        ({"train.batch": 899}, "larger than the training split.* 898"),
        ({"model.name": "mlp"}, "makes points"),
        ({"data.name": "ring8"}, "makes square images"),
        ({"model.dim_z": 15}, r"model\.dim_z = 15: must be a multiple of 2"),
        ({"model.attention_at": (16,)}, r"attention_at = 16: must be among \[4, 8\]"),
        ({"score.n_fake": 5}, "at least 6"),
        ({"score.k": 700}, "at least 701"),
    ],
)
def test_impossible_combinations_are_refused_before_anything_is_written(changes, message):
    cfg = config.defaults()
    for knob, value in changes.items():
        set_knob(cfg, knob, value)
    with pytest.raises(ConfigError, match=message):
        build.check(cfg)


@pytest.mark.parametrize(
    ("model", "knob", "value", "readers"),
    [
        ("biggan", "patch", 4, "jet, tarflow"),
        ("glow", "heads", 2, "jet, tarflow"),
        ("mlp", "dequantiser", "variational", "realnvp, .*tarflow"),
        ("biggan_deep", "fourier", 1.0, "mlp, realnvp, .*tarflow"),
    ],
)
def test_a_knob_that_the_model_does_not_read_is_refused(model, knob, value, readers):
    cfg = config.defaults()
    cfg.model.name = model
    config.validate(cfg)  # at its default
    cfg.model[knob] = value
    with pytest.raises(ConfigError, match=f"{model} does not read it.*one of {readers}") as error:
        config.validate(cfg)
    assert f"config.model.{knob} = {value!r}" in str(error.value)
    assert f"leave it at {config.defaults().model[knob]!r}" in str(error.value)


@pytest.mark.parametrize("name", models.NAMES)
def test_what_is_derived_for_a_model_sets_no_knob_that_it_does_not_read(name):
    cfg = config.defaults()
    cfg.model.name = name
    for derive in (config.base_of, config.control_of, config.shrink):
        config.validate(derive(cfg))


@pytest.mark.parametrize(("knob", "value"), [("route", "implicit"), ("objective", "likelihood")])
def test_a_warmup_of_a_critic_that_nothing_reads_is_refused(knob, value):
    cfg = config.flow_of(config.defaults())
    cfg.model.name, cfg.objective, cfg.train.warmup = "glow", "smoothed_pr", 5
    cfg[knob] = value
    told = rf"train\.warmup = 5: with config\.{knob} = '{value}' nothing reads .*warmup = 0"
    with pytest.raises(ConfigError, match=told):
        config.validate(cfg)
    cfg.train.warmup = 0
    config.validate(cfg)
    config.validate(config.shrink(cfg))


def test_images_with_nan_are_refused(monkeypatch):
    from prpr import data

    whole = data.SOURCES["digits"]("digits", 0)
    whole.images[7] = math.nan
    monkeypatch.setitem(data.SOURCES, "digits", lambda *_: whole)
    with pytest.raises(DataError, match="NaN"):
        build.check(config.defaults())


def test_base_and_control_keep_the_base_recipe():
    cfg = config.defaults()
    cfg.critic.steps, cfg.critic.lr, cfg.generator.lr = 4, 5e-3, 6e-3
    cfg.critic.scale, cfg.critic.r1, cfg.train.warmup = 10.0, 0.1, 50
    cfg.base.r2 = 0.3
    cfg.train.steps, cfg.base.steps = 70, 90
    for derived, steps in ((config.base_of(cfg), 90), (config.control_of(cfg), 70)):
        config.validate(derived)
        assert derived.objective == derived.critic.loss == "hinge"
        assert derived.critic.steps == cfg.base.critic_steps
        assert derived.critic.lr == cfg.base.critic_lr
        assert derived.generator.lr == cfg.base.generator_lr
        assert (derived.critic.scale, derived.train.warmup) == (1.0, 0)
        assert (derived.critic.r1, derived.critic.r2) == (0.0, 0.3)
        assert derived.train.steps == steps
        assert derived.lams == ()
    assert cfg.critic.steps == 4  # the original is not touched


def test_runs_share_a_device_in_layout_runs_only():
    cfg = config.defaults()
    cfg.train.together = 4
    config.validate(cfg)
    cfg.train.layout = "data"
    with pytest.raises(ConfigError, match=r"train.together = 4.*layout 'data'"):
        config.validate(cfg)
