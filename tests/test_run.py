"""A command's run in this process: SIGTERM at its worst moments, and which checkpoint is scored."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr import build, checkpoint, config, health, preempt, record, run
from prpr import trainer as trainer_module
from prpr.errors import ConfigError, Preempted, WorkdirError
from prpr.evaluate import open_input
from prpr.jobs import Job
from prpr.metrics.prdc import prdc

TOTAL = 6  # steps of a run


@pytest.fixture(autouse=True)
def _usual_jax():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def cfg():
    """Points in the plane, two seeds one after the other."""
    cfg = config.defaults()
    cfg.lams, cfg.seeds, cfg.data.name, cfg.model.name = (), (0, 1), "ring8", "mlp"
    cfg.model.generator_ch = cfg.model.critic_ch = 4
    cfg.model.dim_z, cfg.objective, cfg.critic.loss = 2, "hinge", "hinge"
    cfg.train.batch, cfg.train.steps, cfg.train.devices = 16, TOTAL, 1
    cfg.train.log_every = cfg.train.diagnose_every = 2
    cfg.train.checkpoint_every, cfg.train.diagnose_size, cfg.score.encoder = 4, 64, "pixels"
    cfg.score.n_real = cfg.score.n_fake = 100
    return cfg


@pytest.fixture
def stop_at(monkeypatch):
    """Has SIGTERM arrive before the n-th time that a run asks for it."""

    def arrange(call):
        calls = iter(range(1, 10**6))

        def should_stop(self):
            self._requested |= next(calls) == call
            return self._requested

        monkeypatch.setattr(preempt.Preemption, "should_stop", should_stop)

    return arrange


def latest(workdir, seed):
    return checkpoint.latest(workdir / "checkpoints" / f"base-seed{seed}")


@pytest.mark.parametrize(
    ("call", "steps", "done"),
    [
        (3, (3, None), "saved at step 3"),
        (TOTAL, (TOTAL, None), f"saved at step {TOTAL}"),  # the last step of the first run
        (2 * TOTAL, (TOTAL, TOTAL), f"saved at step {TOTAL}"),  # the last step of all
        (2 * TOTAL + 2, (TOTAL, TOTAL), "every run is trained"),  # between two rows
    ],
)
def test_sigterm_at_any_moment_ends_the_command_saved(cfg, tmp_path, stop_at, call, steps, done):
    stop_at(call)
    with pytest.raises(Preempted, match=done):
        run.train_base(cfg, tmp_path)
    assert (latest(tmp_path, 0), latest(tmp_path, 1)) == steps
    assert not (tmp_path / "summary.json").exists()
    stop_at(0)
    run.train_base(cfg, tmp_path)
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["real", "base", "base"]


def test_the_best_checkpoint_is_scored_where_asked_for(cfg, tmp_path, monkeypatch):
    cfg.seeds, cfg.train.checkpoint_every, cfg.train.keep = (0,), 2, 1
    cfg.score.checkpoint = "best"
    with pytest.raises(ConfigError, match=r"score\.checkpoint = 'best'.*train\.keep_best = 1"):
        run.train_base(cfg, tmp_path)
    cfg.train.keep_best = 1
    given = iter([0.3, 0.7, 0.5])
    monkeypatch.setattr(run.Trainer, "_score", lambda *_: next(given))
    found = run.train_base(cfg, tmp_path)
    folder = tmp_path / "checkpoints" / "base-seed0"
    assert sorted(path.name for path in folder.glob("step_*")) == ["step_00000004", "step_00000006"]
    assert checkpoint.best(folder) == 4
    samples = np.load(tmp_path / "samples" / "base-seed0.npz")["points"]
    cfg.score.checkpoint = "last"
    last = run.train_base(cfg, tmp_path)
    assert (np.load(tmp_path / "samples" / "base-seed0.npz")["points"] != samples).any()
    assert last["rows"][0] == found["rows"][0]


HEALTH = (
    *("heldout_saturation", "moved_share", "duplicates", "precision_proxy", "recall_proxy"),
    *("generator_norm", "critic_norm"),
)


def test_a_run_records_its_health_and_what_its_watch_remembers_is_saved(cfg, tmp_path, stop_at):
    cfg.seeds, cfg.lams = (0,), (5.0,)
    cfg.objective, cfg.critic.loss = "envelope", "logistic"
    folder = "checkpoints", "lam_5-seed0"

    def outcome(name):
        rows = record.read_metrics(tmp_path / name)
        watch = checkpoint.read_meta(tmp_path.joinpath(name, *folder))["watch"]
        return [{k: v for k, v in row.items() if k != "time"} for row in rows], watch

    run.train_base(cfg, tmp_path / "whole")
    rows, watch = outcome("whole")
    checks = [row for row in rows if "heldout_auc" in row]
    assert [row["step"] for row in checks] == [2, 4, 6]
    for row in checks:
        assert set(HEALTH) <= set(row)
        assert min(row[name] for name in HEALTH) >= 0
        assert max(row[name] for name in HEALTH[:5]) <= 1
    assert watch["starts"]["recall_proxy"] == pytest.approx(checks[0]["recall_proxy"])
    # Points in the plane are their own features: the proxies are those of the metrics' own code.
    x, y = (np.random.default_rng(i).normal(size=(100, 2)).astype(np.float32) for i in range(2))
    found = {
        "data": np.zeros(100),
        "samples": np.zeros(100),
        "data_seen": x,
        "samples_seen": y,
        "samples_prior": np.zeros(100),
        "generator_norm": np.ones(1),
        "critic_norm": np.ones(1),
    }
    well = trainer_module._health(
        {k: jnp.asarray(v, jnp.float32) for k, v in found.items()}, 1.0, 1.0
    )
    exact = prdc(x, y, 3, 5)
    assert float(well["precision_proxy"]) == pytest.approx(exact.precision)
    assert float(well["recall_proxy"]) == pytest.approx(exact.recall)
    assert float(well["moved_share"]) == 1
    # Stopped between a check and a save, and gone on: the same records, the same memory.
    stop_at(3)
    with pytest.raises(Preempted):
        run.train_base(cfg, tmp_path / "stopped")
    stop_at(0)
    run.train_base(cfg, tmp_path / "stopped")
    assert outcome("stopped") == (rows, watch)


def test_an_alarm_is_said_and_recorded_but_not_of_a_ratio_that_means_nothing(cfg, tmp_path, capsys):
    job = Job("lam_5", 5.0, 0)
    bad = {"duplicates": 1.0, "heldout_auc": 0.5, "heldout_loss": 0.6931, "moved_share": 0.0}
    for loss, objective, rung in (
        ("logistic", "envelope", {"collapsed", "blind", "nothing_moves"}),
        ("hinge", "hinge", {"collapsed"}),
    ):
        own = cfg.copy_and_resolve_references()
        own.critic.loss, own.objective = loss, objective
        watch = health.Watch()
        watch.see(0, {"duplicates": 0.0})
        with preempt.Preemption() as stop, record.Record(tmp_path / loss, own) as rec:
            made = run.Trainer(own, build.splits(own), tmp_path / loss, 1, stop)
            for step in range(1, 9):
                made._watch(rec, watch, job, step, bad)
        told = record.read_metrics(tmp_path / loss)
        assert {row["alarm"] for row in told} == rung
        assert len(told) == len(rung)  # each once
        said = capsys.readouterr()
        assert (said.out + said.err).count("lam_5-seed0, step") == len(rung)
        assert "fatal: collapsed" in said.out + said.err


def scalars(**values):
    good = {"heldout_calibration_error": 0.01, "heldout_loss": 0.4, "heldout_alpha": 0.8}
    return {name: np.float32(value) for name, value in {**good, **values}.items()}


def test_runs_that_share_a_device_give_the_numbers_that_each_gives_alone(cfg, tmp_path):
    """Bit for bit, samples and held-out checks included; and a sweep of both kinds resumes."""
    cfg.lams, cfg.seeds = (0.2, 1.0, 5.0), (0,)
    cfg.objective, cfg.critic.loss = "envelope", "logistic"

    def outcome(folder, lams, together):
        cfg.lams, cfg.train.together = lams, together
        run.train_base(cfg, folder)
        found = {}
        for path in sorted((folder / "samples").glob("lam*.npz")):
            found[path.name] = np.load(path)["points"]
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return found, [{k: v for k, v in row.items() if k != "time"} for row in rows]

    shared, logged = outcome(tmp_path / "shared", (0.2, 1.0, 5.0), 2)  # a place stays empty
    assert len(shared) == 3
    for lam in (0.2, 1.0, 5.0):
        alone, own = outcome(tmp_path / f"alone-{lam}", (lam,), 1)
        ((name, points),) = alone.items()
        np.testing.assert_array_equal(points, shared[name])
        key = own[0]["run"]
        assert [row for row in logged if row["run"] == key] == own
    # How runs share devices is no part of what a run is: the same workdir goes on.
    again, _ = outcome(tmp_path / "shared", (0.2, 1.0, 5.0), 3)
    for name, points in shared.items():
        np.testing.assert_array_equal(again[name], points)


def test_one_model_is_scored_at_its_lams_and_drawn_at_any(cfg, tmp_path):
    cfg.lams, cfg.seeds, cfg.dial = (0.2, 5.0), (0,), (0.2, 5.0)
    cfg.objective, cfg.critic.loss, cfg.base.steps = "envelope", "logistic", 2
    cfg.base.loss = "logistic"
    summary = run.finetune(cfg, tmp_path)
    rows = {row["name"]: row["lam"] for row in summary["rows"]}
    assert rows == {"real": None, "base": None, "control": None, "lam_0.2": 0.2, "lam_5": 5.0}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "control-seed0",
        "dial-seed0",
    }
    (tmp_path / "samples" / "lam_5-seed0.npz").unlink()
    drawn = [open_input(f"{tmp_path}?lam={lam}&seed=0", "fake", 50).needed for lam in (1.3, 5.0)]
    assert np.abs(drawn[0].features - drawn[1].features).max() > 0
    with pytest.raises(ConfigError, match="λ = 7 is outside of what its model was trained for"):
        open_input(f"{tmp_path}?lam=7", "fake", 50)
    with pytest.raises(ConfigError, match=r"stand, as in \?lam=5"):
        open_input(f"{tmp_path}?run=dial", "fake", 50)
    # Another λ within the range is scored without training.
    before = checkpoint.latest(tmp_path / "checkpoints" / "dial-seed0")
    cfg.lams = (0.2, 1.0, 5.0)
    names = [row["name"] for row in run.finetune(cfg, tmp_path)["rows"]]
    assert "lam_1" in names
    assert checkpoint.latest(tmp_path / "checkpoints" / "dial-seed0") == before
    cfg.dial = (0.1, 5.0)
    with pytest.raises(WorkdirError, match="dial"):
        run.finetune(cfg, tmp_path)


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ({}, 0.8),
        ({"heldout_calibration_error": 0.2}, None),
        ({"heldout_loss": np.log(2)}, None),  # a critic that knows nothing
        ({"heldout_loss": np.nan, "heldout_calibration_error": np.nan}, None),
    ],
)
def test_no_checkpoint_is_the_best_by_a_critic_that_cannot_be_believed(cfg, values, score):
    trainer = object.__new__(run.Trainer)
    trainer.cfg = cfg
    trainer.system = SimpleNamespace(route="samples", has_ratio=True)
    assert trainer._score(scalars(**values)) == pytest.approx(score)


def test_no_window_is_watched_where_there_is_none(cfg):
    """Only an envelope or band moves samples near r = 1/λ, at a λ of the run's own."""
    trainer = object.__new__(run.Trainer)
    trainer.cfg, trainer.system = cfg, SimpleNamespace(dial=None)
    lam, control = Job("lam_5", 5.0, 0), Job("control", None, 0)
    for objective, has in (("envelope", True), ("band", True), ("kl", False), ("hinge", False)):
        cfg.objective = objective
        assert trainer._has_window(lam) is has
        assert not trainer._has_window(control)
    cfg.objective, trainer.system = "envelope", SimpleNamespace(dial=(0.2, 5.0))
    assert not trainer._has_window(lam)


@pytest.mark.parametrize(("route", "score"), [("likelihood", -3.5), ("implicit", None)])
def test_without_a_critic_the_best_checkpoint_is_the_likeliest(cfg, route, score):
    trainer = object.__new__(run.Trainer)
    trainer.cfg = cfg
    trainer.system = SimpleNamespace(route=route, has_ratio=False)
    assert trainer._score({"heldout_log_likelihood": np.float32(-3.5)}) == score
