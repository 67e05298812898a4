"""experiments/evaluate.py from within: where its result goes, whole or not at all."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prpr
from prpr import config, record
from prpr.errors import WorkdirError
from prpr.evaluate import command, evaluate, table
from prpr.metrics import registry

PR = ("precision", "recall")


@pytest.fixture
def files(tmp_path):
    """(real, fake): .npz files of 60 and 60 features."""
    rng = np.random.default_rng(1)
    for name, shift in (("real", 0.0), ("fake", 0.5)):
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(shift, 1, (60, 6)))
    return str(tmp_path / "real.npz"), str(tmp_path / "fake.npz")


def test_json_is_one_object_and_nothing_else(files, capsys, monkeypatch):
    """Also where a library prints."""
    measured = registry.replicates

    def loud(*arguments):
        print("a library's banner")
        return measured(*arguments)

    monkeypatch.setattr(registry, "replicates", loud)
    command.main(*files, "-", metrics=(*PR, "p_precision", "fd"))
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "banner" in err
    assert set(found) == {
        *("metrics", "n_real", "n_fake", "encoder", "k", "k_coverage", "seed", "convention"),
        *("resize", "warnings", "version", "real", "fake"),
    }
    assert list(found["metrics"]) == ["precision", "recall", "p_precision", "fd"]
    assert set(found["metrics"]["precision"]) == {"value", "low", "high", "level", "k"}
    assert set(found["metrics"]["fd"]) == {"value", "low", "high", "level"}
    assert [found["metrics"][name]["k"] for name in (*PR, "p_precision")] == [3, 3, 4]
    assert (found["real"], found["fake"]) == files
    assert found["version"] == prpr.__version__
    assert (found["n_real"], found["k"], found["seed"]) == (60, 3, 0)
    assert found["warnings"]


def test_a_table_has_the_interval_and_all_that_numbers_depend_on(files, capsys):
    command.main(*files, "", metrics=(*PR, "p_precision", "fd"))
    out, _ = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["metric"][-1] == "k"
    assert [rows[name][-1] for name in (*PR, "p_precision")] == ["3", "3", "4"]
    assert rows["fd"][-2] == "to"  # it has no neighbours
    for part in (
        *files,
        "n = 60",
        "k = 3",
        "convention prpr",
        "precision",
        "95 % interval",
        "note",
    ):
        assert part in out


def test_json_in_a_file_is_whole_or_not_there(files, tmp_path, monkeypatch, capsys):
    path = tmp_path / "deep" / "out.json"
    command.main(*files, str(path), metrics=PR)
    before = path.read_bytes()
    assert json.loads(before)["n_fake"] == 60
    assert "precision" in capsys.readouterr().out

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkdirError, match="No space left"):
        command.main(*files, str(path), metrics=PR, seed=1)
    assert "precision" in capsys.readouterr().out  # the numbers are not lost with the file
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["out.json"]


def test_files_that_cannot_be_written_cost_no_work(files, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "evaluate", lambda *_, **__: pytest.fail("work was done"))
    for path in (tmp_path, tmp_path / "real.npz" / "out.json"):
        with pytest.raises(WorkdirError, match="name another place"):
            command.main(*files, str(path))
    with pytest.raises(WorkdirError, match="name another place"):
        command.main(*files, "", sheet=str(tmp_path / "real.npz" / "x.png"))


def test_numbers_that_are_not_finite_have_names(files):
    found = evaluate(*files, PR)
    odd = found.metrics["precision"]._replace(value=np.nan, high=np.inf)
    changed = dataclasses.replace(found, metrics={"precision": odd})
    plain = changed.to_json()["metrics"]["precision"]
    assert (plain["value"], plain["high"]) == ("nan", "inf")
    json.dumps(changed.to_json(), allow_nan=False)
    assert "nan" in table.text(changed)


def test_numbers_have_four_digits():
    given = (0.00012, -1.2345e-5, 0.09, 0.0, 0.5, 1.0, 12.34567, 12345.6)
    shown = ("0.0001200", "-1.234e-05", "0.09000", "0.0000", "0.5000", "1.0000", "12.346", "12346")
    assert tuple(map(table.number, given)) == shown


def test_the_bars_go_to_standard_error_and_wait_where_it_is_no_terminal(capsys):
    for patience, shown in ((0.0, True), (60.0, False)):
        bars = command.Bars(patience)
        for done in (0, 5, 10):
            bars("encode real", done, 10)
        bars("encode fake", 0, 10)
        bars("encode fake", 10, 10)
        bars.close()
        out, err = capsys.readouterr()
        assert not out
        assert ("encode real: 10/10 (100 %)" in err) == shown
        assert ("encode fake: 10/10 (100 %)" in err) == shown


# ---- as processes; tests/end_to_end/test_evaluate_cli.py has more of evaluate.py ----------------


def process(script, *options):
    """(exit code, output, errors) of a command."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, script, *options], cwd=root, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("script", "option", "said"),
    [
        ("experiments/evaluate.py", "--metrisc=fid", "metrics"),
        ("experiments/lambda_table.py", "--estimatr=knn", "estimator"),
        ("scripts/reference_stats", "--encodr=pixels", "encoder"),
    ],
)
def test_a_flag_that_is_not_known(script, option, said):
    code, out, err = process(script, option)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_table_of_a_run_as_a_process(tmp_path):
    """JSON and nothing else; what the runs stored is enough, so nothing is drawn."""
    cfg = config.defaults()
    cfg.lams, cfg.seeds, cfg.data.name, cfg.model.name = (0.2, 5.0), (0,), "ring8", "mlp"
    cfg.data.fractions = (0.98, 0.01, 0.01)
    (tmp_path / "run" / "samples").mkdir(parents=True)
    record.write_json(tmp_path / "run" / "config.json", record.to_plain(cfg))
    rng = np.random.default_rng(0)
    for name in ("lam_0.2", "lam_5"):
        x = rng.normal(size=(400, 2)).astype(np.float32)
        np.savez(tmp_path / "run" / "samples" / f"{name}-seed0.npz", points=x)
    code, out, err = process(
        "experiments/lambda_table.py", f"--workdir={tmp_path}/run", "--estimator=knn", "--json=-"
    )
    assert code == 0, err
    found = json.loads(out)
    assert [row["lam"] for row in found["rows"]] == [0.2, 5.0]
    assert any("of the 400 samples that were stored" in line for line in found["warnings"])
