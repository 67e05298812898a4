"""From a wish and records to λ: reading both, the tests of a promise, what is said."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from prpr import choosing, record
from prpr.choosing import curves, promises, wishes
from prpr.choosing.points import Point, Reading, f_score, point
from prpr.errors import ConfigError, DataError, PrprError
from prpr.metrics import intervals

ROOT = Path(__file__).parents[1]
LAMS = (0.2, 1.0, 5.0, 20.0)


def csv_of(path, precision=(0.8, 0.85, 0.9, 0.92), recall=(0.6, 0.55, 0.45, 0.35), n=539):
    lines = ["lam,seed,precision,recall,n"]
    lines += [f"{a},0,{p},{r},{n}" for a, p, r in zip(LAMS, precision, recall, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def held(tmp_path):
    return choosing.read([csv_of(tmp_path / "records.csv")])


# ---- wishes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("precision >= 0.9", "precision >= 0.9 and max recall"),
        ("recall ≥ 60 %", "recall >= 0.6 and max precision"),
        ("FID <= 12 and max precision", "fid <= 12 and max precision"),
        ("fid < 1.2e1", "fid <= 12 and min fid"),
        ("max f_2", "max f_2"),
        ("worst recall>=.3; max precision", "worst recall >= 0.3 and max precision"),
        ("precision[7] >= .8", "precision[7] >= 0.8 and max recall"),
        ("precision >= .9 and recall >= .4", "precision >= 0.9 and recall >= 0.4"),
        ("fid >= 5 and fid <= 8", "fid >= 5 and fid <= 8 and min fid"),
        ("cost: bad=5 missing=1", "cost: bad=5 missing=1"),
        ("recall >= .2 and cost: missing=1 bad=5", "recall >= 0.2 and cost: bad=5 missing=1"),
    ],
)
def test_a_wish_is_read(text, read):
    assert str(choosing.parse(text)) == read
    assert str(choosing.parse(read)) == read


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", None, "empty"),
        ("precision", 10, "'>=' or '<='"),
        ("precision => .9", 11, "cannot be promised"),
        ("precision >= high", 14, "a number is missing"),
        ("precision >= 95", 14, "did you mean 95%"),
        ("precision >= 1.5e2", 14, "between 0 and 1"),
        ("precision >= .9 recall >= .2", 17, "'and' is missing"),
        ("precision >= .9 and", 20, "a metric, max, min or cost"),
        ("max precision and max recall", 19, "there is an aim already, 'max precision'"),
        ("precision >= .9 & recall >= .2", 17, "'&' is not part"),
        ("cost: bad=5", 12, "missing=NUMBER is missing"),
        ("cost: bad=5 bad=2 missing=1", 13, "given twice"),
        ("cost: bad=-5 missing=1", 11, "above 0"),
        ("cost bad=5 missing=1", 6, "':' is missing"),
        ("precision[ >= .8", 12, "the name of a class"),
        ("precision >= .9 and precision >= .8", None, "twice on one side"),
        ("recall >= .9 and recall <= .8", None, "contradicts itself"),
        ("max fid", None, "write 'min fid'"),
        ("min recall", None, "write 'max recall'"),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused_at_its_place(text, place, message):
    with pytest.raises(ConfigError, match="the wish") as error:
        choosing.parse(text)
    assert message in str(error.value)
    if place is not None:
        assert f"at character {place}:" in str(error.value)
        assert repr(text[: place - 1] + ">>>" + text[place - 1 :]) in str(error.value)


# ---- points -----------------------------------------------------------------------------


def test_a_share_is_tested_as_its_interval_is_made():
    """Wilson's ends are where the one-sided doubts are 2.5 %."""
    low, high = intervals.proportion(0.9, 200, intervals.quantile(0.95))
    one = point([Reading(0.9, low, high)], True)
    assert one.draws == pytest.approx(200)
    assert one.interval(0.95) == pytest.approx((low, high))
    assert one.doubt(low, True) == pytest.approx(0.025)
    assert one.doubt(high, False) == pytest.approx(0.025)
    assert one.doubt(0.9, True) == pytest.approx(0.5)


def test_all_of_twenty_is_not_certain():
    low, high = intervals.proportion(1.0, 20, intervals.quantile(0.95))
    one = point([Reading(1.0, low, high)], True)
    assert one.draws == pytest.approx(20)
    assert one.doubt(0.9, True) == pytest.approx(0.0681, abs=1e-3)  # Φ(−√(20/9))
    assert one.doubt(1.0, True) == 0.5 or one.doubt(1.0, True) == 1.0


def test_seeds_add_what_lies_between_them():
    t = intervals.quantile(0.95)
    readings = [Reading(v, v - t * 0.1, v + t * 0.1) for v in (1.0, 1.3, 1.6)]
    one = point(readings, False)
    assert one.value == pytest.approx(1.3)
    assert one.variance == pytest.approx(0.09 / 3 + 0.01)
    assert one.df == pytest.approx(2 * (0.04 / 0.03) ** 2)
    alone = point([Reading(1.0), Reading(1.3), Reading(1.6)], False)
    assert (alone.variance, alone.df) == pytest.approx((0.03, 2.0))


def test_draws_of_a_share_have_its_doubts():
    low, high = intervals.proportion(0.7, 50, intervals.quantile(0.95))
    one = point([Reading(0.7, low, high)], True)
    drawn = one.draw(np.random.default_rng(0), 200_000)
    for x in (0.55, 0.65, 0.75):
        assert np.mean(drawn <= x) == pytest.approx(one.doubt(x, True), abs=4e-3)


def test_an_f_score_lies_within_its_parts():
    whole = f_score(2.0, Reading(0.8, 0.75, 0.85), Reading(0.4, 0.35, 0.45))
    assert whole.value == pytest.approx(5 * 0.32 / (4 * 0.8 + 0.4))
    assert whole.low == pytest.approx(5 * 0.75 * 0.35 / (4 * 0.75 + 0.35))
    assert f_score(1.0, Reading(0.0, 0.0, 0.1), Reading(0.0, 0.0, 0.1)).value == 0


# ---- promises ---------------------------------------------------------------------------


def test_fallback_is_the_procedure():
    """The adjusted p is the least level at which the step-by-step procedure rejects."""
    rng = np.random.default_rng(0)
    for m in (1, 2, 5):
        p = rng.uniform(0, 0.1, m)
        weights = np.array([1.0]) if m == 1 else np.array([0.5] + [0.5 / (m - 1)] * (m - 1))
        adjusted = promises.fallback(p)

        def rejected(level, p=p, weights=weights):
            out, passed = [], 0.0
            for one, weight in zip(p, weights, strict=True):
                own = level * weight + passed
                out.append(one <= own)
                passed = own if out[-1] else 0.0
            return np.array(out)

        for j in range(m):
            if adjusted[j] < 1:
                assert rejected(adjusted[j] + 1e-9)[j]
            assert not rejected(min(adjusted[j], 1) - 1e-9)[j]


def test_holm_by_hand():
    assert promises.holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert promises.holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("adjust", [promises.fallback, promises.holm])
def test_promises_err_as_seldom_as_they_say(adjust):
    """Nothing is true: in at most 5 % of the cases is anything promised."""
    p = np.random.default_rng(1).uniform(size=(20_000, 6))
    wrong = np.mean([(adjust(row) <= 0.05).any() for row in p])
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(p))
    assert wrong > 0.02


def test_the_order_of_the_tests_is_that_of_the_wish():
    p = np.array([0.5, 0.03, 0.02, 0.01])
    one = choosing.parse("precision >= .9").constraints
    other = choosing.parse("recall >= .9").constraints
    both = one + other
    # From the highest λ: .02 at the first, then what it and the next may use together.
    assert promises.adjusted(one, p) == pytest.approx([0.5, 0.036, 0.03, 0.02])
    assert promises.adjusted(other, p)[0] == 1.0
    assert promises.adjusted(both, p) == pytest.approx([0.5, 0.06, 0.06, 0.04])


@pytest.mark.parametrize("way", [1, -1])
def test_monotone_is_isotonic_regression(way):
    rng = np.random.default_rng(2)
    points = [Point(0.0, v, np.inf, None, 1) for v in rng.uniform(0.1, 2, 9)]
    rows = rng.standard_normal((20, 9))
    weights = [1 / one.variance for one in points]
    expected = [isotonic_regression(r, sample_weight=weights, increasing=way > 0) for r in rows]
    assert np.allclose(curves.monotone(rows, points, way), expected, atol=1e-12)


# ---- choosing ---------------------------------------------------------------------------


def test_the_promised_lam_with_most_of_the_aim_is_taken(held):
    answer = choosing.choose(held, "precision >= 0.85")
    assert (answer.verdict, answer.feasible, answer.lam) == ("promised", True, 5.0)
    assert answer.probability >= 0.95
    assert answer.given_up["recall"]["at"] == 0.2
    assert answer.given_up["recall"]["difference"] == pytest.approx(0.15)
    low, high = answer.interval
    assert 0.2 < low < 1.0 < high < 5.0  # the estimate at λ = 1 is just what is asked
    assert answer.nearest_feasible is None
    lower = choosing.choose(held, "recall >= 0.5")
    assert (lower.lam, lower.feasible) == (1.0, True)


def test_what_cannot_be_promised_is_said_with_what_could(held):
    answer = choosing.choose(held, "precision >= 0.99")
    assert (answer.verdict, answer.feasible, answer.lam) == ("refuted", False, 20.0)
    assert answer.interval is None
    assert answer.next_lam > 20
    weaker = choosing.choose(held, answer.nearest_feasible["wish"])
    assert weaker.feasible
    assert weaker.lam == answer.nearest_feasible["lam"]
    bound = weaker.wish.constraints[0].bound
    assert not choosing.choose(held, f"precision >= {bound + 2e-4}").feasible


def test_what_is_likely_is_no_promise(held):
    answer = choosing.choose(held, "precision >= 0.9 and recall >= 0.4")
    assert (answer.verdict, answer.feasible, answer.lam) == ("likely", False, 5.0)
    assert answer.alone == pytest.approx(0.5, abs=0.01)
    assert choosing.choose(held, answer.nearest_feasible["wish"]).feasible
    assert 1.0 < answer.next_lam < 20.0


def test_a_cost_has_its_optimum(held):
    answer = choosing.choose(held, "cost: bad=1 missing=1")
    expected = {0.2: 0.6, 1.0: 0.6, 5.0: 0.65, 20.0: 0.73}
    assert answer.cost == pytest.approx(expected)
    assert choosing.choose(held, "cost: bad=50 missing=1").lam == 20.0
    assert choosing.choose(held, "cost: bad=1 missing=50").lam == 0.2
    assert "worth 50" in choosing.to_text(choosing.choose(held, "cost: bad=50 missing=1"))


def test_an_f_score_is_made_of_precision_and_recall(held):
    answer = choosing.choose(held, "max f_2")
    assert answer.lam == 0.2
    assert answer.metrics["f_2"][0] == pytest.approx(5 * 0.48 / (3.2 + 0.6))
    assert any("f_2 is taken from" in note for note in answer.notes)


def test_monotone_smooths_a_reversal(tmp_path):
    held = choosing.read([csv_of(tmp_path / "x.csv", precision=(0.8, 0.9, 0.88, 0.93))])
    answer = choosing.choose(held, "max precision and recall >= .3", monotone=True)
    assert answer.lam == 20.0
    rough = choosing.choose(held, "recall >= 0.4 and max precision")
    smooth = choosing.choose(held, "recall >= 0.4 and max precision", monotone=True)
    assert rough.lam == 1.0
    assert smooth.lam in (1.0, 5.0)  # they are pooled
    # A promise rests on the records alone.
    assert [row["probability"] for row in rough.rows] == [row["probability"] for row in smooth.rows]


def test_one_lam_can_be_asked_about(held):
    answer = choosing.choose(held, "precision >= 0.85", only=20.0)
    assert (answer.lam, answer.feasible) == (20.0, True)
    assert answer.probability == answer.alone
    assert "At λ = 20 the wish holds with probability" in choosing.to_text(answer)
    text = choosing.to_text(choosing.choose(held, "precision >= 0.9", only=0.2))
    assert "At λ = 0.2 the estimates do not meet the wish" in text
    with pytest.raises(ConfigError, match=r"--lam=3: the records hold no model.*0.2, 1, 5, 20"):
        choosing.choose(held, "precision >= 0.85", only=3.0)


def test_promises_are_kept_in_simulated_frontiers():
    spec = importlib.util.spec_from_file_location("simulate", ROOT / "benchmarks" / "choosing.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for form, seeds in (("precision >= {p}", 2), ("precision >= {p} and recall >= {r}", 1)):
        found = bench.simulate(form, 60, seeds, 6, 600, 0.01, 0.003, False)
        assert found.promised >= 6
        assert found.promised - found.kept <= 6  # of 60: .05 and three standard errors
        assert found.point_kept < found.point_wishes  # estimates alone do not keep them
        assert found.kept / found.promised > found.point_kept / found.point_wishes


# ---- records ----------------------------------------------------------------------------


def summary(tmp_path, **changes):
    rows = [
        {"name": "control", "lam": None, "seed": 0, "metrics": metrics(0.93, 0.4)},
        *(
            {"name": f"lam_{lam:g}", "lam": lam, "seed": s, "metrics": metrics(p + s / 100, r)}
            for lam, p, r in ((1.0, 0.8, 0.6), (5.0, 0.9, 0.5))
            for s in (0, 1)
        ),
    ]
    head = {"encoder": "pixels", "n_real": 539, "n_fake": 539, "level": 0.95, "k": 3}
    record.write_json(tmp_path / "summary.json", {"rows": rows, **head, **changes})
    return tmp_path


def metrics(precision, recall):
    return {
        name: {"value": v, "low": v - 0.03, "high": v + 0.03}
        for name, v in (("precision", precision), ("recall", recall))
    }


def test_a_workdir_is_read_with_its_control(tmp_path):
    held = choosing.read([summary(tmp_path)])
    assert held.lams == (1.0, 5.0)
    assert held.made["encoder"] == "pixels"
    assert [row.seed for row in held.at(5.0)] == [0, 1]
    answer = choosing.choose(held, "precision >= 0.85")
    assert answer.lam == 5.0
    assert answer.given_up["recall"]["control"] == pytest.approx(-0.1)
    assert answer.rows[0]["seeds"] == 2
    assert not any("one seed" in note for note in answer.notes)


def evaluation(lam, recall=0.5, **changes):
    low = {"value": recall, "low": recall - 0.05, "high": recall + 0.05}
    classes = {
        name: {
            "n_real": 50,
            "n_fake": 50,
            "metrics": {"recall": {**low, "value": v, "low": v - 0.05}},
        }
        for name, v in (("a", recall), ("b", recall - 0.02))
    }
    return {
        "metrics": metrics(0.9, recall),
        "real": "run?real",
        "fake": f"run?lam={lam}&seed=3",
        "seed": 0,
        "encoder": "pca",
        "n_fake": 500,
        "per_class": {"classes": classes, "worst": "b", "left_out": {}},
        **changes,
    }


def test_evaluations_are_read_with_their_classes(tmp_path):
    paths = []
    for lam, recall in ((0.5, 0.8), (5.0, 0.4)):
        paths.append(tmp_path / f"{lam}.json")
        record.write_json(paths[-1], evaluation(lam, recall))
    held = choosing.read(paths)
    assert [(row.lam, row.seed) for row in held.rows] == [(0.5, 3), (5.0, 3)]
    answer = choosing.choose(held, "worst recall >= 0.6")
    assert (answer.lam, answer.feasible) == (0.5, True)
    assert answer.metrics["worst recall"][0] == pytest.approx(0.78)
    assert choosing.choose(held, "recall[a] >= 0.6").metrics["recall[a]"][0] == pytest.approx(0.8)
    with pytest.raises(DataError, match="has no class 'c'; it has a, b"):
        choosing.choose(held, "recall[c] >= .2")


def test_three_seeds_need_no_interval(tmp_path):
    rows = [
        {"lam": lam, "seed": s, "score": v + s / 10}
        for lam, v in ((1, 3.0), (2, 5.0))
        for s in range(3)
    ]
    record.write_json(tmp_path / "rows.json", rows)
    held = choosing.read([tmp_path / "rows.json"])
    answer = choosing.choose(held, "score >= 4")
    assert (answer.lam, answer.feasible) == (2.0, True)
    record.write_json(tmp_path / "rows.json", [row for row in rows if row["seed"] < 2])
    with pytest.raises(DataError, match=r"score has no interval.*score_low and score_high"):
        choosing.choose(choosing.read([tmp_path / "rows.json"]), "score >= 4")


def broken_rows(**changes):
    return [{"lam": 1.0, "seed": 0, "precision": 0.5, "recall": 0.5, "n": 100, **changes}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken_rows(lam=-1), "lam = -1 must be a number above 0"),
        (broken_rows(lam=True), "lam = True"),
        (broken_rows(seed=0.5), "seed = 0.5 must be a whole number"),
        (broken_rows(precision="nan"), "precision's value = 'nan'"),
        (broken_rows(precision=1.2), "must lie between 0 and 1"),
        (broken_rows(precision_low=0.4), "one end of its interval"),
        (broken_rows(precision_low=0.6, precision_high=0.7), "outside its own interval"),
        (broken_rows(level=95), "level = 95 must lie between 0 and 1"),
        (broken_rows() * 2, "seed 0 is also in"),
        (
            broken_rows() + broken_rows(lam=2, encoder="vgg16") + broken_rows(lam=3, encoder="x"),
            "encoder is 'vgg16' in",
        ),
        (broken_rows(n_fake=5) + broken_rows(lam=2, n_fake=6), "n_fake is 5 in"),
        ({"a": 1}, "holds no records"),
        ([1, 2], "holds no records"),
    ],
)
def test_records_that_cannot_be_used_are_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(PrprError, match=message) as error:
        choosing.read([tmp_path / "x.json"])
    assert "x.json" in str(error.value)


def test_csv_that_cannot_be_used_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    for text, message in (
        ("a,b\n1,2\n", "has no column lam"),
        ("lam,precision\n1\n", "line 2: 2 cells are expected"),
        ("lam,precision\n1,2,3\n", "line 2: 2 cells are expected"),
        ("lam,precision\n1,high\n", "line 2: precision's value = 'high'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            choosing.read([path])
    path.write_bytes(b"\xff\xfe\x00lam")
    with pytest.raises(DataError, match="cannot be read as text"):
        choosing.read([path])


def test_what_is_missing_is_named(held, tmp_path):
    with pytest.raises(ConfigError, match="no records"):
        choosing.read([])
    with pytest.raises(ConfigError, match="there is no file"):
        choosing.read([tmp_path / "none.json"])
    with pytest.raises(ConfigError, match="no workdir of a finished run"):
        choosing.read([tmp_path])
    with pytest.raises(ConfigError, match="precison"):
        choosing.choose(held, "precison >= .5")
    with pytest.raises(DataError, match=r"line 2 has no fid.*--metrics=fid"):
        choosing.choose(held, "fid <= 5")
    with pytest.raises(DataError, match="no metrics of classes"):
        choosing.choose(held, "worst recall >= .5")
    with pytest.raises(ConfigError, match="level"):
        choosing.choose(held, "precision >= .5", level=95)
    csv = "lam,seed,precision,n\n1,0,.5,100\n"
    (tmp_path / "one.csv").write_text(csv)
    with pytest.raises(ConfigError, match=r"hold 1 λ \(1\).*--lam"):
        choosing.choose(choosing.read([tmp_path / "one.csv"]), "precision >= .5")


# ---- what is said -----------------------------------------------------------------------


def test_the_answer_in_words_and_as_json(held):
    answer = choosing.choose(held, "precision >= 0.9 and recall >= 0.4")
    text = choosing.to_text(answer)
    assert "Take λ = 5 if you must choose now" in text
    assert "lies on the ray λ = a/b = 2.25" in " ".join(text.split())
    assert "What can be promised: precision >=" in text
    assert max(map(len, text.splitlines())) <= 110
    found = choosing.to_json(answer)
    json.dumps(found, allow_nan=False)
    asked = {"feasible", "lam", "interval", "probability", "given_up", "nearest_feasible"}
    assert asked | {"next_lam"} <= set(found)
    assert found["metrics"]["precision"]["value"] == 0.9
    refuted = choosing.to_text(choosing.choose(held, "precision >= 0.99"))
    assert "No λ between 0.2 and 20 meets the wish" in " ".join(refuted.split())
    assert "next: λ = 80" in refuted


def test_no_metric_is_a_proportion_and_a_distance():
    assert not set(wishes.PROPORTIONS) & set(wishes.LOWER_IS_BETTER)


def test_the_command(tmp_path):
    path = csv_of(tmp_path / "records.csv")

    def call(*options):
        return subprocess.run(
            [sys.executable, "experiments/choose_lambda.py", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    done = call(f"--records={path}", "--wish=precision >= 0.85", "--json=-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lam"] == 5.0
    done = call(f"--records={path}", "--wish=precision => 0.85")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the wish cannot be read at character 11")
    assert call("--wish=max f_1").returncode == 2
