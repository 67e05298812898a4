"""The user's own command at toy width: every configuration's :smoke, and converted weights."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from prpr import config, weights

ROOT = Path(__file__).parents[2]
FINETUNE = "experiments/finetune_biggan.py"
LARGE = ("celeba64", "cifar10", "ffhq256", "imagenet", "mnist")
IMAGENET = "--config=configs/imagenet.py:smoke"


def smoke(name: str) -> config.Config:
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config("smoke")


def summary(workdir: Path) -> dict:
    return json.loads((workdir / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_configuration_runs_through_at_toy_width(call, tmp_path, name):
    config = f"--config=configs/{name}.py:smoke"
    control = name == "imagenet"  # a program more to compile
    code, out, err = call(
        FINETUNE, config, f"--workdir={tmp_path}", f"--config.control={str(control).lower()}"
    )
    assert code == 0, err
    lams = [row["lam"] for row in summary(tmp_path)["rows"]]
    assert lams == [None] * (2 + control) + [*smoke(name).lams]
    assert (tmp_path / "report.html").exists()
    assert "report:" in out


def write(folder: Path, *, critic: bool) -> config.Config:
    """Converted weights of the imagenet smoke model, with random numbers."""
    cfg = smoke("imagenet")
    model = cfg.model.to_dict()
    key = iter(jax.random.split(jax.random.key(0), 2))

    def made(network: str) -> dict:
        shapes = weights.shapes(model, 32, 1000, network)
        rng = np.random.default_rng(int(jax.random.bits(next(key)) % 2**16))

        def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
            x = rng.standard_normal(leaf.shape).astype(np.float32)
            return np.abs(x) + 0.5 if "var" in str(path[-1]) else 0.3 * x

        return jax.tree_util.tree_map_with_path(fill, shapes)

    generator = made("generator")
    weights.write_weights(
        folder,
        weights.Weights(generator, generator, made("critic") if critic else None),
        model=model if critic else {k: v for k, v in model.items() if "critic" not in k},
        resolution=32,
        num_classes=1000,
        source={"family": "test"},
    )
    return cfg


@pytest.mark.slow
def test_a_generator_alone_gets_a_critic_that_is_fitted_once_and_reused(call, tmp_path):
    write(tmp_path / "weights", critic=False)
    options = (
        *(IMAGENET, f"--workdir={tmp_path / 'run'}", f"--config.base.path={tmp_path / 'weights'}"),
        *("--config.base.fit_every=2", "--config.base.fit_error=0.9", "--config.base.fit_steps=60"),
        *("--config.lams=1", "--config.control=false", "--config.critic.lr=0.001"),
    )
    # A critic that is never calibrated ends the run before the generator moves, and again.
    early = ("--config.base.fit_steps=2", "--config.base.fit_error=0.000001")
    for _ in range(2):
        code, _, err = call(FINETUNE, *options, *early)
        assert code == 1
        assert "config.base.fit_steps" in err
        assert re.search(r"calibration error is 0\.\d+ ", err), err
        assert not (tmp_path / "run" / "checkpoints").exists()
    before = (tmp_path / "run" / "base" / "config.json").read_bytes()
    code, _, err = call(FINETUNE, *options, *early, "--config.train.batch=16")
    assert code == 1
    assert "train.batch" in err
    assert (tmp_path / "run" / "base" / "config.json").read_bytes() == before
    # With another rule it goes on from there.
    code, out, err = call(FINETUNE, *options)
    assert code == 0, err
    assert (
        "fitting a critic with the generator at rest, until its held-out calibration error" in out
    )
    assert "base-seed0: critic fitted after" in out
    assert [row["name"] for row in summary(tmp_path / "run")["rows"]] == ["real", "base", "lam_1"]
    before = (tmp_path / "run" / "base" / "metrics.jsonl").read_bytes()
    code, out, err = call(FINETUNE, *options)
    assert code == 0, err
    assert "fitting one" not in out
    assert (tmp_path / "run" / "base" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_converted_weights_are_the_base(call, tmp_path):
    write(tmp_path / "weights", critic=True)
    options = (IMAGENET, f"--config.base.path={tmp_path / 'weights'}", "--config.lams=1")
    code, _, err = call(FINETUNE, *options, f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert not (tmp_path / "run" / "base").exists()
    for wrong, says in (
        ("--config.model.generator_ch=16", "generator_ch is 16, the weights have 8"),
        ("--config.data.resolution=64", "set --config.data.resolution=32"),
        ("--config.data.name=cifar10", "the data has 10 classes, the weights have 1000"),
    ):
        code, _, err = call(FINETUNE, *options, f"--workdir={tmp_path / 'no'}", wrong)
        assert code == 1, err
        assert says in err
        assert not (tmp_path / "no").exists()


def test_imagenet_says_that_it_needs_weights(call, tmp_path):
    code, _, err = call(FINETUNE, "--config=configs/imagenet.py", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert "scripts/convert_biggan" in err
    assert "config.base.path" in err
