"""The table of λ trained against λ measured, on models whose frontiers are known."""

import json

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import Options, statistics, trained_measured


def samples(weights, seed=0, n=400):
    """n samples of tight clusters far apart, in exact proportion to the weights."""
    counts = np.rint(n * np.asarray(weights)).astype(int)
    where = np.repeat(np.arange(len(counts)), counts)
    noise = 0.1 * np.random.default_rng(seed).normal(size=(len(where), len(counts)))
    return statistics(20 * np.eye(len(counts))[where] + noise)


# Four modes and, last, rubbish. α(λ) = Σ min(λ/4, q) over the modes.
DATA = [0.25, 0.25, 0.25, 0.25, 0]
RECALL, MIDDLE, PRECISE = (
    [0.125, 0.125, 0.125, 0.125, 0.5],
    [0.25, 0.25, 0.25, 0, 0.25],
    [1, 0, 0, 0, 0],
)
ALPHA = {0.2: (0.2, 0.15, 0.05), 1.0: (0.5, 0.75, 0.25), 5.0: (0.5, 0.75, 1.0)}


def runs(*weights, lam=(0.2, 1.0, 5.0)):
    real = samples(DATA)
    return {
        one: (real, samples(weight, 1 + i))
        for i, (one, weight) in enumerate(zip(lam, weights, strict=True))
    }


@pytest.fixture(scope="module")
def good():
    return trained_measured.table(runs(RECALL, MIDDLE, PRECISE), estimator="knn")


def test_runs_that_do_what_they_were_trained_for(good):
    assert [row.lam for row in good.rows] == [0.2, 1, 5]
    for i, row in enumerate(good.rows):
        want = ALPHA[row.lam][i]
        assert row.alpha.value == pytest.approx(want, rel=0.05)
        assert row.alpha.low <= want <= row.alpha.high
        assert row.beta.value == pytest.approx(row.alpha.value / row.lam)
        assert row.winner == row.best == row.lam
        assert row.ahead is None
    assert good.wins == 3
    assert good.precision_order == pytest.approx(1)
    assert good.recall_order == pytest.approx(-1)
    ends = [(row.precision.value, row.recall.value) for row in good.rows]
    want = [(0.5, 1), (0.75, 0.75), (1, 0.25)]
    assert np.array(ends) == pytest.approx(np.array(want), abs=0.05)


def test_runs_whose_lam_did_the_reverse():
    found = trained_measured.table(runs(PRECISE, MIDDLE, RECALL), estimator="knn")
    assert found.wins == 1
    first, _, last = found.rows
    assert (first.winner, first.best) == (5, 5)
    assert (last.winner, last.best) == (0.2, 0.2)
    assert first.ahead is not None
    assert first.ahead.difference == pytest.approx(0.2 - 0.05, abs=0.02)
    assert first.ahead.low > 0
    assert first.ahead.p < 0.001
    assert found.precision_order == pytest.approx(-1)
    assert found.recall_order == pytest.approx(1)


def test_one_model_under_all_lam_wins_everywhere():
    real, fake = samples(DATA), samples(MIDDLE, 1)
    found = trained_measured.table({2.0: (real, fake), 0.5: (real, fake)}, estimator="knn")
    assert found.wins == 2
    assert [(row.lam, row.best) for row in found.rows] == [(0.5, 0.5), (2, 2)]
    assert found.precision_order is None


def test_three_equal_models_have_no_order():
    real, fake = samples(DATA), samples(MIDDLE, 1)
    found = trained_measured.table(dict.fromkeys((1.0, 2.0, 3.0), (real, fake)), estimator="knn")
    assert found.precision_order is None
    assert found.recall_order is None


def test_json_is_the_table(good):
    found = json.loads(json.dumps(trained_measured.to_json(good)))
    assert found["wins"] == 3
    assert found["spearman_precision"] == pytest.approx(1)
    row = found["rows"][2]
    assert row["lam"] == row["winner"] == 5
    assert row["wins"] is True
    assert row["ahead"] is None
    assert row["alpha"]["value"] == good.rows[2].alpha.value
    assert row["alpha"]["level"] == 0.95
    assert set(row["beta"]) == {"value", "low", "high", "level"}


def test_json_of_a_run_that_is_behind():
    found = trained_measured.table(runs(PRECISE, RECALL, lam=(0.2, 5)), estimator="knn")
    ahead = json.loads(json.dumps(trained_measured.to_json(found)))["rows"][0]["ahead"]
    assert set(ahead) == {"difference", "low", "high", "p"}


def test_text_has_a_line_a_run(good):
    lines = trained_measured.to_text(good).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["trained", "λ"]
    assert lines[3].startswith("5 ")
    assert lines[3].count("*") == 1
    assert "3 of 3 runs" in lines[-1]
    assert "+1.00" in lines[-1]
    assert "-1.00" in lines[-1]


def test_settings_are_passed_on():
    wide, narrow = (
        trained_measured.table(runs(MIDDLE, lam=(1,)), Options(level=level), "knn").rows[0]
        for level in (0.99, 0.5)
    )
    assert wide.alpha.high - wide.alpha.low > narrow.alpha.high - narrow.alpha.low


def test_bad_input():
    with pytest.raises(errors.ConfigError, match="one trained λ at least"):
        trained_measured.table({})
    with pytest.raises(errors.ConfigError, match="positive finite"):
        trained_measured.table(runs(MIDDLE, lam=(-1.0,)), estimator="knn")
    two = runs(MIDDLE, lam=(1.0,)) | {2.0: (samples(DATA, n=200), samples(MIDDLE))}
    with pytest.raises(errors.DataError, match=r"\[200, 400\] real samples"):
        trained_measured.table(two, estimator="knn")
