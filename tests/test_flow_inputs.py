"""What a flow cannot be made of is refused as it is built: by name, value and what to do."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prpr import build, cli, data, models, planner
from prpr.errors import ConfigError, DataError
from prpr.models import flows
from prpr.models.flows.couplings import SplineCoupling
from prpr.models.flows.residual import Residual, residual

ROOT = Path(__file__).parent.parent
IMAGE, POINT = "digits", "toy_2d"


def settings(where: str, /, **changes: Any) -> Any:
    cfg: Any = cli._load(f"{ROOT}/configs/{where}.py:flow_smoke", "config")
    cfg.update_from_flattened_dict({f"model.{knob}": v for knob, v in changes.items()})
    return cfg


REFUSED = [
    (IMAGE, {"name": "tarflow", "patch": 3}, ["patch = 3", "8 x 8", "use one of 1, 2, 4, 8"]),
    (IMAGE, {"name": "tarflow", "patch": 16}, ["patch = 16", "use one of 1, 2, 4, 8"]),
    (IMAGE, {"name": "jet", "patch": 1}, ["1 entries", "odd", "use an even patch"]),
    (IMAGE, {"name": "jet", "patch": 8}, ["patch = 8", "one token", "use a smaller patch"]),
    (
        IMAGE,
        {"name": "tarflow", "generator_ch": 64, "heads": 3},
        ["width = 64", "heads = 3", "such as 63", "width is config.model.generator_ch"],
    ),
    (POINT, {"name": "tarflow", "heads": 3}, ["width = 32", "heads = 3", "config.model.generator"]),
    (IMAGE, {"name": "glow", "scales": 4}, ["scales = 4", "halved 3 times", "fewer scales"]),
    (IMAGE, {"name": "realnvp", "scales": 4}, ["scales = 4", "halved 3 times"]),
    (IMAGE, {"name": "spline", "scales": 5}, ["scales = 5", "halved 3 times"]),
    (IMAGE, {"name": "residual", "scales": 9}, ["scales = 9", "halved 3 times"]),
    (POINT, {"name": "jet"}, ["'jet'", "(2,)", "take 'spline' or 'tarflow'"]),
    (IMAGE, {"name": "glow", "remat": True}, ["remat = True", "set it to False"]),
    (IMAGE, {"dequantiser": "variational"}, ["'variational'", "'balanced'", "'uniform'"]),
    (IMAGE, {"patch": 4}, ["patch = 4", "glow does not read it", "leave it at 2"]),
    (IMAGE, {"fourier": 2.0}, ["fourier = 2.0", "'digits'", "leave it at 0"]),
    (IMAGE, {"dtype": "bfloat16"}, ["dtype = 'bfloat16'", "float32 only"]),
]


@pytest.mark.parametrize(("where", "changes", "says"), REFUSED)
def test_a_run_and_its_plan_refuse_what_cannot_be_built(where, changes, says):
    cfg = settings(where, **changes)
    for ask in (build.check, lambda cfg: planner.plan(cfg, device="l4")):
        with pytest.raises(ConfigError) as caught:
            ask(cfg)
        words = str(caught.value)
        assert "config.model." in words
        assert "\n" not in words
        for part in says:
            assert part in words


@pytest.mark.parametrize(
    ("shape", "changes", "says"),
    [
        # Sides that cannot be squeezed leave channels that cannot be halved.
        ((7, 7, 1), {"name": "glow"}, "odd number of channels, 1"),
        ((7, 7, 3), {"name": "spline"}, "odd number of channels, 3"),
        ((6, 9, 1), {"name": "glow", "scales": 1}, "sides 6 and 9 can be halved 0 times"),
        ((28, 28, 1), {"name": "realnvp", "scales": 3}, "halved 2 times"),
        ((6, 6, 1), {"name": "jet", "patch": 3}, "9 entries, an odd number"),
        ((8, 8), {"name": "glow"}, r"shape = \(8, 8\) must be"),
        ((8, 8), {"name": "tarflow"}, r"\(H, W, C\)"),
        ((1,), {"name": "realnvp"}, "one entry"),
        ((1,), {"name": "spline"}, "one entry"),
    ],
)
def test_shapes_that_no_flow_of_the_name_takes(shape, changes, says):
    cfg = settings(IMAGE, **changes)
    with pytest.raises(ConfigError, match=says) as caught:
        flows.build(cfg.model, shape, 1, 0)
    assert f"data of shape {shape}" in str(caught.value)


@pytest.mark.parametrize("shape", [(7, 7, 1), (6, 6, 3), (28, 28, 1), (5, 5, 3)])
@pytest.mark.parametrize("name", ["realnvp", "residual"])
def test_shapes_that_look_odd_and_can_be_built(name, shape):
    m = settings(IMAGE, name=name, depth=2, layers=1, generator_ch=4).model
    flow = flows.build(m, shape, 1, 17)
    assert math.prod(flow.latent_shape) == math.prod(shape)


def test_variational_noise_without_a_grid():
    m = settings(POINT, dequantiser="variational").model
    with pytest.raises(ConfigError, match=r"'variational'.*no grid.*set it to 'uniform'"):
        flows.build(m, (2,), 1, 0)


@pytest.mark.parametrize("limit", [1.0, 1.5, 0.0, -0.5, math.nan, math.inf])
def test_a_residual_map_without_an_inverse(limit):
    for make in (lambda: Residual((4,), lipschitz=limit), lambda: residual((4,), lipschitz=limit)):
        with pytest.raises(ConfigError, match=rf"lipschitz = {limit}.*between 0 and 1"):
            make()


def test_a_spline_whose_narrowest_bins_fill_more_than_its_width():
    with pytest.raises(ConfigError, match=r"bins = 1000 must lie in \[2, 999\]"):
        SplineCoupling((4,), bins=1000)
    with pytest.raises(ConfigError, match="bins = 1000"):
        flows.spline((2,), bins=1000)


def digits(monkeypatch: pytest.MonkeyPatch, change: Any) -> Any:
    """A flow's configuration whose images are changed."""
    whole = data.SOURCES["digits"]("digits", 0)
    images = whole.images.copy()
    change(images)
    monkeypatch.setitem(data.SOURCES, "digits", lambda *_: whole._replace(images=images))
    return settings(IMAGE)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1.5, r"leave \[−1, 1\] \(from -1 to 1.5\) in 1 of .*x / 127.5 − 1"),
        (math.nan, "NaN or infinity in 1 of .*drop them"),
        (0.3, "off their grid of 17 in 1 of .*round them, or declare levels = 0"),
    ],
)
def test_data_out_of_range_or_off_the_grid(monkeypatch, value, says):
    def change(images: np.ndarray) -> None:
        images[7, 0, 0] = value

    cfg = digits(monkeypatch, change)
    with pytest.raises(DataError, match=says):
        build.check(cfg)
    if value == 0.3:  # data without a grid are taken as they are
        whole = data.load("digits", "train")
        data.check_images(whole.images + np.float32(1e-3) * (whole.images < 1), whole.labels, 10)


def test_points_that_are_not_finite(monkeypatch):
    real = data.SOURCES["ring8"]

    def broken(name: str, seed: int) -> data.Dataset:
        whole = real(name, seed)
        whole.images[5] = math.inf
        return whole

    monkeypatch.setitem(data.SOURCES, "ring8", broken)
    with pytest.raises(DataError, match="points of 'ring8' have NaN or infinity"):
        build.check(settings(POINT))


@pytest.mark.parametrize("plan", [(), ("--plan",)])
def test_the_command_says_it_in_one_line(plan, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "experiments/train_flow.py",
            "--config=configs/digits.py:smoke",
            "--config.model.name=tarflow",
            "--config.model.patch=3",
            f"--workdir={tmp_path / 'run'}",
            *plan,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert re.match(r"error: config\.model\.name = 'tarflow'.* patch = 3 .* use one of", line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", models.FLOWS)
def test_flows_are_static_arguments_of_jit(name):
    """Sampling compiles once for equal models; a list among the attributes would have no hash."""
    made = [flows.build(settings(IMAGE, name=name).model, (8, 8, 1), 10, 17) for _ in range(2)]
    assert hash(made[0]) == hash(made[1])
    assert made[0] == made[1]
