"""sweep: ids that last, runs that are shared, and only what is missing is run."""

import csv
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from prpr import cli, config, record, report
from prpr.errors import ConfigError, Preempted, PrprError
from prpr.report import METRICS
from prpr.sweep import here as in_process
from prpr.sweep import local, slurm, states, tasks, worker

ROOT = Path(cli.__file__).parents[1]
TOY = str(ROOT / "configs/toy_2d.py")


def toy():
    cfg = config.defaults()
    cfg.model.name, cfg.data.name, cfg.name = "mlp", "ring8", "toy"
    return cfg


def expanded(*points, root="r", cfg=None, fixed=()):
    return tasks.expand(cfg or toy(), points, root, fixed)


def grid(lams=(0.2, 5.0), seeds=(0, 1)):
    return {"lams": lams, "seeds": seeds}


def named(runs):
    return [(task.name, task.seeds) for task in runs]


# ---- ids --------------------------------------------------------------------------------------


def test_an_id_is_the_documented_hash():
    # By hand: SHA-256 of the canonical JSON of what differs from the defaults.
    base = hashlib.sha256(
        b'{"settings":{"critic.loss":"hinge","data.name":"ring8","model.name":"mlp",'
        b'"objective":"hinge"}}'
    ).hexdigest()[:10]
    own = hashlib.sha256(
        b'{"base":"base-%s","lam":0.2,"seed":3,"settings":{"critic.lr":0.001,'
        b'"data.name":"ring8","model.name":"mlp"}}' % base.encode()
    ).hexdigest()[:10]
    cfg = toy()
    cfg.control = False
    first, second = expanded({"lams": (0.2,), "seeds": (3,), "critic.lr": 1e-3}, cfg=cfg)
    assert first.id == f"base-{base}"
    assert second.id == own
    assert first.id == "base-b393fc3968"
    assert second.id == "569992804d"


def test_ids_do_not_depend_on_order_or_on_what_changes_no_result():
    def ids(point, **free):
        cfg = toy()
        cfg.update_from_flattened_dict(free)
        return [task.id for task in expanded(point, cfg=cfg)]

    want = ids({"lams": (0.2,), "critic.lr": 1e-3, "generator.lr": 1e-4})
    assert want == ids({"generator.lr": 1e-4, "critic.lr": 1e-3, "lams": [0.2]})
    assert want == ids(
        {"lams": (0.2,), "critic.lr": 1e-3, "generator.lr": 1e-4},
        **{"name": "other", "train.log_every": 7, "score.repeats": 2, "dials.width": 3.0},
    )


def test_a_knob_that_later_versions_add_keeps_ids(monkeypatch):
    before = [task.id for task in expanded(grid())]
    knob = config.Knob(False, lambda *_: None, "a later invention")
    monkeypatch.setitem(config.KNOBS["model"], "later", knob)
    assert [task.id for task in expanded(grid())] == before


@pytest.mark.parametrize(
    "other",
    [
        {"lams": (0.3,)},
        {"seeds": (1,)},
        {"critic.lr": 1e-4},
        {"base.steps": 7},
        {"base.path": "some/where"},
    ],
)
def test_ids_depend_on_what_decides_the_result(other):
    point = {"lams": (0.2,), "seeds": (0,)}
    (one,) = [task.id for task in expanded(point) if task.lam]
    (two,) = [task.id for task in expanded({**point, **other}) if task.lam]
    assert one != two


# ---- expansion --------------------------------------------------------------------------------


def test_runs_share_their_base_and_their_controls():
    runs = expanded(*[{"lams": (lam,), "seeds": (0, 1)} for lam in (0.2, 5)])
    assert named(runs) == [
        ("base", (0, 1)),
        ("control", (0,)),
        ("lam_0.2", (0,)),
        ("control", (1,)),
        ("lam_0.2", (1,)),
        ("lam_5", (0,)),
        ("lam_5", (1,)),
    ]
    base, control, low, *_ = runs
    assert base.config.seeds == (0, 1)
    assert low.config.base.path == f"r/{base.id}" == control.config.base.path
    assert (low.config.lams, low.config.seeds, low.config.control) == ((0.2,), (0,), False)
    assert (control.config.lams, control.config.control) == ((), True)
    config.validate(low.config)
    config.validate(control.config)


def test_knobs_of_the_critic_share_the_control_and_those_of_the_base_do_not():
    critic = expanded(*[{"lams": (1.0,), "critic.lr": lr} for lr in (1e-3, 1e-4)])
    assert [task.name for task in critic] == ["base", "control", "lam_1", "lam_1"]
    base = expanded(*[{"lams": (1.0,), "base.steps": n} for n in (3, 4)])
    assert [task.name for task in base] == ["base", "base", "control", "lam_1", "control", "lam_1"]


def test_a_base_of_ones_own_is_not_trained():
    runs = expanded({**grid(), "base.path": "some/where"})
    assert not any(task.is_base for task in runs)
    assert {task.config.base.path for task in runs} == {"some/where"}


def test_products_are_found():
    whole = [task for task in expanded(grid()) if not task.is_base]
    assert [sorted(named(group)) for group in in_process.products(whole)] == [sorted(named(whole))]
    # One run done already: what is left is a product at each seed.
    left = [task for task in whole if named([task]) != [("lam_5", (1,))]]
    groups = in_process.products(left)
    assert [len(group) for group in groups] == [3, 2]
    assert named(groups[1]) == [("control", (1,)), ("lam_0.2", (1,))]
    # Another learning rate is another program.
    other = expanded(grid((1.0,), (0,)), {**grid((1.0,), (0,)), "critic.lr": 1e-4})
    assert [named(group) for group in in_process.products(other[1:])] == [
        [("control", (0,)), ("lam_1", (0,))],
        [("lam_1", (0,))],
    ]


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"critic.lrr": 1.0}, "unknown knob in sweep(), 'critic.lrr'. Did you mean 'critic.lr'?"),
        ({"critic": {"lr": 1.0}}, "unknown knob in sweep(), 'critic'"),
        ({"critic.lr": "fast"}, "critic.lr = 'fast': must be like"),
        ({"lams": (-1.0,)}, "sweep() yields {'lams': (-1.0,)}: config.lams"),
        ({"lams": 0.2}, "lams = 0.2: must be like"),
        ({"train.steps": 5}, "--config.train.steps is set on the command line and by sweep()"),
    ],
)
def test_points_that_cannot_be_run_are_refused(point, words):
    with pytest.raises(ConfigError) as caught:
        expanded(point, fixed=["train.steps"])
    assert words in str(caught.value)


def test_one_run_is_scored_in_one_way():
    cfg = toy()
    cfg.control = False
    with pytest.raises(ConfigError, match=r"lam_1 at seed 0 twice.*config\.score"):
        expanded({"lams": (1.0,), "score.k": 3}, {"lams": (1.0,), "score.k": 5}, cfg=cfg)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "has no function sweep()"),
        ("def sweep():\n    yield 3", "yields 3: must be a dict"),
        ("def sweep():\n    return []", "yields nothing"),
        ("def sweep():\n    yield 1 / 0", "fails: ZeroDivisionError"),
    ],
)
def test_files_without_a_sweep_are_refused(tmp_path, body, words):
    file = tmp_path / "c.py"
    file.write_text(body)
    with pytest.raises(ConfigError) as caught:
        tasks.points(f"{file}:smoke")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("configs/*.py")))
def test_the_sweep_of_every_config_expands(name):
    path = str(ROOT / "configs" / name)
    cfg = cli._load(path, "config")
    cfg.update_from_flattened_dict({"base.required": False})
    runs = tasks.expand(cfg, tasks.points(path), "r")
    assert len({task.id for task in runs}) == len(runs) > 1


def test_a_base_that_must_be_given_is_not_trained():
    cfg = toy()
    cfg.base.required = True
    with pytest.raises(ConfigError, match=r"config\.base\.path is empty.*--config\.base\.path=DIR"):
        expanded(grid(), cfg=cfg)
    assert not any(task.is_base for task in expanded({**grid(), "base.path": "w"}, cfg=cfg))


def test_a_task_survives_its_file(tmp_path):
    for task in expanded({**grid(), "model.attention_at": (4, 8), "critic.r1": 1}):
        read = tasks.read_task(tasks.write_task(tmp_path, task))
        assert read == task._replace(knobs=record.to_plain(task.knobs))
        assert read.config.to_dict() == task.config.to_dict()


# ---- running ----------------------------------------------------------------------------------


def fake(bad=()):
    """A runner that writes what training leaves behind, and the list of its calls.

    It raises what `bad` has for one of the call's (λ, seed).
    """
    calls = []

    def train(cfg, folder):
        jobs = [(lam, seed) for seed in cfg.seeds for lam in cfg.lams]
        calls.append((folder.name.split("-")[0], cfg.lams, cfg.seeds, cfg.control))
        with record.Record(folder, cfg) as rec:
            for job in jobs:
                if job in bad:
                    raise bad[job]
            names = [("real", None, None)] + [("base", None, seed) for seed in cfg.seeds]
            names += [("control", None, seed) for seed in cfg.seeds if cfg.control]
            names += [(f"lam_{lam:g}", lam, seed) for lam, seed in jobs]
            value = {"value": 0.5, "low": 0.25, "high": 0.75}
            rows = [
                {"name": n, "lam": lam, "seed": s, "metrics": dict.fromkeys(METRICS, value)}
                for n, lam, s in names
            ]
            for name, _, seed in names:
                run = name if seed is None else f"{name}-seed{seed}"
                rec.scalars(1, {"loss": 1.0}, None if seed is None else run)
                record.write_bytes(folder / f"samples/{run}.npz", name.encode())
            rec.summary({"rows": rows, "seconds": 6.0})

    return worker.Runner(train, train), calls


@pytest.fixture(autouse=True)
def no_pages(monkeypatch):
    monkeypatch.setattr(report, "make", lambda folder: folder / "report.html")


def here(root, runs, bad=()):
    runner, calls = fake(dict(bad))
    in_process.here(root, runs, runner)
    return calls, states.states(root, runs)


def test_a_product_is_one_call_and_its_results_are_handed_out(tmp_path):
    runs = expanded(grid(), root=tmp_path)
    calls, now = here(tmp_path, runs)
    assert calls == [("base", (), (0, 1), False), ("family", (0.2, 5.0), (0, 1), True)]
    assert set(now.values()) == {"done"}
    task = next(task for task in runs if named([task]) == [("lam_5", (1,))])
    folder = tmp_path / task.id
    summary = record.read_json(folder / "summary.json")
    assert [(row["name"], row["seed"]) for row in summary["rows"]] == [
        ("real", None),
        ("base", 1),
        ("lam_5", 1),
    ]
    assert summary["seconds"] == 1.0  # 6 runs in 6 seconds
    assert [row["run"] for row in record.read_metrics(folder)] == [None, "lam_5-seed1"]
    assert (folder / "samples/lam_5-seed1.npz").read_bytes() == b"lam_5"
    assert sorted(os.listdir(folder / "samples")) == [
        *("base-seed1.npz", "lam_5-seed1.npz", "real.npz"),
    ]
    # The folder's checkpoints are those of the shared call.
    shared = tmp_path / f"family-{task.family}" / "checkpoints/lam_5-seed1"
    assert shared.samefile(folder / "checkpoints/lam_5-seed1")
    assert here(tmp_path, runs) == ([], now)


def test_only_what_is_missing_runs(tmp_path):
    here(tmp_path, expanded(grid((0.2,)), root=tmp_path))
    more = expanded(grid((0.2, 5.0)), root=tmp_path)
    assert here(tmp_path, more)[0] == [("family", (5.0,), (0, 1), False)]
    seed = expanded(grid((0.2, 5.0), (0, 1, 2)), root=tmp_path)
    # The base is called for its new seed, with the old ones, which `run` reuses.
    assert here(tmp_path, seed)[0] == [
        ("base", (), (0, 1, 2), False),
        ("family", (0.2, 5.0), (2,), True),
    ]
    one = next(task for task in seed if task.name == "lam_5")
    (tmp_path / one.id / "summary.json").unlink()
    assert states.state(tmp_path, one) == "interrupted"
    assert here(tmp_path, seed)[0] == [(one.id, (5.0,), (0,), False)]


def test_another_scoring_or_a_foreign_record_is_not_done(tmp_path):
    runs = expanded(grid((0.2,), (0,)), root=tmp_path)
    here(tmp_path, runs)
    cfg = toy()
    cfg.score.k = 5
    again = expanded(grid((0.2,), (0,)), root=tmp_path, cfg=cfg)
    assert [task.id for task in again] == [task.id for task in runs]
    assert {states.state(tmp_path, task) for task in again} == {"interrupted"}
    path = tmp_path / runs[-1].id / "summary.json"
    path.write_text('{"rows": 3}')
    assert states.state(tmp_path, runs[-1]) == "interrupted"


def test_a_failed_run_stops_no_other_and_is_tried_again(tmp_path, capsys):
    runs = expanded(grid(), root=tmp_path)
    calls, now = here(tmp_path, runs, {(5.0, 1): PrprError("lam_5-seed1: not finite")})
    assert [call[0] for call in calls[:2]] == ["base", "family"]
    assert len(calls) == 2 + 6  # then one by one
    bad = next(task for task in runs if named([task]) == [("lam_5", (1,))])
    assert {key for key, state in now.items() if state != "done"} == {bad.id}
    assert now[bad.id] == "failed"
    text = (tmp_path / bad.id / "error.txt").read_text()
    assert text.startswith("lam_5-seed1: not finite\n\nTraceback")
    assert f"{bad.id} failed: lam_5-seed1: not finite" in capsys.readouterr().err
    calls, now = here(tmp_path, runs)
    assert calls == [(bad.id, (5.0,), (1,), False)]
    assert set(now.values()) == {"done"}
    assert not (tmp_path / bad.id / "error.txt").exists()


def test_runs_of_a_failed_base_are_left_out(tmp_path, capsys):
    runs = expanded(grid((0.2,), (0,)), root=tmp_path)

    def fail(cfg, folder):
        raise PrprError("no data")

    in_process.here(tmp_path, runs, fake()[0]._replace(train_base=fail))
    now = states.states(tmp_path, runs)
    assert list(now.values()) == ["failed", "missing", "missing"]
    assert f"left out, {runs[0].id} is failed" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Preempted(3, "there")])
def test_an_interruption_ends_the_sweep(tmp_path, error):
    runs = expanded(grid(), root=tmp_path)
    with pytest.raises(type(error)):
        here(tmp_path, runs, {(5.0, 1): error})
    now = states.states(tmp_path, runs)
    assert list(now.values()) == ["done"] + 6 * ["interrupted"]
    assert not list(tmp_path.glob("*/error.txt"))


def test_what_runs_elsewhere_is_left_alone(tmp_path, capsys):
    runs = expanded(grid((0.2,), (0,)), root=tmp_path)
    here(tmp_path, runs[:1])
    with record.Record(tmp_path / runs[2].id, runs[2].config):
        calls, now = here(tmp_path, runs)
    assert calls == [(runs[1].id, (), (0,), True)]
    assert now[runs[2].id] == "running"
    assert "is running in another process" in capsys.readouterr().out
    # Asking leaves no lock behind.
    with open(tmp_path / runs[2].id / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- tables -----------------------------------------------------------------------------------


def test_the_table_has_a_row_a_run(tmp_path):
    runs = expanded({**grid((0.2, 5.0), (0,)), "critic.lr": 1e-3}, root=tmp_path)
    _, now = here(tmp_path, runs, {(5.0, 0): PrprError("no")})
    rows = states.table(tmp_path, runs, now)
    lines = states.text(rows).splitlines()
    assert lines[0].split() == ["id", "name", "seed", "state", "precision", "recall", "knobs"]
    assert lines[3].split(maxsplit=4) == [
        *(runs[2].id, "lam_0.2", "0", "done"),
        "0.500 [0.250, 0.750]  0.500 [0.250, 0.750]  critic.lr=0.001",
    ]
    assert lines[4].split()[3:6] == ["failed", "-", "-"]
    assert lines[-1] == "3 done, 1 failed"
    with open(states.write_csv(tmp_path, rows)) as file:
        table = list(csv.DictReader(file))
    assert [row["state"] for row in table] == ["done", "done", "done", "failed"]
    assert table[2]["critic.lr"] == "0.001"
    assert (table[2]["recall"], table[2]["recall_low"], table[3]["recall"]) == ("0.5", "0.25", "")
    json.dumps(record.to_plain(rows))


def test_a_family_is_one_summary(tmp_path):
    runs = expanded(grid(), root=tmp_path)
    here(tmp_path, runs)
    (whole,) = states.families(tmp_path, runs)
    names = [(row["name"], row["seed"]) for row in whole["rows"]]
    assert len(names) == len(set(names)) == 1 + 2 + 2 + 4


# ---- local processes --------------------------------------------------------------------------


def test_devices_are_parted_without_overlap():
    parts = local.slots(3, ["0", "1", "2", "3", "4", "5", "6", "7"])
    assert [part.gpus for part in parts] == [("0", "1"), ("2", "3", "4"), ("5", "6", "7")]
    assert str(parts[0]) == "CUDA_VISIBLE_DEVICES=0,1"
    assert len(local.slots(0, ["a", "b"])) == 2
    (whole,) = local.slots(1, [])
    if hasattr(os, "sched_getaffinity"):
        assert set(whole.cores) == os.sched_getaffinity(0)
    with pytest.raises(ConfigError, match="--jobs=3: this machine has 2 GPUs"):
        local.slots(3, ["a", "b"])


def test_visible_gpus_are_those_that_the_user_left(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [part.gpus for part in local.slots(0)] == [("4",), ("6",)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not local.slots(1)[0].gpus
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert not local.slots(1)[0].gpus


def stand_in(monkeypatch, code):
    """Local processes run `code` in the place of a training; its argument is the folder."""
    monkeypatch.setattr(
        local, "command", lambda folder: [sys.executable, "-S", "-c", code, str(folder)]
    )


def test_a_process_that_dies_without_a_word_has_failed(tmp_path, monkeypatch):
    runs = expanded(grid((0.2,), (0,)), root=tmp_path)
    here(tmp_path, runs[:1])
    stand_in(monkeypatch, "import os; print('before', flush=True); os.kill(os.getpid(), 9)")
    local.local(tmp_path, runs, 1)
    assert states.states(tmp_path, runs)[runs[2].id] == "failed"
    text = (tmp_path / runs[2].id / "error.txt").read_text()
    assert text == "its process was ended by signal 9; the end of log.txt:\nbefore\n"


def test_at_most_so_many_processes_run_at_once(tmp_path, monkeypatch):
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    runs = expanded(grid(), root=tmp_path)
    here(tmp_path, runs[:1])
    code = (
        "import os, sys, time; d = os.path.dirname(sys.argv[1]); mark = f'{d}/on-{os.getpid()}';"
        "open(mark, 'w').close(); n = sum(f.startswith('on-') for f in os.listdir(d));"
        "print(n, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1);"
        "time.sleep(.2); os.remove(mark); sys.exit(75)"
    )
    stand_in(monkeypatch, code)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    local.local(tmp_path, runs, 2)
    logs = [(tmp_path / task.id / "log.txt").read_text().split() for task in runs[1:]]
    assert len(logs) == 6
    assert max(int(n) for n, _ in logs) == 2
    if before is not None:
        assert os.sched_getaffinity(0) == before
        assert max(int(cores) for _, cores in logs) <= (len(before) + 1) // 2
    assert "failed" not in states.states(tmp_path, runs).values()  # 75: it can go on


def test_an_error_ends_the_processes(tmp_path, monkeypatch):
    runs = expanded(grid((0.2,), (0,)), root=tmp_path)
    here(tmp_path, runs[:1])
    stand_in(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        local.local(tmp_path, runs, 1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "failed" not in states.states(tmp_path, runs).values()


# ---- SLURM ------------------------------------------------------------------------------------


def test_submitit_runs_what_is_missing(tmp_path):
    pytest.importorskip("submitit")
    point = {**grid((0.2,), (0,)), "base.path": str(tmp_path / "none"), "control": False}
    runs = expanded(point, root=tmp_path)
    jobs = slurm.slurm(tmp_path, runs, options=["timeout_min=5"], cluster="local")
    # There is no such base run: its error is in its folder, and no job raises.
    assert [job.result() for job in jobs] == [1]
    assert list(states.states(tmp_path, runs).values()) == ["failed"]
    assert "no checkpoint of base" in (tmp_path / runs[0].id / "error.txt").read_text()
    assert record.read_json(tmp_path / "slurm/jobs.json").keys() == {task.id for task in runs}


def program(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_slurm_runs_wait_for_their_base_and_are_submitted_once(tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program(bin_, "srun", "")
    submit = f"""n=$(cat {bin_}/n 2>/dev/null || echo 10); echo $((n + 1)) > {bin_}/n
        cp "$1" {bin_}/job-$n.sh; echo "Submitted batch job $n" """
    program(bin_, "sbatch", submit)
    program(bin_, "squeue", "printf '10_0\\n11_0\\n11_1\\n'")
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    root = tmp_path / "r"
    runs = expanded(grid((0.2,), (0,)), root=root)
    # Its `sacct` is not asked: nothing waits for these jobs.
    jobs = slurm.slurm(root, runs, 4, ["slurm_partition=gpu", "timeout_min=30"])
    assert [job.job_id for job in jobs] == ["10", "11_0", "11_1"]
    base, runs = [(bin_ / f"job-{n}.sh").read_text() for n in (10, 11)]
    assert "dependency" not in base
    assert "#SBATCH --dependency=afterany:10\n" in runs
    for line in ("--partition=gpu", "--time=30", "--array=0-1%2", "--gpus-per-node=1"):
        assert f"#SBATCH {line}\n" in runs
    capsys.readouterr()
    for option in ("partition", "=3", "slurm_nonsense=3"):
        with pytest.raises(ConfigError):
            slurm.slurm(root, runs, options=[option])


# ---- the command ------------------------------------------------------------------------------


def call(tmp_path, *arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/sweep"), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )


def small(tmp_path):
    """A config file of three runs that are trained in seconds."""
    file = tmp_path / "small.py"
    file.write_text(
        "import runpy\n"
        f"get_config = runpy.run_path({TOY!r})['get_config']\n"
        "def sweep():\n"
        "    for lam in (0.2, 5.0):\n"
        "        yield {'lams': (lam,), 'train.steps': 2, 'train.warmup': 1, 'base.steps': 2}\n"
    )
    return f"--config={file}:smoke"


def test_the_command_shows_what_would_run(tmp_path):
    shown = call(tmp_path, small(tmp_path), "--root=r", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[-3] == "4 missing"
    assert [line.count("seed") for line in lines[-2:]] == [1, 3]  # a base, a product of three
    assert not (tmp_path / "r").exists()


def test_a_real_sweep_in_this_process(tmp_path):
    flag = small(tmp_path).removeprefix("--config=")
    runs = tasks.expand(cli._load(flag, "config"), tasks.points(flag), tmp_path / "r")
    with jax.numpy_dtype_promotion("standard"):  # as outside of tests: optax promotes
        in_process.here(tmp_path / "r", runs)
    assert set(states.states(tmp_path / "r", runs).values()) == {"done"}
    own = tmp_path / "r" / runs[2].id
    assert os.listdir(own / "checkpoints") == ["lam_0.2-seed0"]
    assert os.listdir(own / "checkpoints/lam_0.2-seed0")
    # Alone, a run finds its own checkpoint, and gives what it gave among others.
    before = states.scores(tmp_path / "r", runs[2])
    (own / "summary.json").unlink()
    with jax.numpy_dtype_promotion("standard"):
        in_process.here(tmp_path / "r", runs)
    after = states.scores(tmp_path / "r", runs[2])
    assert before is not None
    assert after is not None
    assert before["rows"] == after["rows"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json"], "--json goes with --status"),
        (["--jobs=2"], "--jobs goes with --where=local"),
        (["--slurm=a=b"], "--slurm goes with --where=slurm"),
        (["--config.lams=1"], "--config.lams is set on the command line and by sweep() too"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, arguments, words):
    refused = call(tmp_path, f"--config={TOY}:smoke", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert words in refused.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_local_processes_give_what_one_process_gives(tmp_path):
    flag = small(tmp_path)
    done = call(tmp_path, flag, "--root=a")
    assert done.returncode == 0, done.stderr
    assert "4 done" in done.stdout
    other = call(tmp_path, flag, "--root=b", "--where=local", "--jobs=1")
    assert other.returncode == 0, other.stdout + other.stderr
    tables = [(tmp_path / root / "summary.csv").read_text() for root in "ab"]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == 5
    state = call(tmp_path, flag, "--root=b", "--status", "--json")
    rows = json.loads(state.stdout)
    assert [row["state"] for row in rows] == ["done"] * 4
    assert all((tmp_path / root / rows[2]["id"] / "report.html").exists() for root in "ab")
