"""One run in several processes, and SIGTERM: real processes, on the digits."""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

TRAIN = "experiments/train_gan.py"
# The base alone, the batch shared by all devices, long enough to be interrupted.
OPTIONS = (
    "--config=configs/digits.py:base",
    "--config.train.layout=data",
    "--config.train.devices=0",
    "--config.train.steps=60",
    "--config.train.batch=16",
    "--config.train.log_every=5",
    "--config.train.diagnose_every=20",
    "--config.train.checkpoint_every=10",
    "--config.train.replica_check_every=10",
    "--config.score.repeats=1",
)


def together(number: int, port: int, of: int = 2) -> list[str]:
    return [f"--coordinator=127.0.0.1:{port}", f"--processes={of}", f"--process_id={number}"]


def rows(workdir: Path) -> list[dict]:
    return json.loads((workdir / "summary.json").read_text())["rows"]


def last_losses(workdir: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row for row in lines if "critic_loss" in row}
    return np.array([[found[s]["critic_loss"], found[s]["generator_loss"]] for s in sorted(found)])


def wait_for(path: Path, text: str, *processes) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.01)
    raise AssertionError([p.communicate(timeout=60) for p in processes])


@pytest.fixture(scope="module")
def alone(call, tmp_path_factory):
    """The same run in one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    code, _, err = call(TRAIN, *OPTIONS, f"--workdir={workdir}")
    assert code == 0, err
    return workdir


@pytest.mark.slow
def test_what_ends_one_process_ends_all_and_the_same_command_resumes(
    alone, begin, free_port, tmp_path
):
    workdir = tmp_path / "run"
    for attempt in ("preempted", "killed", "resumed"):
        port = free_port()
        pair = [
            begin(TRAIN, *OPTIONS, f"--workdir={workdir}", *together(number, port))
            for number in range(2)
        ]
        if attempt == "preempted":
            wait_for(workdir / "metrics.jsonl", '"step": 5', *pair)
            pair[1].terminate()
        if attempt == "killed":
            wait_for(workdir / "metrics.jsonl", '"step": 25', *pair)
            pair[1].kill()
        ended = [process.communicate(timeout=200) for process in pair]
        codes = [process.returncode for process in pair]
        if attempt == "preempted":
            assert codes == [75, 75], ended
            (saved,) = (workdir / "checkpoints").glob("*/step_*")
            assert all(f"saved at step {int(saved.name[5:])} in" in err for _, err in ended)
        elif attempt == "killed":
            assert codes == [1, -signal.SIGKILL], ended
            assert "error: process 0: process 0 of 2 ends: another process died" in ended[0][1]
            assert "Traceback" not in ended[0][1]
        else:
            assert codes == [0, 0], ended
            assert "report:" in ended[0][0]
            assert "report:" not in ended[1][0]
    # Two processes of one device, killed and resumed, give the losses of one process.
    one, other = last_losses(workdir)[:8], last_losses(alone)[:8]  # step 40: rounding grows
    np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-3)
    for one, other in zip(rows(workdir), rows(alone), strict=True):
        assert one["name"] == other["name"]


@pytest.mark.slow
def test_sigterm_saves_exits_with_its_own_code_and_resumes_to_the_same_numbers(
    alone, begin, call, tmp_path
):
    workdir = tmp_path / "run"
    process = begin(TRAIN, *OPTIONS, f"--workdir={workdir}")
    wait_for(workdir / "metrics.jsonl", '"step": 25', process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75, err
    assert "the same command resumes" in err
    code, _, err = call(TRAIN, *OPTIONS, f"--workdir={workdir}")
    assert code == 0, err
    assert rows(workdir) == rows(alone)
    np.testing.assert_array_equal(last_losses(workdir), last_losses(alone))


def test_processes_that_disagree_on_a_knob_end_before_anything_is_written(
    begin, free_port, tmp_path
):
    port = free_port()
    pair = [
        begin(
            *(TRAIN, *OPTIONS, f"--workdir={tmp_path / 'run'}", *together(number, port)),
            f"--config.critic.lr={0.001 * (1 + number)}",
        )
        for number in range(2)
    ]
    ended = [process.communicate(timeout=200) for process in pair]
    for process, (_, err) in zip(pair, ended, strict=True):
        assert process.returncode == 2, err
        assert "the processes disagree on config.critic.lr" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--config.train.batch=15", "--config.train.devices=2"], "multiple of 2.*14 is"),
        (["--config.train.devices=64"], "multiple of 64"),
        (["--coordinator=localhost:1"], "go together"),
        (["--distributed", "--config.train.layout=runs"], 'set it to "data"'),
    ],
)
def test_what_cannot_be_shared_out_is_refused(call, tmp_path, options, says):
    code, _, err = call(TRAIN, *OPTIONS, f"--workdir={tmp_path / 'run'}", *options)
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1
    assert re.search(says, err), err
    assert not (tmp_path / "run").exists()
