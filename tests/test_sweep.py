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
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from absl import flags

from prpr import cli, config, fitting, jobs, planner, record, report
from prpr.errors import ConfigError, Preempted, PrprError
from prpr.report import METRICS
from prpr.sweep import here as in_process
from prpr.sweep import local, plan, slurm, states, tasks, worker

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
    (one,), (two,) = (
        [key for name, key in ids_of(point).items() if name.startswith("lam")]
        for point in ({}, other)
    )
    assert one != two


def ids_of(point, **free):
    """name -> id of the runs of a point at one λ and one seed, unless it says otherwise."""
    cfg = toy()
    cfg.update_from_flattened_dict(free)
    return {task.name: task.id for task in expanded({**grid((0.2,), (0,)), **point}, cfg=cfg)}


@pytest.mark.parametrize("knob", ["base.fit_error", "base.fit_every", "base.fit_steps"])
def test_how_a_missing_critic_is_fitted_decides_the_result(knob):
    given = {"base.path": "some/where"}
    one, two = ids_of(given), ids_of({**given, knob: 1})
    assert one["control"] != two["control"]
    assert one["lam_0.2"] != two["lam_0.2"]
    # The critic of a base that is made here is trained with it.
    assert ids_of({}) == ids_of({knob: 1})


def test_a_critic_that_was_fitted_to_other_shares_of_classes_is_another():
    cfg, kept = toy(), []
    for balance in (False, True):
        cfg.train.balance = balance
        trainer: Any = SimpleNamespace(cfg=cfg, settings=jobs.settings(cfg))
        kept.append(fitting._settings(trainer, 1))
    assert jobs.different(*kept) == ["train.balance"]


@pytest.mark.parametrize("name", ["folder", "prepared"])
def test_the_path_of_a_nameless_data_set_decides_the_result(name):
    one, two = (ids_of({"data.path": path}, **{"data.name": name}) for path in "ab")
    assert len({*one.values(), *two.values()}) == 6
    made_up = {"data.name": name, "data.miniature": True}
    assert ids_of({"data.path": "a"}, **made_up) == ids_of({"data.path": "b"}, **made_up)
    assert ids_of({"data.path": "a"}) == ids_of({"data.path": "b"})


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


def test_a_base_has_the_seeds_of_all_that_start_from_it():
    points = [grid((1.0,), seeds) for seeds in ((2,), (0, 1))]
    assert expanded(*points)[0].seeds == expanded(*points)[0].config.seeds == (0, 1, 2)


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


DIFFERENT_CONTROLS = [
    [{"control_recipe": "base"}, {"control_recipe": "finetune"}],
    [{"base.path": "w", "base.loss": loss} for loss in ("hinge", "logistic")],
]


@pytest.mark.parametrize("points", DIFFERENT_CONTROLS)
def test_each_control_is_trained_by_its_own_recipe(tmp_path, points):
    points = [{**grid((1.0,), (0,)), "critic.steps": 4, **point} for point in points]
    runs = expanded(*points, root=tmp_path)
    controls = [task for task in runs if task.name == "control"]
    assert len({task.id for task in controls}) == len({task.family for task in controls}) == 2
    runner, _ = fake()
    trained = []

    def finetune(cfg, folder):
        trained.append(config.control_of(cfg).to_dict() if cfg.control else None)
        runner.finetune(cfg, folder)

    in_process.here(tmp_path, runs, runner._replace(finetune=finetune))
    assert set(states.states(tmp_path, runs).values()) == {"done"}
    wanted = [config.control_of(task.config).to_dict() for task in controls]
    assert [known(cfg) for cfg in trained if cfg] == [known(cfg) for cfg in wanted]


def known(cfg):
    """What of a control's configuration is its recipe."""
    return {name: cfg[name] for name in ("objective", "critic", "generator", "train")}


def test_a_call_that_would_train_one_run_for_two_is_refused():
    one, two = (task for task in expanded(grid((1.0,), (0, 1))) if task.name == "lam_1")
    twin = two._replace(seeds=one.seeds, family=one.family)
    assert len(in_process.products([one, two])) == 1
    with pytest.raises(PrprError, match=f"{one.label} and {twin.label} are of one family"):
        in_process.products([one, twin])


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"critic.lrr": 1.0}, "unknown knob in sweep(), 'critic.lrr'. Did you mean 'critic.lr'?"),
        ({"critic": {"lr": 1.0}}, "unknown knob in sweep(), 'critic'"),
        ({"critic.lr": "fast"}, "critic.lr = 'fast': must be like"),
        ({"lams": (-1.0,)}, "sweep() yields {'lams': (-1.0,)}: config.lams"),
        ({"lams": 0.2}, "lams = 0.2: must be like"),
        ({"dial": (0.2, 5.0), "lams": (1.0,)}, "config.dial = (0.2, 5.0) in a sweep"),
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
    ("points", "words"),
    [
        # Nothing reads it, or only how fast and how observed a run is depends on it.
        ([{"train.log_every": 5}, {"train.log_every": 7}], "train.log_every = 5 and 7"),
        ([{"dials.width": 1.0}, {"dials.width": 2.0}], "dials.width = 1.0 and 2.0"),
        ([{"seeds": (0, 1)}, {"name": "n"}], "control at seed 0 twice, with name = 'toy' and 'n'"),
        ([{"base.path": "w"}, {"base.path": "w", "base.steps": 3}], "base.steps = 1000 and 3"),
        ([{"control": False}, {"control": False, "control_recipe": "finetune"}], "control_recipe"),
        ([{"lams": (), "critic.lr": lr} for lr in (1e-3, 1e-4)], "critic.lr = 0.001 and 0.0001"),
    ],
)
def test_a_knob_that_makes_no_run_of_its_own_is_refused(points, words):
    with pytest.raises(ConfigError) as caught:
        expanded(*[{**grid((1.0,), (0,)), **point} for point in points])
    assert words in str(caught.value)
    assert "that changes no result of this run" in str(caught.value)


def test_points_may_overlap():
    runs = expanded(grid((0.2, 1.0)), grid((1.0, 5.0)), {**grid((1.0,)), "critic.lr": 1e-3})
    assert [task.name for task in runs].count("lam_1") == 4
    assert [task.name for task in runs].count("control") == 2


@pytest.mark.parametrize("argument", ["scratch", "base"])
def test_what_is_trained_from_scratch_is_no_sweep(argument):
    file = ROOT / "configs/cifar10.py"
    with pytest.raises(ConfigError) as caught:
        tasks.points(f"{file}:{argument}")
    assert f"sweep() fine-tunes; :{argument} is for experiments/train_gan.py" in str(caught.value)
    assert tasks.points(f"{file}:smoke") == tasks.points(str(file))


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
    path = tmp_path / runs[-1].id / "config.json"
    made = record.read_json(path)
    made["critic"]["lr"] = 7.0
    record.write_json(path, made)
    assert [states.state(tmp_path, task) for task in runs] == ["done", "done", "interrupted"]
    path = tmp_path / runs[1].id / "summary.json"
    path.write_text('{"rows": 3}')
    assert states.state(tmp_path, runs[1]) == "interrupted"


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


def test_a_run_that_is_trained_among_others_has_no_old_error(tmp_path):
    runs = expanded(grid(), root=tmp_path)
    worker.keep_error(tmp_path / runs[-1].id, "not finite")
    assert len(here(tmp_path, runs)[0]) == 2
    assert not list(tmp_path.glob("*/error.txt"))


def test_runs_of_a_failed_base_are_left_out(tmp_path, capsys):
    runs = expanded(grid((0.2,), (0,)), root=tmp_path)

    def fail(cfg, folder):
        raise PrprError("no data")

    in_process.here(tmp_path, runs, fake()[0]._replace(train_base=fail))
    now = states.states(tmp_path, runs)
    assert list(now.values()) == ["failed", "missing", "missing"]
    assert f"left out, {runs[0].id} is failed" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Preempted("saved at step 3")])
def test_an_interruption_ends_the_sweep(tmp_path, error):
    runs = expanded(grid(), root=tmp_path)
    with pytest.raises(type(error)):
        here(tmp_path, runs, {(5.0, 1): error})
    now = states.states(tmp_path, runs)
    assert list(now.values()) == ["done"] + 6 * ["interrupted"]
    with pytest.raises(type(error)):  # alone, too
        here(
            tmp_path,
            [task for task in runs if named([task]) == [("lam_5", (1,))]],
            {(5.0, 1): error},
        )
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


def saving(total, ends=None):
    """A runner whose runs log a row a step and save each step that 2 divides.

    Like `prpr.trainer` it goes on from what is saved. At step `ends[0]`, before its row, it is
    ended by `ends[1]`.
    """
    at, error = ends or (None, None)

    def finetune(cfg, folder):
        names = ["control"] * cfg.control + [f"lam_{lam:g}" for lam in cfg.lams]
        runs = [(name, seed) for name in names for seed in cfg.seeds]
        with record.Record(folder, cfg) as rec:
            saved = {run: folder / f"checkpoints/{run[0]}-seed{run[1]}/step" for run in runs}
            step = {run: int(path.read_text()) for run, path in saved.items() if path.exists()}
            for run in runs:
                rec.rewind(step.get(run, 0), f"{run[0]}-seed{run[1]}")
            for now in range(min(step.get(run, 0) for run in runs) + 1, total + 1):
                if now == at and error is not None:
                    raise error
                for name, seed in runs:
                    rec.scalars(now, {"by": len(runs)}, f"{name}-seed{seed}")
                    if now % 2 == 0:
                        record.write_bytes(saved[name, seed], str(now).encode())
        fake()[0].finetune(cfg, folder)

    return worker.Runner(fake()[0].train_base, finetune)


def rows_of(folder, run="lam_5-seed1"):
    return [
        (row["step"], row["by"])
        for row in record.read_metrics(folder)
        if row["run"] == run and "by" in row
    ]


@pytest.mark.parametrize("killed", [False, True])
def test_metrics_are_whole_wherever_a_run_goes_on(tmp_path, killed):
    runs = expanded(grid(), root=tmp_path)
    (task,) = [task for task in runs if named([task]) == [("lam_5", (1,))]]
    own, shared = tmp_path / task.id, tasks.family_folder(tmp_path, task)
    with pytest.raises(KeyboardInterrupt):
        in_process.here(tmp_path, runs, saving(9, (4, KeyboardInterrupt())))
    assert rows_of(own) == [(1, 6), (2, 6), (3, 6)]
    if killed:  # nothing was handed out
        (own / "metrics.jsonl").unlink()
    # Alone, from the checkpoint at 2.
    with pytest.raises(KeyboardInterrupt):
        saving(9, (6, KeyboardInterrupt()))(task, own)
    alone = [(1, 6), (2, 6), (3, 1), (4, 1), (5, 1)]
    assert rows_of(own) == alone
    # Among the others again; all at the same step, to keep this short.
    for path in shared.glob("checkpoints/*/step"):
        path.write_text("4")
    with pytest.raises(Preempted):
        in_process.here(tmp_path, runs, saving(9, (7, Preempted("saved at step 6"))))
    again = [*alone[:4], (5, 6), (6, 6)]
    assert rows_of(own) == rows_of(shared) == again
    in_process.here(tmp_path, runs, saving(9))
    assert rows_of(own) == rows_of(shared) == [*again, (7, 6), (8, 6), (9, 6)]
    assert {row["run"] for row in record.read_metrics(own)} == {None, "lam_5-seed1"}
    assert states.state(tmp_path, task) == "done"


def test_the_rows_of_a_family_in_use_are_left_alone(tmp_path, capsys):
    runs = expanded({**grid((0.2,), (0,)), "base.path": "w"}, root=tmp_path)
    shared = tasks.family_folder(tmp_path, runs[0])
    with record.Record(shared) as rec:
        rec.scalars(1, {"loss": 1.0}, "other")
        before = (shared / "metrics.jsonl").stat().st_ino
        _, now = here(tmp_path, runs)
        assert (shared / "metrics.jsonl").stat().st_ino == before
    assert "is in use by process" in capsys.readouterr().err
    assert set(now.values()) == {"done"}  # one by one


def test_what_is_queued_is_left_alone(tmp_path, monkeypatch):
    runs = expanded({**grid((0.2, 5.0), (0,)), "control": False, "base.path": "w"}, root=tmp_path)
    here(tmp_path, runs[:1])
    # A job can end between two looks: its folder knows better than the queue.
    monkeypatch.setattr(states, "queued", lambda _: {task.id for task in runs})
    calls, now = here(tmp_path, runs)
    assert calls == []
    assert list(now.values()) == ["done", "queued"]


def test_a_process_does_what_is_missing_and_says_how_it_ended(tmp_path, monkeypatch):
    runs = expanded({**grid((0.2,), (0,)), "base.path": "w"}, root=tmp_path)
    runner, calls = fake({(0.2, 0): PrprError("no")})
    monkeypatch.setattr(worker, "Runner", lambda: runner)
    folders = [tasks.write_task(tmp_path, task) for task in runs]
    with record.Record(folders[0]):
        assert worker.work(folders[0]) == 0
    assert calls == []  # it was running
    assert [worker.work(folder) for folder in folders] == [0, 1]
    assert len(calls) == 2
    assert worker.work(folders[0]) == 0
    assert len(calls) == 2  # it was done
    assert list(states.states(tmp_path, runs).values()) == ["done", "failed"]


def test_notes_of_an_error_are_kept(tmp_path, capsys):
    error = PrprError("not finite")
    error.add_note("step 20 is not saved")

    def work():
        raise error

    assert not worker.attempt(tmp_path / "x", work)
    told = "not finite\nstep 20 is not saved\n"
    assert capsys.readouterr().err == f"x failed: {told}"
    assert (tmp_path / "x/error.txt").read_text().startswith(told)


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
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        local.local(tmp_path, runs, 1)
    assert time.monotonic() - start < 30  # they were told to end
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


def test_slurm_runs_wait_for_their_base_and_are_submitted_once(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program(bin_, "srun", "")
    submit = f"""n=$(cat {bin_}/n 2>/dev/null || echo 10); echo $((n + 1)) > {bin_}/n
        cp "$1" {bin_}/job-$n.sh; echo "Submitted batch job $n" """
    program(bin_, "sbatch", submit)
    program(bin_, "squeue", "printf '10\\n11_0\\n11_1\\n'")
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
    before = states.submissions(root)
    assert set(before.values()) == {"10", "11_0", "11_1"}
    # All of them are in the queue: nothing is submitted twice.
    assert slurm.slurm(root, expanded(grid((0.2,), (0,)), root=root)) == []
    # A run that is new waits for the base run that is in the queue.
    more = expanded(grid((0.2, 5.0), (0,)), root=root)
    assert [job.job_id for job in slurm.slurm(root, more)] == ["12"]
    assert "#SBATCH --dependency=afterany:10\n" in (bin_ / "job-12.sh").read_text()
    before = states.submissions(root)
    # A queue that cannot be read is not an empty one.
    program(bin_, "squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    with pytest.raises(PrprError, match=r"code 1 \(slurm_load_jobs error: Socket timed out\)"):
        slurm.slurm(root, expanded(grid((0.2,), (0,)), root=root))
    assert states.submissions(root) == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("partition", "--slurm=partition: must be NAME=VALUE"),
        ("=3", "--slurm==3: must be NAME=VALUE"),
        ("slurm_nonsense=3", "--slurm=slurm_nonsense=3: Unknown argument 'nonsense'"),
        ("timeout_min=soon", '--slurm=timeout_min=soon: Parameter "timeout_min" expected type'),
        ("x=--5", "--slurm=x=--5: Parameter 'x' need to be prefixed"),
    ],
)
def test_slurm_options_that_cannot_be_used_are_refused(tmp_path, monkeypatch, option, words):
    pytest.importorskip("submitit")
    program(tmp_path, "srun", "")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError) as caught:
        slurm.slurm(tmp_path / "r", expanded(grid(), root=tmp_path / "r"), options=[option])
    assert words in str(caught.value)


# ---- the command ------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path):
    """Runs scripts/sweep in tmp_path."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts/sweep"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def train_here(root, runs):
    with jax.numpy_dtype_promotion("standard"):  # as outside of tests: optax promotes
        in_process.here(root, runs)


def small(tmp_path):
    """A config file of a base run, its control and one λ that are trained in seconds."""
    file = tmp_path / "small.py"
    file.write_text(
        "import runpy\n"
        f"get_config = runpy.run_path({TOY!r})['get_config']\n"
        "def sweep():\n"
        "    yield {'lams': (5.0,), 'train.steps': 2, 'train.warmup': 1, 'base.steps': 2,\n"
        "           'base.critic_steps': 1, 'critic.steps': 1, 'train.diagnose_size': 64,\n"
        "           'score.n_real': 64, 'score.n_fake': 64}\n"
    )
    return f"--config={file}:smoke"


def test_the_command_shows_what_would_run(call, tmp_path):
    shown = call(small(tmp_path), "--root=r", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[-3] == "3 missing"
    assert [line.count("seed") for line in lines[-2:]] == [1, 2]  # a base, a product of two
    assert not (tmp_path / "r").exists()


def test_the_plan_is_the_sum_of_its_calls(tmp_path, monkeypatch, capsys):
    values = flags.FlagValues()
    holder = planner.define_flags(values)
    values(["x", "--plan", "--plan_device=2*l4", "--price=3", f"--plan_json={tmp_path}/plan.json"])
    points = [{**grid((0.2, 5.0), (0,)), "critic.lr": lr} for lr in (1e-3, 1e-4)]
    runs = expanded(*points, root=tmp_path / "r")
    with jax.numpy_dtype_promotion("standard"):  # as outside of tests: optax promotes
        plan.plan(tmp_path / "r", runs, holder)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("# ")] == [
        "# base at seed 0",
        "# control, lam_0.2, lam_5 at seed 0 critic.lr=0.001",
        "# lam_0.2, lam_5 at seed 0 critic.lr=0.0001",
    ]
    cards = record.read_json(tmp_path / "plan.json")
    assert [card["command"] for card in cards] == ["train", "finetune", "finetune"]
    assert out.count("on 2 x l4 (on paper)") == 3
    hours = sum(card["total_hours"]["middle"] for card in cards)
    assert f"sum on 2*l4, one call after the other (3): {hours:.4g} (" in out
    assert f"hours, money {hours * 2 * 3:.4g} (" in out
    assert not (tmp_path / "r").exists()
    # What is done is not planned, and nothing may be left.
    with jax.numpy_dtype_promotion("standard"):
        plan.plan(tmp_path / "r", runs[-1:], holder)
    assert len(record.read_json(tmp_path / "plan.json")) == 1
    plan.plan(tmp_path / "r", [], holder)
    assert "nothing is missing" in capsys.readouterr().out
    values(["x", "--plan", "--probe"])
    with pytest.raises(ConfigError, match="a probe times the devices at hand"):
        plan.plan(tmp_path / "r", runs, holder)


def test_the_command_plans(call, tmp_path):
    shown = call(small(tmp_path), "--root=r", "--plan", "--plan_device=l4", "--budget=9")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("  9 buys ") == 2
    assert shown.stdout.splitlines()[-2].startswith("sum on 1*l4, one call after the other (2): ")
    assert not (tmp_path / "r").exists()


def test_a_real_sweep_in_this_process(tmp_path):
    flag = small(tmp_path).removeprefix("--config=")
    runs = tasks.expand(cli._load(flag, "config"), tasks.points(flag), tmp_path / "r")
    train_here(tmp_path / "r", runs)
    assert set(states.states(tmp_path / "r", runs).values()) == {"done"}
    own = tmp_path / "r" / runs[2].id
    assert os.listdir(own / "checkpoints") == ["lam_5-seed0"]
    assert os.listdir(own / "checkpoints/lam_5-seed0")
    # Alone, a run finds its own checkpoint, and gives what it gave among others.
    before = states.scores(tmp_path / "r", runs[2])
    (own / "summary.json").unlink()
    train_here(tmp_path / "r", runs)
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
        (["--budget=5"], "--budget goes with --plan"),
        (["--plan", "--status"], "--plan, --status and --dry-run: choose one"),
        (["--config.lams=1"], "--config.lams is set on the command line and by sweep() too"),
    ],
)
def test_the_command_refuses_in_one_line(call, tmp_path, arguments, words):
    refused = call(f"--config={TOY}:smoke", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert words in refused.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_local_processes_give_what_one_process_gives(call, tmp_path):
    flag = small(tmp_path)
    path = flag.removeprefix("--config=")
    train_here(
        tmp_path / "a", tasks.expand(cli._load(path, "config"), tasks.points(path), tmp_path / "a")
    )
    done = call(flag, "--root=a")  # finds what is done
    assert done.returncode == 0, done.stderr
    assert "3 done" in done.stdout
    other = call(flag, "--root=b", "--where=local", "--jobs=1")
    assert other.returncode == 0, other.stdout + other.stderr
    tables = [(tmp_path / root / "summary.csv").read_text() for root in "ab"]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == 4
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    state = call(flag, "--root=b", "--status", "--json")
    rows = json.loads(state.stdout)
    assert [row["state"] for row in rows] == ["done"] * 3
    assert (tmp_path / "b" / rows[2]["id"] / "report.html").exists()


def losses(root):
    """All that was measured in training: (folder, run, step) -> numbers, without times."""
    found = {}
    for path in sorted(root.glob("*/task.json")):
        for row in record.read_metrics(path.parent):
            place = (path.parent.name, row["run"], row["step"])
            found.setdefault(place, {}).update({k: v for k, v in row.items() if k != "time"})
    assert {run for _, run, _ in found} == {"base-seed0", "control-seed0", "lam_5-seed0"}
    return found
