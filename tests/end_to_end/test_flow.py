"""experiments/train_flow.py and toy_2d.py as a user runs them, small."""

import json

import pytest

FLOW = "experiments/train_flow.py"
SMALL = (
    "--config=configs/digits.py:smoke",
    "--config.model.depth=2",
    "--config.model.layers=1",
    "--config.model.generator_ch=16",
    "--config.train.devices=1",
    "--config.critic.steps=1",
    "--config.lams=5",
)


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "route",
    [
        (),
        ("--config.route=implicit", "--config.objective=smoothed_pr", "--config.train.warmup=0"),
    ],
    ids=["default", "implicit"],
)
def test_a_flow_is_trained_scored_and_reported(call, tmp_path, route):
    workdir = tmp_path / "flow"
    code, out, err = call(FLOW, *SMALL, *route, f"--workdir={workdir}")
    assert code == 0, err
    assert "lam_5" in out
    assert (workdir / "report.html").exists()
    assert [r["name"] for r in json.loads((workdir / "summary.json").read_text())["rows"]] == [
        "real",
        "base",
        "control",
        "lam_5",
    ]
    base = [row for row in rows(workdir / "base") if "heldout_bits_per_dim" in row]
    # The standard normal at the start has log2 8 + 1.33 + half of the data's mean square
    # over log 2, below 5 bits; from there it falls.
    assert 2 < base[-1]["heldout_bits_per_dim"] < base[0]["heldout_bits_per_dim"] < 5
    kept = (workdir / "metrics.jsonl").read_bytes()
    code, _, err = call(FLOW, *SMALL, *route, f"--workdir={workdir}")
    assert code == 0, err
    assert (workdir / "metrics.jsonl").read_bytes() == kept


def test_what_a_gan_cannot_do_is_one_line(call, tmp_path):
    code, _, err = call(
        "experiments/finetune_biggan.py",
        "--config=configs/digits.py:smoke",
        "--config.route=data",
        f"--workdir={tmp_path}/x",
    )
    assert code == 2
    assert err.startswith("error: config.route = 'data' needs a model with a density")
    assert not (tmp_path / "x").exists()
