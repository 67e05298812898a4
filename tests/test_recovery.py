"""A run falls, goes back to a healthy checkpoint, and goes on or is given up."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recovery_tools import TOTAL, rows_of, settings

from prpr import build, checkpoint, config, data, health, jobs, record, recovery, run, train
from prpr.errors import CheckpointError, ConfigError, GivenUp, Preempted

RUNS = ("lam_0.5-seed0", "lam_2-seed0")


@pytest.fixture(autouse=True)
def _usual_jax():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def cfg(small_base):
    cfg = settings(0.5, 2.0)
    cfg.base.path = str(small_base)
    return cfg


@pytest.fixture
def nan_at(monkeypatch):
    """Has the critic of one λ turn to NaN at a step, in the first attempts or in all of them."""
    plain = train.critic_update

    def arrange(step, lam, *, always=False):
        def update(system, state, batch):
            moved, scalars = plain(system, state, batch)
            hit = (state.step == step) & (state.dials["lam"] == lam)
            if state.rate is not None and not always:
                hit = jnp.bool(False)
            poison = jnp.where(hit, jnp.nan, 0.0)
            critic = jax.tree.map(lambda leaf: leaf + poison, moved.critic)
            scalars["finite"] = jnp.where(hit, 0.0, scalars["finite"])
            return moved.replace(critic=critic), scalars

        monkeypatch.setattr(train, "critic_update", update)

    return arrange


def final(workdir, name):
    (path,) = (workdir / "samples").glob(f"{name}.npz")
    return np.load(path)["points"]


def test_a_run_that_falls_goes_on_from_its_last_checkpoint_and_the_others_do_not_notice(
    cfg, tmp_path, nan_at, capsys
):
    cfg.train.together = 2  # the two side by side, in one program
    run.finetune(cfg, tmp_path / "whole")
    nan_at(4, 2.0)
    found = run.finetune(cfg, tmp_path / "hurt")
    assert {row["name"] for row in found["rows"]} >= {"lam_0.5", "lam_2"}
    assert (final(tmp_path / "hurt", RUNS[0]) == final(tmp_path / "whole", RUNS[0])).all()
    hurt, whole = final(tmp_path / "hurt", RUNS[1]), final(tmp_path / "whole", RUNS[1])
    assert np.isfinite(hurt).all()
    assert (hurt != whole).any()
    said = capsys.readouterr().out
    assert "lam_2-seed0, step 5: fatal: not_finite" in said
    assert "lam_2-seed0: back to step 3 after not_finite at step 5" in said
    rows = rows_of(tmp_path / "hurt", RUNS[1])
    (told,) = (row for row in rows if "rollback" in row)
    wanted = {"step": 3, "rollback": 1, "because": "not_finite", "at": 5, "rate": 0.3}
    assert {name: told[name] for name in wanted} == wanted
    # The record is one of a run that never fell: each step once, in order, all finite.
    steps = [row["step"] for row in rows if "critic_loss" in row]
    assert steps == list(range(1, TOTAL + 1))
    assert all(row["finite"] for row in rows if "finite" in row)
    assert not [row for row in rows if "alarm" in row and row["severity"] == "fatal"]
    folder = tmp_path / "hurt" / "checkpoints" / RUNS[1]
    (fall,) = recovery.read(folder)
    assert (fall.cause.check, fall.cause.step, fall.to, fall.rate) == ("not_finite", 5, 3, 0.3)
    meta = checkpoint.read_meta(folder)
    assert (meta["falls"], meta["rate"]) == (1, 0.3)
    assert not recovery.read(tmp_path / "hurt" / "checkpoints" / RUNS[0])


def test_after_a_fall_both_networks_move_at_the_lower_rate_on_other_data(cfg, tmp_path, nan_at):
    """With SGD's direction and no momentum: the update is the same times the rate."""
    cfg.lams, cfg.recovery.rate = (2.0,), 0.25
    nan_at(4, 2.0)
    run.finetune(cfg, tmp_path)
    folder = tmp_path / "checkpoints" / RUNS[1]
    falls, meta = recovery.read(folder), checkpoint.read_meta(folder)
    assert [fall.rate for fall in falls] == [0.25]
    assert meta["rate"] == 0.25
    state = train.TrainState(
        **{name: jnp.zeros(()) for name in train.TrainState.__dataclass_fields__ if name != "key"},
        key=jax.random.key(0),
    ).replace(rate=None)
    again = recovery.resumed(state, {}, falls)
    assert float(again.rate) == 0.25
    assert (jax.random.key_data(again.key) != jax.random.key_data(state.key)).any()
    later = recovery.resumed(state, meta, falls)  # from a checkpoint of that attempt
    assert float(later.rate) == 0.25
    assert (jax.random.key_data(later.key) == jax.random.key_data(state.key)).all()
    assert recovery.resumed(state, {}, ()).rate is None


def test_a_run_that_always_falls_is_given_up_and_everything_else_is_finished(
    cfg, tmp_path, nan_at, capsys
):
    cfg.recovery.attempts, cfg.train.keep_best = 2, 1
    nan_at(4, 2.0, always=True)
    with pytest.raises(GivenUp, match=r"lam_2-seed0 \(not_finite at step 5\)") as caught:
        run.finetune(cfg, tmp_path)
    assert caught.value.exit_code == 3
    said = capsys.readouterr().out
    assert (
        "lam_2-seed0 was given up after it fell 3 times; its last healthy checkpoint, step 3"
        in (said)
    )
    assert "back to step 3 with rates x 0.3" in said
    assert "back to step 3 with rates x 0.09" in said
    assert "What to try: lower config.generator.lr" in said
    names = {row["name"] for row in json.loads((tmp_path / "summary.json").read_text())["rows"]}
    assert names == {"real", "base", "lam_0.5"}
    assert (tmp_path / "report.html").exists()
    rows = rows_of(tmp_path, RUNS[1])
    assert [row["rollback"] for row in rows if "rollback" in row] == [1, 2]
    assert [row["given_up"] for row in rows if "given_up" in row] == ["not_finite"]
    folder = tmp_path / "checkpoints" / RUNS[1]
    assert checkpoint.latest(folder) == 3
    # The same command says so at once, without a step, and record and page keep it.
    with pytest.raises(GivenUp):
        run.finetune(cfg, tmp_path)
    assert "was given up after it fell 3 times" in capsys.readouterr().out
    assert rows_of(tmp_path, RUNS[1]) == rows
    assert "was given up after not_finite at step 5" in (tmp_path / "report.html").read_text()
    # One attempt more, without the fault: it goes on from there.
    cfg.recovery.attempts = 3
    nan_at(-1, 2.0)
    run.finetune(cfg, tmp_path)
    assert checkpoint.latest(folder) == TOTAL
    assert checkpoint.read_meta(folder)["falls"] == 3
    told = [row for row in rows_of(tmp_path, RUNS[1]) if {"rollback", "given_up"} & set(row)]
    assert [(row["step"], row["rollback"]) for row in told] == [(3, 1), (3, 2), (3, 3)]


def test_what_a_fall_led_to_is_recorded_once(tmp_path):
    """A kill can come between the fall and its line: the next command writes what is missing."""
    alarm = health.Alarm("critic_died", "fatal", 9, {"critic_spread": 0.0}, "f", "m", "a")
    fall = recovery.Fall((alarm,), 3, 0.3)
    with record.Record(tmp_path) as rec:
        for _ in range(2):
            recovery.say_once(rec, "a", 1, fall)
            recovery.say_once(rec, "a", 2, fall, given_up=True)
        recovery.say_once(rec, "b", 1, fall)
    told = [(row["run"], row["step"]) for row in record.read_metrics(tmp_path)]
    assert told == [("a", 3), ("a", 9), ("b", 3)]
    assert recovery.but((fall, fall), ("critic_died",)) == ()
    assert recovery.but((fall,), ("collapsed",)) == (fall,)
    # Only what somebody may want is offered to be ignored.
    finite = alarm._replace(check="not_finite")
    assert "config.recovery.ignore" in str(recovery.error({"a": (fall,)}))
    assert "ignore" not in str(recovery.error({"a": (fall._replace(alarms=(finite,)),)}))


def test_a_fall_is_not_forgotten_by_a_stop(cfg, tmp_path, nan_at, monkeypatch):
    """Stopped after a fall, before the next checkpoint: the attempt goes on as it would have."""
    cfg.lams = (2.0,)
    nan_at(4, 2.0)
    run.finetune(cfg, tmp_path / "whole")
    calls = iter(range(10**6))
    with monkeypatch.context() as patch:
        # Five steps, the fall, and one step of the next attempt.
        def stop(self):
            self._requested |= next(calls) == 5
            return self._requested

        patch.setattr("prpr.preempt.Preemption.should_stop", stop)
        patch.setattr(checkpoint.Saver, "save", _only_at(3))
        with pytest.raises(Preempted):
            run.finetune(cfg, tmp_path / "cut")
    folder = tmp_path / "cut" / "checkpoints" / RUNS[1]
    assert checkpoint.latest(folder) == 3
    assert checkpoint.read_meta(folder)["falls"] == 0
    assert len(recovery.read(folder)) == 1
    run.finetune(cfg, tmp_path / "cut")
    assert (final(tmp_path / "cut", RUNS[1]) == final(tmp_path / "whole", RUNS[1])).all()
    outcome = [
        [{k: v for k, v in row.items() if k != "time"} for row in rows_of(tmp_path / name, RUNS[1])]
        for name in ("whole", "cut")
    ]
    assert outcome[0] == outcome[1]


def _only_at(step):
    plain = checkpoint.Saver.save

    def save(self, now, *rest):
        if now == step:
            plain(self, now, *rest)

    return save


def test_what_a_fatal_check_suspects_is_not_saved(cfg, tmp_path, monkeypatch):
    """A check within its patience: no checkpoint until a record without it, but at the end."""
    cfg.lams = (2.0,)
    cfg.train.checkpoint_every = cfg.train.diagnose_every = 2
    row = health.Check("odd", "fatal", 2, ((health.Limit("lag", "above", 0.0),),), "m", "a", "r")
    monkeypatch.setattr(health, "CHECKS", (row,))
    plain, lags = run.Trainer.check_ratio, iter((0.0, 0.0, 1.0, 0.0, 1.0))
    monkeypatch.setattr(
        run.Trainer,
        "check_ratio",
        lambda *args: [
            {**values, "lag": lag} for values, lag in zip(plain(*args), lags, strict=False)
        ],
    )
    saved = []
    monkeypatch.setattr(checkpoint.Saver, "save", lambda _, now, *__: saved.append(now))
    monkeypatch.setattr(run.Trainer, "best", lambda *_: None)
    run.finetune(cfg, tmp_path)
    # Checks at 0, 2, 4 (suspect), 6, 8 (suspect, and the end).
    assert saved == [2, 6, TOTAL]


def test_a_checkpoint_is_checked_and_scored_as_it_is(cfg, tmp_path, monkeypatch):
    """Also where no held-out check is due: what it is saved with is of its own step."""
    cfg.lams, cfg.train.keep_best = (2.0,), 1
    cfg.train.checkpoint_every, cfg.train.diagnose_every = 3, 4
    row = health.Check("odd", "fatal", 2, ((health.Limit("lag", "above", 0.0),),), "m", "a", "r")
    monkeypatch.setattr(health, "CHECKS", (row,))
    plain, steps = run.Trainer.check_ratio, []

    def check(self, placed, jobs):
        steps.append(int(np.max(jax.device_get(placed.step))))
        return [{**one, "lag": float(steps[-1] == 3)} for one in plain(self, placed, jobs)]

    monkeypatch.setattr(run.Trainer, "check_ratio", check)
    monkeypatch.setattr(run.Trainer, "_score", lambda *_: float(steps[-1]))
    saved = []
    monkeypatch.setattr(
        checkpoint.Saver, "save", lambda _, now, *rest: saved.append((now, rest[-1]))
    )
    monkeypatch.setattr(run.Trainer, "best", lambda *_: None)
    run.finetune(cfg, tmp_path)
    assert steps[-5:] == [0, 3, 4, 6, TOTAL]
    assert saved[-2:] == [(6, 6.0), (TOTAL, float(TOTAL))]
    assert 3 not in [now for now, _ in saved[-3:]]


def test_a_rare_class_has_the_ratio_of_its_own(cfg):
    """`build.system` takes the classes' shares from the training labels, where λ reads a ratio."""
    labels = np.repeat([0, 1, 3], [75, 24, 1])  # and none of class 2
    rare = data.Dataset(np.zeros((100, 2), np.float32), labels, 4, "made")
    cfg.objective, cfg.critic.loss = "envelope", "logistic"
    shares = np.exp(build.system(cfg, rare).log_prior)
    np.testing.assert_allclose(shares, 4 * np.array([75, 24, 0.5, 1]) / 100.5)
    even = cfg.copy_and_resolve_references()
    even.train.balance = True  # what the critic sees
    np.testing.assert_allclose(np.exp(build.system(even, rare).log_prior)[[0, 1, 3]], 4 / 3.5)
    assert build.system(even, rare._replace(labels=np.arange(100) % 4)).log_prior == ()
    one = rare._replace(labels=np.zeros(100, int), num_classes=1)
    assert build.system(cfg, one).log_prior == ()
    for knob, value in (("conditional_ratio", False), ("objective", "logistic")):
        other = cfg.copy_and_resolve_references()
        other[knob] = value
        assert build.system(other, rare).log_prior == ()
    # It tells runs apart, but not those that it changes nothing of; older ones had none.
    kept = jobs.settings(cfg)
    assert kept["conditional_ratio"] is True
    older = {k: v for k, v in kept.items() if k != "conditional_ratio"}
    assert jobs.different(older, kept) == ["conditional_ratio"]
    cfg.objective = "hinge"
    assert "conditional_ratio" not in jobs.settings(cfg)


def test_from_scratch_nothing_is_held_against_its_start():
    tuned, scratch = (recovery.checks((), fine_tuned=tuned) for tuned in (True, False))
    assert tuned == health.CHECKS
    fatal = {check.name for check in scratch if check.severity == "fatal"}
    assert fatal == {"exploding", "not_finite", "critic_died"}
    (died,) = (c for c in scratch if (c.name, c.severity) == ("critic_died", "fatal"))
    assert died.scalars == ("critic_spread",)  # by itself, without a start
    watch = health.Watch(scratch)
    watch.see(1, {"duplicates": 0.0, "critic_norm": 1.0})
    rang = [a for s in (2, 3, 4) for a in watch.see(s, {"duplicates": 0.9, "critic_norm": 99.0})]
    assert {(a.check, a.severity) for a in rang} == {
        ("collapsed", "warning"),
        ("exploding", "warning"),
    }
    assert watch.healthy
    assert watch.see(5, {"finite": 0.0})[0].severity == "fatal"
    assert not watch.healthy


def test_an_alarm_that_is_ignored_is_only_told(cfg):
    checks = recovery.checks(("collapsed",), fine_tuned=True)
    watch = health.Watch(checks)
    watch.see(1, {"duplicates": 0.0})
    (alarm,) = (a for s in (2, 3) for a in watch.see(s, {"duplicates": 0.9}))
    assert (alarm.check, alarm.severity) == ("collapsed", "warning")
    assert watch.healthy
    cfg.recovery.ignore = ("not_finite",)
    with pytest.raises(ConfigError, match=r"config\.recovery\.ignore.*'not_finite'"):
        config.validate(cfg)
    cfg.recovery.ignore, cfg.recovery.rate = (), 0.0
    with pytest.raises(ConfigError, match=r"config\.recovery\.rate = 0"):
        config.validate(cfg)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"settings": {}}', '{"settings": {}, "falls": [1]}'),
        '{"settings": {}, "falls": [{"alarms": [], "to": 1, "rate": 1}]}',
    ],
)
def test_a_damaged_memory_of_falls_names_the_file(tmp_path, text):
    (tmp_path / "recovery.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"recovery\.json is damaged.*delete it"):
        recovery.read(tmp_path)


def test_what_is_remembered_of_a_fall_survives_json(tmp_path):
    alarm = health.Alarm("exploding", "fatal", 7, {"critic_norm": float("inf")}, "f", "m", "a")
    warned = alarm._replace(check="blind", severity="warning")
    falls = (recovery.Fall((warned, alarm), 4, 0.5),)
    recovery.write(tmp_path, falls, {"generator.lr": 1e-3})
    assert recovery.read(tmp_path) == falls
    assert recovery.read(tmp_path, {"generator.lr": 1e-3}) == falls
    assert recovery.read(tmp_path, {"generator.lr": 1e-4}) == ()  # another run's
    assert recovery.read(tmp_path)[0].cause == alarm
