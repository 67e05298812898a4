"""The table of λ trained against λ measured, on models whose frontiers are known."""

import json
import weakref

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import Options, curves, intervals, statistics, trained_measured


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
    assert set(ahead) == {"difference", "low", "high", "p", "level"}


def measured(monkeypatch, thetas, notes=()):
    """The table of runs whose replicates at every λ are given: θ of runs (R, 1 + G, 1 + H)."""
    made = iter(thetas)

    def frontier(real, fake, lam, options, estimator):
        theta = next(made)
        return [intervals.Replicates(theta, np.inf, "real", notes=notes) for _ in lam]

    monkeypatch.setattr(curves, "frontier", frontier)
    real = samples(DATA)
    return trained_measured.table({1.0 + i: (real, real) for i in range(len(thetas))})


def test_the_best_of_many_equal_runs_is_seldom_ahead(monkeypatch):
    """A plain test of the largest of 8 against a run has p below .05 in an eighth of the rows."""
    rng, small, all_hold = np.random.default_rng(8), [], []
    for _ in range(60):
        theta = np.zeros((8, 21, 21))
        fake = rng.normal(size=(8, 20))
        theta[:, :, 1:] = -fake[:, None] / 19
        theta += fake.mean(axis=1)[:, None, None]
        theta[:, 0, 0] = fake.mean(axis=1)
        for row in measured(monkeypatch, theta).rows:
            if row.ahead is not None:
                small.append(row.ahead.p < 0.05)
                all_hold.append(row.ahead.low <= 0)
    assert np.mean(small) < 0.08
    assert np.mean(all_hold) > 0.92


def test_p_is_holms(monkeypatch):
    """The largest need not have the smallest p: then that one's comes first, three times."""
    theta = np.zeros((4, 21, 21))
    theta[:, 0, 0] = [0.0, 1.0, 0.9, 0.1]
    noise = np.random.default_rng(9).normal(size=20)
    for one, scale in zip(theta, (0.01, 0.09, 0.05, 0.05), strict=True):
        one[0, 1:] = scale * noise
    own, *others = (intervals.Replicates(one, np.inf, "real") for one in theta)
    plain = [intervals.compare(one, own).p for one in others]
    assert plain[1] < plain[0] < plain[2]
    row = measured(monkeypatch, theta).rows[0]
    assert row.ahead is not None
    assert (row.winner, row.ahead.p) == (2.0, pytest.approx(max(3 * plain[1], 2 * plain[0])))


def test_notes_are_kept(monkeypatch):
    real, fake = samples(DATA), samples(MIDDLE, 1)
    found = trained_measured.table({300.0: (real, fake)}, estimator="knn")
    assert any("λ=300 is read from about 1.3 of the real samples" in note for note in found.notes)
    found = measured(monkeypatch, np.zeros((2, 21, 21)), ("errs upwards",))
    assert found.notes == ("errs upwards",)


def test_runs_are_let_go_one_after_the_other():
    real, held = samples(DATA), []

    def each():
        for i, weights in enumerate((PRECISE, RECALL, MIDDLE)):
            assert not [one for one in held if one() is not None]
            fake = samples(weights, 1 + i)
            held.append(weakref.ref(fake))
            yield real, fake
            del fake

    found = trained_measured.of_each((5.0, 0.2, 1.0), each(), estimator="knn")
    want = {
        lam: (real, samples(weights, 1 + i))
        for i, (lam, weights) in enumerate(((5.0, PRECISE), (0.2, RECALL), (1.0, MIDDLE)))
    }
    assert found == trained_measured.table(want, estimator="knn")
    assert [row.lam for row in found.rows] == [0.2, 1, 5]
    with pytest.raises(ValueError, match="2 λ and 1 runs"):
        trained_measured.of_each((1.0, 2.0), [(real, real)], estimator="knn")


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
    for options, estimator, said in (
        (Options(level=95), "knn", "level=95"),
        (Options(), "kn", "Did you mean 'knn'"),
    ):
        with pytest.raises(errors.ConfigError, match=said):  # before a run is asked for
            trained_measured.of_each((1.0,), map(pytest.fail, "x"), options, estimator)
    two = runs(MIDDLE, lam=(1.0,)) | {2.0: (samples(DATA, 3), samples(MIDDLE))}
    with pytest.raises(errors.DataError, match="different real samples, 400 each"):
        trained_measured.table(two, estimator="knn")
    two = runs(MIDDLE, lam=(1.0,)) | {2.0: (samples(DATA, n=200), samples(MIDDLE))}
    with pytest.raises(errors.DataError, match=r"\[200, 400\] real samples"):
        trained_measured.table(two, estimator="knn")
