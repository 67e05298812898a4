"""record: whole files whatever happens, one writer, and the same lines after a resume."""

import io
import json
import math
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import prpr
from prpr import progress, record
from prpr.errors import DataError, PrprError, WorkdirError


def rows(workdir):
    """The metrics without their times."""
    return [{k: v for k, v in row.items() if k != "time"} for row in record.read_metrics(workdir)]


# ---- a whole record -------------------------------------------------------------------


def test_a_run(tmp_path):
    config = ConfigDict({"b": (0.2, 5.0), "a": {"name": "λ", "none": None}, "path": tmp_path})
    with record.Record(tmp_path / "deep" / "run", config) as log:
        log.scalars(1, {"loss": jnp.float32(0.5), "count": np.int64(3)}, run="a")
        log.scalars(2, {"curve": jnp.arange(3.0), "half": jnp.bfloat16(1.5), "ok": np.True_})
        log.summary({"fid": np.float32(2.0), "lams": jnp.ones((2,))})
    workdir = tmp_path / "deep" / "run"
    assert rows(workdir) == [
        {"step": 1, "run": "a", "loss": 0.5, "count": 3},
        {"step": 2, "run": None, "curve": [0.0, 1.0, 2.0], "half": 1.5, "ok": True},
    ]
    times = [row["time"] for row in record.read_metrics(workdir)]
    assert 0 <= times[0] <= times[1] < 60
    assert record.read_json(workdir / "summary.json") == {"fid": 2.0, "lams": [1.0, 1.0]}
    assert record.read_json(workdir / "config.json") == {
        "a": {"name": "λ", "none": None},
        "b": [0.2, 5.0],
        "path": str(tmp_path),
    }
    text = (workdir / "config.json").read_text()
    assert text.index('"a"') < text.index('"b"')
    names = {"config.json", "environment.json", "metrics.jsonl", "summary.json", ".lock"}
    assert set(os.listdir(workdir)) == names


def test_environment_says_what_matters_and_no_names(tmp_path, monkeypatch):
    code = os.path.dirname(os.path.dirname(record.__file__))
    home = os.path.expanduser("~")
    monkeypatch.setattr(
        sys, "argv", [f"{code}/experiments/x.py", f"--workdir={home}/w", f"--c={code}/configs/d.py"]
    )
    monkeypatch.chdir(tmp_path)  # the revision is the code's, wherever the run is started
    found = record.environment()
    assert found["versions"]["prpr"] == prpr.__version__
    assert found["versions"]["jax"] == jax.__version__
    assert set(found["versions"]) >= {"python", "jaxlib", "flax", "optax", "numpy"}
    assert found["device"]["platform"] == "cpu"
    assert found["device"]["count"] == jax.device_count()
    assert found["git"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", found["git"])
    assert found["command"] == ["x.py", "--workdir=~/w", "--c=./configs/d.py"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["started"])
    text = json.dumps(found)
    assert code not in text
    assert os.uname().nodename not in text


def test_inactive_writes_nothing(tmp_path):
    with record.Record(tmp_path / "run", {"a": 1}, active=False) as log:
        log.scalars(1, {"x": 1.0})
        log.rewind(0)
        log.summary({})
    assert not (tmp_path / "run").exists()


# ---- numbers --------------------------------------------------------------------------


def test_not_finite_is_json_and_comes_back(tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": jnp.array([np.nan, 1.0])}
    with record.Record(tmp_path) as log:
        log.scalars(1, values)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse)["c"] == "-inf"
    (row,) = rows(tmp_path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"][1]) == (math.inf, -math.inf, 1.0)
    assert math.isnan(row["d"][0])


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, np.array([1j]), jax.random.key(0), b"x"])
def test_what_is_no_number_is_refused(tmp_path, value):
    with record.Record(tmp_path) as log:
        with pytest.raises(DataError, match="cannot be recorded"):
            log.scalars(1, {"x": value})
        with pytest.raises(DataError, match="cannot be called 'step'"):
            log.scalars(1, {"step": 1})
    assert rows(tmp_path) == []


# ---- resuming -------------------------------------------------------------------------


def train(workdir, steps, start=0):
    with record.Record(workdir) as log:
        log.rewind(start)
        for step in range(start + 1, steps + 1):
            for run in ("a", "b"):
                log.scalars(step, {"loss": 1 / step}, run=run)


def test_a_resumed_run_has_the_lines_of_one_that_never_stopped(tmp_path):
    train(tmp_path / "whole", 10)
    train(tmp_path / "parts", 7)
    train(tmp_path / "parts", 10, start=4)  # its last checkpoint was of step 4
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    train(tmp_path / "parts", 10, start=10)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    train(tmp_path / "parts", 3, start=0)
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 1, 2, 2, 3, 3]


def test_rewinding_one_run_leaves_the_others(tmp_path):
    train(tmp_path, 3)
    with record.Record(tmp_path) as log:
        log.rewind(1, "b")
    assert [(row["step"], row["run"]) for row in rows(tmp_path)] == [
        (1, "a"),
        (1, "b"),
        (2, "a"),
        (3, "a"),
    ]


@pytest.mark.parametrize("half", ['{"step": 3, "ru', '{"step": 3}', "x" * 200_000])
def test_half_a_line_is_dropped(tmp_path, half):
    train(tmp_path, 2)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole + half.encode())
    assert len(rows(tmp_path)) == 4  # also for who reads while the run goes on
    with record.Record(tmp_path) as log:
        assert (tmp_path / "metrics.jsonl").read_bytes() == whole
        log.scalars(3, {})
    assert rows(tmp_path)[4:] == [{"step": 3, "run": None}]


def test_only_half_a_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"st')
    record.Record(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_rewind_is_atomic(tmp_path, monkeypatch):
    train(tmp_path, 5)
    before = rows(tmp_path)

    def fail(*args):
        raise OSError(28, "No space left on device")

    with record.Record(tmp_path) as log:
        with monkeypatch.context() as patch:
            patch.setattr(record.os, "replace", fail)
            with pytest.raises(WorkdirError, match=r"metrics.jsonl: No space left"):
                log.rewind(2)
        assert rows(tmp_path) == before
        log.scalars(6, {})
    assert len(rows(tmp_path)) == len(before) + 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_short_write_leaves_no_half_line(tmp_path, monkeypatch):
    real = os.write
    with record.Record(tmp_path) as log:
        log.scalars(1, {"x": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(record.os, "write", lambda fd, data: real(fd, data[:5]))
            with pytest.raises(WorkdirError, match="No space left"):
                log.scalars(2, {"x": 2.0})
        log.scalars(3, {"x": 3.0})
    assert [row["step"] for row in rows(tmp_path)] == [1, 3]


# ---- reading --------------------------------------------------------------------------


def test_reading_what_is_missing_or_damaged(tmp_path):
    with pytest.raises(DataError, match=r"no metrics in .*: cannot read metrics.jsonl: No such"):
        record.read_metrics(tmp_path)
    train(tmp_path, 2)
    data = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([data[0], data[1][:9] + b"\n", data[2]]))
    with pytest.raises(DataError, match=r"metrics.jsonl is damaged in line 2"):
        record.read_metrics(tmp_path)
    with record.Record(tmp_path) as log, pytest.raises(DataError, match="damaged"):
        log.rewind(1)
    with pytest.raises(DataError, match=r"cannot read .*nowhere.json: No such file"):
        record.read_json(tmp_path / "nowhere.json")
    for content in (b"", b'{"a": 1', b"\xff\xfe"):
        (tmp_path / "half.json").write_bytes(content)
        with pytest.raises(DataError, match=r"half.json is damaged"):
            record.read_json(tmp_path / "half.json")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "x.json"
    record.write_json(path, {"old": 1})

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, broken, fail)
    with pytest.raises(WorkdirError, match=r"cannot write .*x.json: No space left"):
        record.write_json(path, {"new": 2})
    with pytest.raises(DataError):
        record.write_json(path, {"new": object()})
    assert record.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["x.json"]


# ---- the workdir ----------------------------------------------------------------------


def test_unusable_workdirs(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for path, why in ((file, "it is a file"), (file / "run", "Not a directory")):
        with pytest.raises(WorkdirError, match=rf"{path}: {why}; name another with --workdir"):
            record.Record(path)
    with pytest.raises(WorkdirError, match=r"cannot use workdir /proc/prpr/run"):
        record.Record("/proc/prpr/run")
    # A directory that exists, but takes no files: what permission bits would not show to root.
    with pytest.raises(WorkdirError, match=r"cannot use workdir /proc/self/fdinfo"):
        record.Record("/proc/self/fdinfo")
    assert file.read_text() == "x"


def test_a_workdir_has_one_writer(tmp_path):
    code = f"""
import sys
from prpr import progress, record
log = record.Record({str(tmp_path)!r})
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        message = rf"workdir {tmp_path} is in use by process {other.pid}: "
        with pytest.raises(WorkdirError, match=message):
            record.Record(tmp_path)
        record.read_metrics(tmp_path)  # readers are welcome
        other.kill()  # the system frees the lock of a dead process
        other.wait()
    with record.Record(tmp_path), pytest.raises(WorkdirError, match=f"process {os.getpid()}"):
        record.Record(tmp_path)
    record.Record(tmp_path).close()


def test_a_failed_start_frees_the_workdir(tmp_path):
    with pytest.raises(DataError):
        record.Record(tmp_path, {"x": object()})
    record.Record(tmp_path).close()


# ---- TensorBoard ----------------------------------------------------------------------


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(PrprError, match=r"pip install 'prpr\[tensorboard\]'"):
        record.Record(tmp_path / "a", tensorboard=True)
    assert not (tmp_path / "a").exists()
    record.Record(tmp_path / "a").close()


def test_tensorboard_gets_the_scalars(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, folder, purge_step):
            calls.append((folder, purge_step))

        def add_scalar(self, *args):
            calls.append(args)

        def close(self):
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    with record.Record(tmp_path, tensorboard=True) as log:
        log.rewind(4)
        log.scalars(5, {"loss": jnp.float32(0.5), "curve": np.ones(3), "name": "x"}, run="b")
        log.rewind(2, "b")  # a run that falls goes over these steps again
        log.scalars(3, {"loss": 0.25}, run="b")
    board = f"{tmp_path}/tensorboard/b"
    first = [(board, 5), ("loss", 0.5, 5), "closed"]
    assert calls == [*first, (board, 3), ("loss", 0.25, 3), "closed"]


# ---- progress -------------------------------------------------------------------------


def test_progress_elsewhere_is_a_few_plain_lines():
    file = io.StringIO()
    with progress.Progress(1000, "steps", initial=250, file=file) as bar:
        for _ in range(750):
            bar.set({"loss": jnp.float32(0.25)})
            bar.update(1)
    lines = file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"steps: {10 * p}/1000 ({p} %)" for p in range(30, 101, 10)
    ]
    assert all(line.endswith("/s, loss 0.25") for line in lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", file.getvalue())


def test_progress_on_a_terminal_is_a_bar():
    file = io.StringIO()
    file.isatty = lambda: True
    with progress.Progress(4, "steps", file=file) as bar:
        bar.set({"loss": 0.25})
        bar.update(4)
    assert "\r" in file.getvalue()
    assert "loss 0.25" in file.getvalue()
    with progress.Progress(0, "nothing", file=io.StringIO()) as bar:
        bar.update()
