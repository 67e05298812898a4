"""The entry points as a user runs them, on the digits' smoke configuration."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FINETUNE = "experiments/finetune_biggan.py"
SMOKE = "--config=configs/digits.py:smoke"


@pytest.fixture(scope="module")
def done(call, tmp_path_factory):
    """A finished run: (workdir, output)."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    code, out, err = call(FINETUNE, SMOKE, f"--workdir={workdir}", "--config.train.devices=2")
    assert code == 0, err
    return workdir, out


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def lines(workdir, without=("time",)):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in without} for row in rows]


def test_everything_is_there(done):
    workdir, out = done
    s = summary(workdir)
    assert [(r["name"], r["lam"], r["seed"]) for r in s["rows"]] == [
        ("real", None, None),
        ("base", None, 0),
        ("control", None, 0),
        ("lam_0.2", 0.2, 0),
        ("lam_5", 5.0, 0),
    ]
    for row in s["rows"]:
        assert set(row["metrics"]) == {"precision", "recall", "density", "coverage"}
        for e in row["metrics"].values():
            assert e["low"] <= e["value"] <= e["high"]
    assert s["rows"][0]["metrics"]["precision"]["value"] > 0.8
    assert (s["k"], s["n_real"], s["n_fake"]) == (3, 539, 539)
    assert s["encoder"]
    assert s["seconds"] > 0
    for name in ("precision_recall", "samples", "training", "calibration"):
        assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (workdir / "report.html").read_text()
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?https?://", page)
    assert "lam_0.2" in out
    assert "real" in out


def test_the_ratio_is_checked_on_held_out_data_while_training(done):
    checks = [row for row in lines(done[0]) if "heldout_auc" in row]
    assert {row["run"] for row in checks} == {"control-seed0", "lam_0.2-seed0", "lam_5-seed0"}
    for row in checks:
        assert len(row["reliability_mass"]) == 10
        assert 0 <= row["heldout_calibration_error"] <= 1


def test_stored_samples_are_what_was_scored(done):
    from prpr import data, encoders, score
    from prpr.metrics import prdc

    train, held_out = data.load("digits", "train"), data.load("digits", "test")
    encode = encoders.fit("pixels", train.images, train.labels, 0).encode
    with np.load(done[0] / "samples" / "real.npz") as real:
        x = encode(score.from_stored(real))
    assert len(x) == held_out.size
    with np.load(done[0] / "samples" / "lam_5-seed0.npz") as fake:
        found = prdc.prdc(x, encode(score.from_stored(fake))).values()
    row = summary(done[0])["rows"][-1]["metrics"]
    assert found == pytest.approx({name: e["value"] for name, e in row.items()}, abs=1e-12)


def test_a_repeat_reuses_what_is_done(done, call):
    workdir, _ = done
    before = summary(workdir), lines(workdir)
    saved = {p: p.stat().st_mtime_ns for p in (workdir / "checkpoints").rglob("*") if p.is_file()}
    code, _, err = call(FINETUNE, SMOKE, f"--workdir={workdir}", "--config.train.devices=2")
    assert code == 0, err
    assert "train" not in err
    assert summary(workdir)["rows"] == before[0]["rows"]
    assert lines(workdir) == before[1]
    assert saved == {p: p.stat().st_mtime_ns for p in saved}


def test_a_lambda_alone_gives_the_numbers_that_it_gives_among_others(done, call, tmp_path):
    workdir, _ = done
    code, _, err = call(
        FINETUNE,
        SMOKE,
        f"--workdir={tmp_path / 'alone'}",
        f"--config.base.path={workdir / 'base'}",
        "--config.lams=5",
        "--config.control=false",
    )
    assert code == 0, err
    assert summary(tmp_path / "alone")["rows"][-1] == summary(workdir)["rows"][-1]
    alone = [row for row in lines(tmp_path / "alone") if row["run"] == "lam_5-seed0"]
    assert alone == [row for row in lines(workdir) if row["run"] == "lam_5-seed0"]


def test_killed_at_any_moment_it_resumes_to_the_same_numbers(done, call, begin, tmp_path):
    workdir, _ = done
    target = tmp_path / "killed"
    options = [SMOKE, f"--workdir={target}", f"--config.base.path={workdir / 'base'}"]
    # Killed once as its record shows the first λ under way, before and after a checkpoint.
    for wanted in (2, 4):
        process = begin(FINETUNE, *options)
        deadline = time.monotonic() + 200
        record = target / "metrics.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            text = record.read_text() if record.exists() else ""
            if f'"step": {wanted}, "run": "lam_0.2-seed0"' in text:
                break
            time.sleep(0.002)
        process.kill()
        process.communicate()
    code, _, err = call(FINETUNE, *options)
    assert code == 0, err
    assert summary(target)["rows"] == summary(workdir)["rows"]

    def ordered(rows):
        return sorted(rows, key=lambda row: (row["run"], row["step"], len(row)))

    assert ordered(lines(target)) == ordered(lines(workdir))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--config.lams=0"], 2, "config.lams.*0"),
        (["--config.lams=-1,2"], 2, "config.lams.*-1"),
        (["--config.lams=nan"], 2, "config.lams.*nan"),
        (["--config.lams=much"], 2, "lams.*much"),
        (["--config.objective=envelop"], 2, "envelope"),
        (["--config.model.name=bigan"], 2, "biggan"),
        (["--config.data.name=digit"], 2, "digits"),
        (["--config.score.encoder=pixel"], 2, "pixels"),
        (["--config.train.batch=5000"], 2, "5000.*898"),
        (["--config.train.stepz=5"], 2, "steps"),
        (["--config.base.path=/nowhere/base"], 1, "/nowhere/base"),
        (["--workdir=setup.cfg/below"], 1, "setup.cfg/below"),
    ],
)
def test_bad_input_ends_with_one_line(call, tmp_path, options, code, says):
    workdir = [] if any("workdir" in o for o in options) else [f"--workdir={tmp_path / 'run'}"]
    got, _, err = call(FINETUNE, SMOKE, *workdir, *options)
    assert got == code, err
    assert len(err.strip().splitlines()) == 1
    assert re.search(says, err), err
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_base_that_does_not_serve_is_refused(done, call, tmp_path):
    workdir, _ = done

    def refused(base, says, *options):
        target = tmp_path / "refused"
        code, _, err = call(
            FINETUNE, SMOKE, f"--workdir={target}", f"--config.base.path={base}", *options
        )
        assert code == 1
        assert re.search(says, err), err
        assert len(err.strip().splitlines()) == 1
        assert not target.exists()

    refused(workdir / "base", "does not fit", "--config.model.generator_ch=12")
    refused(workdir / "base", "other settings.*split_seed", "--config.data.split_seed=1")
    half = tmp_path / "half"
    shutil.copytree(workdir / "base", half)
    shutil.rmtree(half / "checkpoints" / "base-seed0" / "step_00000004")
    refused(half, "step 3 of 4.*interrupted")
    damaged = tmp_path / "damaged"
    shutil.copytree(workdir / "base", damaged)
    for path in (damaged / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(damaged, "damaged")


def test_runs_from_one_base_are_not_shown_beside_another(done, call, tmp_path):
    workdir, _ = done
    before = {p: p.read_bytes() for p in workdir.glob("*.json")}
    other = tmp_path / "other"
    code, _, err = call(
        "experiments/train_gan.py",
        "--config=configs/digits.py:base",
        f"--workdir={other}",
        "--config.train.steps=1",
        "--config.train.batch=16",
    )
    assert code == 0, err
    code, _, err = call(FINETUNE, SMOKE, f"--workdir={workdir}", f"--config.base.path={other}")
    assert code == 1
    assert re.search("other settings.*base", err), err
    assert before == {p: p.read_bytes() for p in workdir.glob("*.json")}


def test_an_interrupted_base_is_finished_first(done, call, tmp_path):
    workdir, _ = done
    target = tmp_path / "run"
    shutil.copytree(workdir / "base", target / "base")
    shutil.rmtree(target / "base" / "checkpoints" / "base-seed0" / "step_00000004")
    code, out, err = call(FINETUNE, SMOKE, f"--workdir={target}")
    assert code == 0, err
    assert "training it first" in out
    assert summary(target)["rows"] == summary(workdir)["rows"]


def test_other_settings_in_the_same_workdir_are_refused(done, call):
    workdir, _ = done
    before = (workdir / "summary.json").read_bytes()
    code, _, err = call(FINETUNE, SMOKE, f"--workdir={workdir}", "--config.critic.lr=0.5")
    assert code == 1
    assert "critic.lr" in err
    assert (workdir / "summary.json").read_bytes() == before


def test_one_program_serves_every_lambda():
    """Two groups of runs at four λ, on one device: each program is compiled once."""
    code = """
import jax, numpy as np
from prpr import config, parallel, build, train
cfg = config.defaults()
cfg.model.generator_ch = cfg.model.critic_ch = 2
cfg.model.dim_z = cfg.model.shared_dim = 4
parts = build.splits(cfg)
system = build.system(cfg, parts.train)
traces = []
def step(state, batch):
    traces.append(1)
    return train.make_step(system)(state, batch)
fleet = parallel.Fleet(parallel.setup(2, 4))
assert fleet.width == 2, fleet.width
fn = fleet.map(step)
x, y = parts.train.images[None, :8], parts.train.labels[None, :8]
for lams in ((0.2, 1.0), (5.0, 20.0), (3.0,)):
    states = [
        train.init(system, jax.random.key(0), x[0], build.dials(cfg, lam)) for lam in lams
    ]
    stacked, _ = fn(fleet.place(states), fleet.batch([{"image": x, "label": y}] * len(lams)))
    fleet.fetch(stacked, len(lams))
print(len(traces))
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["1"]


def test_lambda_trained_for_against_lambda_measured(done, call):
    code, out, err = call(
        *("experiments/lambda_table.py", f"--workdir={done[0]}", "--estimator=knn", "--json=-")
    )
    assert code == 0, err
    found = json.loads(out)
    assert [row["lam"] for row in found["rows"]] == [0.2, 5.0]
    assert (found["n_real"], found["n_fake"]) == (539, 539)
    assert all(row["alpha"]["low"] <= row["alpha"]["value"] for row in found["rows"])


def test_samplers_beside_training(done, call):
    workdir, _ = done
    options = (
        *("experiments/control.py", f"--workdir={workdir}", "--n_fake=64", "--budgets=2"),
        *("--samplers=reject,truncation,mh:steps=2,ddls:steps=1", "--truncations=.5", "--json=-"),
    )
    code, out, err = call(*options)
    assert code == 0, err
    found = json.loads(out)
    told = ["plain", "reject:budget=2", "truncation:at=0.5", "mh:steps=2", "ddls:steps=1,size=0.01"]
    assert [(row["model"], row["sampler"]) for row in found["rows"]] == [
        *((name, told[i]) for name in ("base", "control") for i in (0, 2)),  # hinge: no ratio
        *((name, one) for name in ("lam_0.2", "lam_5") for one in told),
    ]
    assert len(found["left_out"]) == 6
    assert all("hinge" in one["why"] for one in found["left_out"])
    ends = {
        row["sampler"]: row["cost"]["per_item"] for row in found["rows"] if row["model"] == "lam_5"
    }
    assert ends["ddls:steps=1,size=0.01"] == {"generator": 2.0, "critic": 1.0, "gradient": 1.0}
    assert 1.4 < ends["reject:budget=2"]["generator"] < 3
    for kind in ("png", "pdf"):
        assert (workdir / "figures" / f"control.{kind}").stat().st_size > 5000
    code, out, err = call(*options)
    assert code == 0, err
    assert json.loads(out) == {**found, "reused": len(found["rows"])}
    # The same of one run, through evaluate.py; a model without a ratio is one line.
    evaluate = ("experiments/evaluate.py", f"--real={workdir}?real", "--encoder=pixels")
    code, out, err = call(
        *(*evaluate, f"--fake={workdir}?lam=5", "--n_fake=64", "--n_real=0", "--json=-"),
        "--sampler=reject:budget=2",
    )
    assert code == 0, err
    row = next(r for r in found["rows"] if r["model"] == "lam_5" and "reject" in r["sampler"])
    assert json.loads(out)["sampler"]["cost"] == row["cost"]
    code, _, err = call(*evaluate, f"--fake={workdir}?run=control", "--sampler=reject:budget=2")
    assert code == 2
    assert "run=control has no ratio p/q" in err
    assert len(err.strip().splitlines()) == 1
