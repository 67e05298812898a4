"""What a plan takes for granted: finished runs, data that are not here, configurations."""

import importlib.util
import re
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr import checkpoint, cli, config, jobs, planner, record, weights
from prpr.errors import ConfigError, DataError
from prpr.planner import card, estimate, phases, shapes
from prpr.planner.card import Range

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="module")
def promotion():
    """Optax raises a Python float to an int32 power, which is not for strict dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def load(name: str, argument: str = "") -> Any:
    return cli._load(str(ROOT / "configs" / f"{name}.py") + (argument and f":{argument}"), "config")


def toy(**knobs: Any) -> Any:
    cfg = load("toy_2d")
    with cfg.unlocked():
        for name, value in knobs.items():
            cfg[name] = value
    return cfg


def save(workdir: Path, cfg: Any, run: str, lam: float | None, step: int, **about: Any) -> None:
    """A checkpoint as `prpr.trainer` writes them, of one number."""
    meta = {
        "run": f"{run}-seed0",
        "lam": lam,
        "seed": 0,
        "settings": {**jobs.settings(cfg), "data.size": 3},
        "seconds": 2.5,
        **about,
    }
    checkpoint.save(workdir / "checkpoints" / f"{run}-seed0", step, {"x": jnp.ones(1)}, meta)


# --- what is finished -----------------------------------------------------------------------


def test_a_finished_base_is_not_charged(tmp_path):
    cfg = toy()
    base = config.base_of(cfg)
    save(tmp_path / "base", base, "base", None, base.train.steps - 1)
    whole = planner.plan(cfg, device="l4")
    begun = planner.plan(cfg, device="l4", workdir=str(tmp_path))
    assert begun.hours == whole.hours
    assert f"begun in {tmp_path}, charged whole: base x 1" in begun.assumptions
    save(tmp_path / "base", base, "base", None, base.train.steps)
    page = planner.plan(cfg, device="l4", workdir=str(tmp_path))
    assert f"finished in {tmp_path}, only scores charged: base x 1" in page.assumptions
    assert not page.warnings
    assert set(whole.hours) - set(page.hours) == {"base x 1", "scoring x 6"}
    assert page.hours["λ x 3"] == whole.hours["λ x 3"]
    assert page.hours["scoring x 5"].middle < whole.hours["scoring x 6"].middle
    assert page.hours["checkpoints"].middle < whole.hours["checkpoints"].middle


def test_finished_runs_are_not_charged(tmp_path):
    cfg = toy()
    base, control = config.base_of(cfg), config.control_of(cfg)
    total = cfg.train.warmup + cfg.train.steps
    save(tmp_path / "base", base, "base", None, base.train.steps)
    save(tmp_path, control, "control", None, cfg.train.steps)
    save(tmp_path, cfg, f"lam_{cfg.lams[0]:g}", float(cfg.lams[0]), total)
    save(tmp_path, cfg, f"lam_{cfg.lams[1]:g}", float(cfg.lams[1]), total - 1)
    save(tmp_path, cfg, "lam_77", 77.0, total)  # which nobody asks for
    whole = planner.plan(cfg, device="l4", budget=1.0)
    page = planner.plan(cfg, device="l4", budget=1.0, workdir=str(tmp_path))
    assert set(page.hours) == {"λ x 2", "held-out checks", "checkpoints", "scoring x 5"}
    assert page.hours["λ x 2"].middle == pytest.approx(whole.hours["λ x 3"].middle * 2 / 3)
    (told,) = [text for text in page.assumptions if text.startswith("finished")]
    assert told.endswith("control x 1, λ x 1")
    assert whole.budget is not None
    assert page.budget is not None
    assert page.budget.lams is not None
    assert whole.budget.lams is not None
    assert page.budget.lams[1] >= whole.budget.lams[1]
    # Fewer values are left to share what is left.
    assert page.budget.steps[1] > 1.4 * whole.budget.steps[1]
    for lam in cfg.lams:
        save(tmp_path, cfg, f"lam_{lam:g}", float(lam), total)
    page = planner.plan(cfg, device="l4", budget=1.0, workdir=str(tmp_path))
    assert set(page.hours) == {"held-out checks", "checkpoints", "scoring x 5"}
    assert page.total_hours.middle == page.hours["scoring x 5"].middle
    assert page.budget is not None
    assert page.budget.lams is not None
    assert page.budget.lams[0] > 0


def test_a_run_with_other_settings_is_charged_and_named(tmp_path):
    cfg, other = toy(), toy()
    other.critic.lr *= 2
    lam = float(cfg.lams[0])
    save(tmp_path, other, f"lam_{lam:g}", lam, cfg.train.warmup + cfg.train.steps)
    page = planner.plan(cfg, device="l4", workdir=str(tmp_path))
    assert "λ x 3" in page.hours
    assert f"lam_{lam:g}-seed0 holds a run with other settings" in page.warnings[0]


def test_the_command_passes_its_workdir(tmp_path, capsys):
    from absl import flags

    cfg = toy()
    base = config.base_of(cfg)
    save(tmp_path / "base", base, "base", None, base.train.steps)
    values = flags.FlagValues()
    holder = planner.define_flags(values)
    values(["program", "--plan", "--plan_device=l4"])
    planner.main(cfg, "finetune", str(tmp_path), holder)
    out = capsys.readouterr().out
    assert "base x 1" not in out.split("assumed:")[0]
    assert f"finished in {tmp_path}" in out


# --- a critic that is to be fitted ----------------------------------------------------------


@pytest.fixture(scope="module")
def generator_alone(tmp_path_factory) -> tuple[Any, Path]:
    """The imagenet smoke and converted weights for it, without a critic."""
    cfg = load("imagenet", "smoke")
    folder = tmp_path_factory.mktemp("weights")
    model = cfg.model.to_dict()
    nothing = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), weights.shapes(model, 32, 1000, "generator")
    )
    weights.write_weights(
        folder,
        weights.Weights(nothing, nothing, None),
        model={knob: value for knob, value in model.items() if "critic" not in knob},
        resolution=32,
        num_classes=1000,
        source={"family": "test"},
    )
    cfg.base.path = str(folder)
    cfg.base.fit_every, cfg.base.fit_steps, cfg.seeds = 10, 1000, (0, 1)
    cfg.data.miniature = False
    return cfg, folder


def test_fitting_a_critic_is_charged_until_it_is_done(generator_alone, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    cfg, _ = generator_alone
    assert phases.lacks_critic(cfg)
    page = planner.plan(cfg, device="l4", workdir=str(tmp_path))
    assert not page.warnings
    critic = page.seconds["critic update"]
    fit = page.hours["critic fit x 2"]
    # One check at least, all its updates at most, one seed after the other.
    assert fit.low == pytest.approx(2 * 10 * critic.low / 3600)
    assert fit.middle == pytest.approx(2 * 100 * critic.middle / 3600)
    assert fit.high == pytest.approx(2 * 1000 * critic.high / 3600)
    assert not [name for name in page.hours if name.startswith("base")]
    rule = {"base.fit_error": cfg.base.fit_error, "base.fit_every": 10, "source": 7}
    kept = {**jobs.settings(cfg), **rule, "data.size": 3}
    save(tmp_path / "base", cfg, "base", None, 40, fitted=False, settings=kept)
    assert phases.work(cfg, "finetune", str(tmp_path)).fits == 2
    save(tmp_path / "base", cfg, "base", None, 60, fitted=True, settings=kept)
    work = phases.work(cfg, "finetune", str(tmp_path))
    assert (work.fits, work.warnings) == (1, [])
    assert work.notes == [f"finished in {tmp_path}, only scores charged: critic fit x 1"]
    page = planner.plan(cfg, device="l4", workdir=str(tmp_path))
    assert page.hours["critic fit x 1"].middle == pytest.approx(fit.middle / 2)
    save(
        tmp_path / "base",
        cfg,
        "base",
        None,
        80,
        fitted=True,
        settings={**kept, "base.fit_error": 0.9},
    )
    assert phases.work(cfg, "finetune", str(tmp_path)).fits == 2


# --- data that are not here -----------------------------------------------------------------


def prepared(**knobs: Any) -> Any:
    cfg = load("imagenet", "smoke")
    cfg.data.miniature, cfg.data.name = False, "prepared"
    for name, value in knobs.items():
        cfg.data[name] = value
    return cfg


def test_prepared_shards_that_are_not_here_need_their_classes(tmp_path):
    for path in ("", str(tmp_path / "none")):
        with pytest.raises(ConfigError, match=r"config\.data\.classes = 0: .*such as 1000"):
            shapes.shape_of(prepared(path=path))
    found = shapes.shape_of(prepared(classes=1000))
    assert (found.num_classes, found.shape) == (1000, (32, 32, 3))
    assert found.note.startswith("the data are not here; 70,000 training images, 32 x 32 x 3")
    assert found.note.endswith("classes: 1000")
    many = planner.plan(prepared(classes=1000), device="l4").parameters["critic"]
    assert many - planner.plan(prepared(classes=1), device="l4").parameters["critic"] > 999


def test_only_what_is_missing_is_not_here(tmp_path, monkeypatch):
    """What is there and cannot be used is an error of the plan, as of the run."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no prepared shards in"):
        shapes.shape_of(prepared(path=str(tmp_path / "empty"), classes=1000))
    with pytest.raises(DataError, match="no image in"):
        shapes.shape_of(prepared(name="folder", path=str(tmp_path / "empty")))
    with pytest.raises(DataError, match="no copy of"):
        shapes.shape_of(prepared(name="imagenet2012", path=str(tmp_path / "empty")))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert shapes.shape_of(prepared(name="imagenet2012")).num_classes == 1000
    (tmp_path / "imagenet2012").mkdir()
    with pytest.raises(DataError, match="no copy of"):
        shapes.shape_of(prepared(name="imagenet2012"))


@pytest.mark.parametrize("root", ["", "imagenet_resized", "imagenet_resized/32x32/3.0.0"])
def test_data_are_looked_for_where_a_run_finds_them(tmp_path, monkeypatch, root):
    cfg = prepared(name="imagenet32")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / root))
    assert not shapes._here(cfg)
    version = tmp_path / "imagenet_resized/32x32/3.0.0"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    assert shapes._here(cfg)
    # What is there is read, and here it cannot be.
    with pytest.raises(DataError, match="is not a copy of 'imagenet32'"):
        shapes.shape_of(cfg)


# --- configurations and benchmarks ----------------------------------------------------------

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
_ON_DISK = {"celeba64", "cifar10", "ffhq256", "imagenet", "imagenet32", "mnist"}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_the_repository_can_be_planned(name, monkeypatch, tmp_path):
    """On paper, without their data. (The largest batch takes longest and has its own test.)"""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(estimate, "largest", lambda *_: card.Largest(1, 1, None))
    cfg = load(name)
    devices = 8 if cfg.train.layout == "data" else 1
    page = planner.plan(cfg, device="h100-sxm", devices=devices, budget=100.0)
    assert f"λ x {len(cfg.lams)}" in page.hours
    assert ("base x 1" in page.hours) != cfg.base.required
    assert ("the data are not here" in page.assumptions[0]) == (name in _ON_DISK)
    assert page.total_hours.low > 0
    assert page.budget is not None


def benchmark(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_planner_is_compared_with_measured_seconds_alone(monkeypatch, capsys):
    bench = benchmark("planner_error")

    class Page:
        total_hours = Range(1, 1, 1) * (1 / 3600)
        seconds = types.MappingProxyType({"scoring of a run": Range(1e6, 1e6, 1e6)})  # far off

    def finetune(cfg: Any, workdir: str) -> dict[str, float]:
        """Training takes 2.5 s for the base and 97.5 s for the rest, the base's table 4 s."""
        base = Path(workdir) / "base"
        save(base, config.base_of(cfg), "base", None, cfg.base.steps)
        record.write_json(base / "summary.json", {"seconds": 6.5})
        return {"seconds": 100.0}

    monkeypatch.setattr(bench.planner, "plan", lambda *_, **__: Page)
    monkeypatch.setattr(bench.run, "finetune", finetune)
    monkeypatch.setattr(bench, "_cross_check", lambda _: None)
    assert not bench.compare("toy_2d")
    assert re.search(r"toy_2d +104\.0 s", capsys.readouterr().out)


def test_the_largest_common_batch_is_searched_by_halves(monkeypatch):
    bench = benchmark("biggan_step")
    tried = []
    assert bench.largest_batch(256, lambda n: tried.append(n) or n <= 40) == 32
    assert tried == [256, 128, 64, 32]
    with pytest.raises(SystemExit, match="not even a batch of 1"):
        bench.largest_batch(256, lambda _: False)
    # A try is the command itself; what does not fit has an exit code of its own.
    asked: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(bench.subprocess, "run", lambda command, **_: asked.append(command) or Done)
    assert bench._fits(64)
    assert asked[0][-4:] == ["--rounds", "0", "--batch", "64"]
    Done.returncode = bench._FULL
    assert not bench._fits(64)
    Done.returncode = 1
    with pytest.raises(SystemExit, match="exit code 1"):
        bench._fits(64)


def test_memory_that_runs_out_ends_a_try(monkeypatch):
    bench = benchmark("biggan_step")
    words = ["RESOURCE_EXHAUSTED: Out of memory", "CUDA out of memory. Tried", "something else"]

    def warm(*_: Any, **__: Any) -> Any:
        raise RuntimeError(words.pop(0))

    monkeypatch.setattr(bench, "warm", warm)
    monkeypatch.setattr(bench.sys, "argv", ["biggan_step.py", "--batch", "4", "--rounds", "0"])
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            bench.main()
        assert ended.value.code == bench._FULL
    with pytest.raises(RuntimeError, match="something else"):
        bench.main()
