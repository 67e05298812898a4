"""Before a fine-tune: the critic's fit, the frontier, options and advice, guesses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import special, stats

from configs import toy_2d
from prpr import build, checkpoint, config, predict, record, run, train
from prpr.choosing.points import Reading
from prpr.choosing.wishes import Target
from prpr.errors import CheckpointError, ConfigError, DataError, WorkdirError
from prpr.evaluate import evaluate, runs
from prpr.metrics import Options, curves
from prpr.predict import experience, fit, options
from prpr.predict.experience import Finished, Guess
from prpr.predict.options import Option
from prpr.samplers import parse

ROOT = Path(__file__).parents[1]


def summary(path, rows, **head):
    """A finished run's summary with these (name, λ, seed, precision, recall)."""
    path.mkdir(parents=True, exist_ok=True)

    def metric(value):
        return {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05)}

    held = [
        {"name": n, "lam": lam, "seed": s, "metrics": {"precision": metric(p), "recall": metric(r)}}
        for n, lam, s, p, r in rows
    ]
    head = {"n_fake": 500, "encoder": "pixels"} | head
    record.write_json(path / "summary.json", {"rows": held, **head})
    return path


# ---- experience -------------------------------------------------------------------------


def test_experience_is_the_mean_shift_of_logits(tmp_path):
    found = experience.of_workdir(
        summary(
            tmp_path / "run",
            [
                ("real", None, None, 0.9, 0.9),
                ("base", None, 0, 0.5, 0.5),
                ("base", None, 1, 0.6, 0.4),
                ("lam_1", 1.0, 0, 0.7, 0.4),
                ("lam_1", 1.0, 1, 0.8, 0.2),
                ("lam_20", 20.0, 0, 0.9, 1.0),
                ("lam_20", 20.0, 1, 0.9, 0.1),
            ],
        ),
        "mine",
    )
    logit = special.logit
    assert found.shifts[1.0] == pytest.approx(
        (
            np.mean([logit(0.7) - logit(0.5), logit(0.8) - logit(0.6)]),
            np.mean([logit(0.4) - logit(0.5), logit(0.2) - logit(0.4)]),
        )
    )
    assert np.isfinite(found.shifts[20.0]).all()  # a recall of 1 has no logit of its own
    half_way = found.at(np.sqrt(20.0))
    assert half_way == pytest.approx(np.mean([found.shifts[1.0], found.shifts[20.0]], axis=0))
    assert found.at(0.9) is None
    assert found.at(20.1) is None


@pytest.mark.parametrize(
    "rows",
    [
        [("base", None, 0, 0.5, 0.5)],
        [("lam_1", 1.0, 0, 0.5, 0.5)],
        [("base", None, 0, 0.5, 0.5), ("lam_1", 1.0, 1, 0.5, 0.5)],
    ],
)
def test_experience_needs_a_base_and_lams_of_its_seeds(tmp_path, rows):
    with pytest.raises(DataError, match="experience is a base and λ of the same seeds"):
        experience.of_workdir(summary(tmp_path / "run", rows), "mine")


def test_a_guess_holds_one_more_run():
    """Shifts of runs from one normal law: the interval of 8 holds a ninth in 95 % of cases."""
    rng, held = np.random.default_rng(0), []
    for _ in range(2000):
        shifts = rng.normal((0.5, -1), (0.7, 0.3), (9, 2))
        finished = [Finished(str(i), {1.0: tuple(one)}) for i, one in enumerate(shifts[:8])]
        found = experience.guess(finished, 1.0, 0.95)
        assert found is not None
        held.append([abs(g.shift - new) <= g.half for g, new in zip(found, shifts[8], strict=True)])
    np.testing.assert_allclose(np.mean(held, axis=0), 0.95, atol=0.02)


def test_a_guess_of_one_run_is_no_promise():
    found = experience.guess([Finished("a", {1.0: (0.5, -0.5)})], 1.0, 0.95)
    assert found is not None
    value, low, high = found[0].of(0.8)
    assert value == pytest.approx(special.expit(special.logit(0.8) + 0.5))
    assert low < 0.001
    assert high > 0.999
    assert experience.guess([], 1.0, 0.95) is None


def test_what_is_measured_covers_the_defaults():
    assert len({one.name for one in experience.MEASURED}) == len(experience.MEASURED) >= 5
    for lam in predict.LAMS:
        found = experience.guess(experience.MEASURED, lam, 0.95)
        assert found is not None
        assert found[0].runs >= 4


# ---- options and advice -----------------------------------------------------------------


def option(action, p, r, half=0.02, lam=None, sampler=None, calls=1.0, measured=True):
    precision, recall = (Reading(v, max(0, v - half), min(1, v + half)) for v in (p, r))
    return Option(action, lam, sampler, (precision,), (recall,), calls, measured)


LEAVE = option("leave", 0.80, 0.50)
REJECT = option("reject", 0.92, 0.40, sampler="reject:budget=4", calls=4)
TUNE = option("fine-tune", 0.90, 0.60, lam=5.0, measured=False)
WIDE = option("fine-tune", 0.90, 0.60, half=0.5, lam=5.0, measured=False)


@pytest.mark.parametrize(
    ("wish", "costs", "tuned", "name", "verdict"),
    [
        ("precision >= .7", (1, 4, 100), TUNE, "fine-tune at λ = 5", "likely"),
        ("precision >= .7", (1, 4, 100), WIDE, "leave", "promised"),
        ("precision >= .88", (1, 4, 100), WIDE, "reject:budget=4", "promised"),
        ("recall >= .55", (1, 4, 100), TUNE, "fine-tune at λ = 5", "likely"),
        ("max f_0.5", (1, 4, 100), TUNE, "fine-tune at λ = 5", "likely"),
        ("precision >= .99", (1, 4, 100), TUNE, "reject:budget=4", "unlikely"),
        ("cost: bad=5 missing=1", (1, 4, 100), WIDE, "reject:budget=4", "likely"),
    ],
)
def test_more_is_paid_only_for_what_is_surely_better(wish, costs, tuned, name, verdict):
    found = options.advise([LEAVE, REJECT, tuned], costs, wish, 0.95)
    assert (found.option.name, found.verdict) == (name, verdict)
    assert (found.probability is None) == ("max" in wish or "cost" in wish)


def test_a_wish_that_is_met_and_has_no_aim_costs_nothing_more():
    found = options.advise([LEAVE, TUNE], (1, 100), "precision >= .7 and recall >= .4", 0.95)
    assert found.option is LEAVE


def test_equal_options_are_chosen_by_cost():
    again = REJECT._replace(sampler="reject:budget=8", calls=8)
    for costs, name in (((4, 8), "reject:budget=4"), ((8, 4), "reject:budget=8")):
        assert options.advise([REJECT, again], costs, "precision >= .88", 0.95).option.name == name


def test_a_guess_is_never_promised_and_what_is_promised_is_named():
    found = options.advise([LEAVE, TUNE], (1, 100), "precision >= .7", 0.95)
    assert found.verdict == "likely"
    assert found.sure is LEAVE
    assert found.beats["leave"] > 0.95


@pytest.mark.parametrize("wish", ["fid <= 12", "worst recall >= .3", "precision[7] >= .5"])
def test_wishes_of_other_metrics_are_refused(wish):
    with pytest.raises(ConfigError, match="can be predicted"):
        options.check_wish(wish)


def test_rejection_after_training_moves_as_it_moved_the_base():
    shifts = Guess(0.3, 0.1, 5), Guess(0.6, 0.2, 5)
    tuned = options.guessed(LEAVE, 0.2, shifts, 0.95)
    both = options.rejected(tuned, LEAVE, REJECT, shifts)
    wide, narrow = both.precision[0], tuned.precision[0]
    assert special.logit(wide.high) - special.logit(wide.low) > 2 * 0.1
    assert narrow.high > narrow.low
    logit = special.logit
    moved = logit(0.92) - logit(0.80)
    assert both.point(Target("precision")).value == pytest.approx(
        special.expit(logit(0.80) + 0.3 + moved)
    )
    assert both.name == "fine-tune at λ = 0.2, reject:budget=4"
    assert both.calls == 4


# ---- the frontier of a critic's scores --------------------------------------------------


def test_the_frontier_of_given_scores_holds_the_truth():
    """N(0, 1) against N(1, 1), the exact ratio: α(λ) = λ P(s < t) + Q(s >= t) at t = −log λ."""
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal(2000), rng.standard_normal(2000) + 1
    lam = np.array([0.2, 1.0, 5.0])
    scores = curves.given(0.5 - real, 0.5 - fake, Options())
    found = curves.of_scores(scores, lam)
    at = 0.5 + np.log(lam)  # log r = 1/2 − x is below −log λ where x is above this
    truth = lam * stats.norm.sf(at) + stats.norm.cdf(at, 1)
    assert found.upper is not None
    assert (found.low <= truth).all()
    assert (truth <= found.high).all()
    assert (truth <= found.upper).all()
    np.testing.assert_allclose(found.alpha, truth, atol=0.03)


@pytest.mark.parametrize("bad", [np.full(100, np.nan), np.zeros(3), np.zeros((50, 2))])
def test_scores_that_cannot_be_used_are_refused(bad):
    with pytest.raises(DataError, match="finite"):
        curves.given(bad, np.zeros(100), Options())


# ---- end to end -------------------------------------------------------------------------


def small() -> config.Config:
    cfg = toy_2d.get_config("smoke")
    cfg.base.fit_steps, cfg.base.fit_every, cfg.train.batch = 60, 20, 32
    cfg.data.name = "two_moons"
    return cfg


@pytest.fixture(scope="module", autouse=True)
def _as_users_run_it():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The workdir of a trained base."""
    folder = tmp_path_factory.mktemp("base") / "run"
    run.train_base(config.base_of(small()), folder)
    return folder


@pytest.fixture(scope="module")
def found(base, tmp_path_factory):
    """(the workdir, a prediction of it)."""
    folder = tmp_path_factory.mktemp("predicted") / "run"
    cfg = small()
    cfg.base.path = str(base)
    return folder, predict.predict(cfg, folder, budgets=(2.0,), truncations=(0.7,), samples=1000)


def test_a_prediction_is_whole(found):
    folder, one = found
    held = json.loads((folder / "predict" / "prediction.json").read_text())
    assert {"about", "critic", "frontier", "options", "at_most", "costs", "advice"} <= set(held)
    assert (folder / "predict" / "figure.png").stat().st_size > 10_000
    for row in held["frontier"]:
        alpha, top = row["alpha"], min(1, row["lam"])
        assert 0 <= alpha["low"] <= alpha["value"] <= alpha["high"] <= top + 1e-9
        room = row["room"]
        assert room["value"] == pytest.approx(top - alpha["value"])
        assert room["surely"] == pytest.approx(top - row["upper"])
        assert room["surely"] <= room["value"] + 1e-9
        assert row["beta"]["low"] == pytest.approx(alpha["low"] / row["lam"])
    names = [row["option"] for row in held["options"]]
    assert names[:3] == ["leave", "truncation:at=0.7", "reject:budget=2"]
    assert "fine-tune at λ = 5" in names
    assert "fine-tune at λ = 0.05, reject:budget=2" in names
    assert [row["measured"] for row in held["options"]] == [True] * 3 + [False] * 6
    reject = held["options"][2]
    assert 1.5 < reject["calls"] < 2.6
    assert held["options"][0]["calls"] == 1
    assert len(held["advice"]) == 3
    text = one.to_text()
    for part in ("room: the most that training", "what can be done", "max f_2: "):
        assert part in text


def test_the_critic_is_the_best_checks_and_is_calibrated(found):
    folder, _ = found
    where = fit.folder_of(folder, 0) / "fit" / "checkpoints" / "base-seed0"
    rows = record.read_metrics(fit.folder_of(folder, 0) / "fit")
    aucs = {row["step"]: row["heldout_auc"] for row in rows if "heldout_auc" in row}
    best = checkpoint.best(where)
    assert best == max(aucs, key=lambda step: (aucs[step], step))
    assert json.loads((folder / "predict" / "prediction.json").read_text())["critic"]["0"][
        "updates"
    ] == float(best or 0)


def test_the_stored_run_has_the_calibrated_ratio(found, base):
    """log r̂ of what others read is a s T + b of the fit's best check, at held-out data.

    T is the critic's own; the classes' shares are taken out after the calibration.
    """
    folder = fit.folder_of(found[0], 0)
    of_fit = found[1].critic[0]
    own = runs.configuration(folder)
    parts = build.splits(own)

    def ratios(where, cfg):
        system, x, y = build.system(cfg, parts.train), parts.test.images, parts.test.labels
        like = jax.eval_shape(
            lambda key: train.init(
                system, key, np.zeros((2, 2), np.float32), build.dials(cfg, None)
            ),
            jax.random.key(0),
        )
        step = checkpoint.best(where) or checkpoint.latest(where)
        state, _ = checkpoint.restore(where, like, step)
        prior = np.asarray(train.class_prior(system, y))
        return np.asarray(train.log_ratio(system, state, x, y)), prior

    plain = fit.settings_of(small())
    raw, prior = ratios(folder / "fit" / "checkpoints" / "base-seed0", plain)
    stored, _ = ratios(folder / "checkpoints" / "base-seed0", own)
    wanted = of_fit["slope"] * (raw + prior) + of_fit["offset"] - prior
    np.testing.assert_allclose(stored, wanted, rtol=1e-4, atol=1e-5)
    assert np.ptp(prior) > 0
    assert of_fit["slope"] != 1


@pytest.mark.parametrize(
    ("knob", "value"),
    [("normalise", True), ("critic.parametrisation", "dual"), ("train.decay", "linear")],
)
def test_the_fit_has_settings_of_its_own(knob, value):
    """What would put another constant, scale or rate in the ratio is not taken over."""
    cfg = small()
    part, _, name = knob.rpartition(".")
    (cfg[part] if part else cfg)[name] = value
    assert fit.settings_of(cfg).to_dict() == fit.settings_of(small()).to_dict()


def test_a_fit_goes_on_where_more_updates_are_allowed(base, tmp_path):
    cfg = small()
    cfg.base.path, cfg.base.fit_steps = str(base), 20

    def updates():
        predict.predict(cfg, tmp_path / "run", budgets=(2.0,), truncations=(0.7,))
        rows = record.read_metrics(fit.folder_of(tmp_path / "run", 0) / "fit")
        return [row["step"] for row in rows if "heldout_auc" in row]

    assert updates() == [20]
    cfg.base.fit_steps = 40
    assert updates() == [20, 40]
    assert updates() == [20, 40]


def test_what_was_fitted_is_reused_and_others_can_sample_from_it(found, base, monkeypatch):
    folder, one = found
    cfg = small()
    cfg.base.path = str(base)
    monkeypatch.setattr("prpr.trainer.Trainer.critic_step", None)  # no update is made
    again = predict.predict(cfg, folder, budgets=(2.0,), truncations=(0.7,), samples=1000)
    # Rates of the machine are measured anew.
    assert again._replace(costs=one.costs).to_json() == one.to_json()
    where = fit.folder_of(folder, 0)
    measured = evaluate(
        f"{where}?real", f"{where}?run=base&seed=0", ["precision"], sampler=parse("reject:budget=2")
    )
    assert 0 <= measured.to_json()["metrics"]["precision"]["value"] <= 1
    # Nothing is drawn again either, and a free setting moves the calibration with its networks.
    cfg.score.batch = 32
    other = predict.predict(cfg, folder, budgets=(2.0,), truncations=(0.7,), samples=1000)
    assert other.critic[0]["slope"] == pytest.approx(one.critic[0]["slope"], rel=0.2)
    cfg.critic.lr = 1e-4
    with pytest.raises(WorkdirError, match=r"critic\.lr"):
        predict.predict(cfg, folder)


def test_results_of_the_same_workdir_are_laid_beside_the_guesses(found, base, tmp_path):
    folder, _ = found
    own = tmp_path / "run"
    shutil.copytree(folder, own)
    reached = [("lam_5", 5.0, 0, 0.7, 0.4), ("lam_3", 3.0, 0, 0.7, 0.4)]
    head = {name: found[1].about[name] for name in ("encoder", "k", "n_real", "n_fake")}
    summary(own, [("base", None, 0, 0.5, 0.5), *reached], **head)
    record.write_json(
        own / "control.json",
        {
            "settings": head,
            "rows": [
                {
                    "lam": 0.05,
                    "sampler": "reject:budget=2",
                    "metrics": {"precision": {"value": 0.0}, "recall": {"value": 0.5}},
                }
            ],
        },
    )
    cfg = small()
    cfg.base.path = str(base)
    one = predict.predict(cfg, own, budgets=(2.0,), truncations=(0.7,))
    assert set(one.reached) == {"fine-tune at λ = 5", "fine-tune at λ = 0.05, reject:budget=2"}
    assert one.reached["fine-tune at λ = 5"]["precision"] == 0.7
    assert any("was left out" in line for line in one.notes) == any(
        known.name == "two_moons" for known in experience.MEASURED
    )
    assert "two_moons" not in one.about["experience"]
    summary(own, reached, **{**head, "n_fake": 7})
    assert set(predict.predict(cfg, own, budgets=(2.0,), truncations=(0.7,)).reached) == {
        "fine-tune at λ = 0.05, reject:budget=2"
    }
    with pytest.raises(ConfigError, match="guess its own answer"):
        predict.predict(cfg, own, known=(str(own),))
    assert "guessed, and what the runs in this workdir reached" in one.to_text()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"base.path": "nowhere"}, CheckpointError, "no frozen generator in .*nowhere"),
        ({"base.path": ""}, CheckpointError, "no frozen generator in .*base.*train_gan"),
        ({"model.generator_ch": 16}, CheckpointError, "does not fit this model"),
    ],
)
def test_what_cannot_be_predicted_is_refused(base, tmp_path, change, error, message):
    cfg = small()
    cfg.base.path = str(base)
    for knob, value in change.items():
        part, name = knob.split(".")
        cfg[part][name] = value
    with pytest.raises(error, match=message):
        predict.predict(cfg, tmp_path / "run")


def test_a_fine_tune_without_a_critic_is_refused():
    cfg = toy_2d.get_config("flow_smoke")
    cfg.route = "implicit"
    with pytest.raises(ConfigError, match=r"estimates no ratio.*balanced"):
        fit.settings_of(cfg)
    with pytest.raises(ConfigError, match=r"estimates no ratio"):
        fit.settings_of(config.control_of(small()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lams": (0.0,)}, "positive"),
        ({"budgets": (0.5,)}, "budget"),
        ({"samples": 0}, "samples"),
        ({"level": 1.0}, "level"),
        ({"wish": "fid <= 3"}, "can be predicted"),
        ({"known": ("nowhere",)}, "nowhere"),
        ({"encoder": "pixls"}, "pixls"),
        ({"n_fake": 20}, "at least"),
        ({"wish": "max f_knn_1"}, "can be predicted"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_fitted(base, tmp_path, settings, message):
    cfg = small()
    cfg.base.path = str(base)
    with pytest.raises((ConfigError, DataError), match=message):
        predict.predict(cfg, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_the_command(base, tmp_path):
    command = [
        sys.executable,
        "experiments/predict_frontier.py",
        "--config=configs/toy_2d.py:smoke",
        "--config.data.name=two_moons",
        "--config.train.batch=32",
        "--config.base.fit_steps=20",
        f"--config.base.path={base}",
        f"--workdir={tmp_path / 'run'}",
        "--budgets=2",
        "--truncations=.7",
        "--wish=precision >= 0.1",
        "--json=-",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["advice"][0]["wish"] == "precision >= 0.1 and max recall"
    bad = subprocess.run(
        [*command[:-3], "--lams=a"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert bad.returncode == 2
    assert "--lams takes numbers" in bad.stderr
