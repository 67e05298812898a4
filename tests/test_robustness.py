"""benchmarks/robustness.py: what is spoiled, the rules that judge samples, tables, failed runs."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import robustness
import short_finetunes
from robust import conditions, corrupt, figure, measure, runs, short, table, variants
from robust.conditions import CONDITIONS, DIGITS, RING

from prpr import config, data, errors, health, plotting, record, recovery
from prpr import run as prpr_run

SPOILED = [name for name, one in CONDITIONS.items() if one.spoil is not None]
each = pytest.mark.parametrize("name", SPOILED)


def _rows(part):
    """The items as bytes, to be compared and counted."""
    return [x.tobytes() for x in part.images]


def _changed(name, split="train"):
    """(clean, spoiled, rows whose image differs, rows whose label differs)."""
    clean, bad = CONDITIONS[name].source.part(split), conditions.spoiled(name)[split]
    assert bad.size == clean.size
    images = (bad.images != clean.images).reshape(clean.size, -1).any(axis=1)
    return clean, bad, np.flatnonzero(images), np.flatnonzero(bad.labels != clean.labels)


# --- conditions ---------------------------------------------------------------------------------


@each
def test_data_are_valid_and_repeat(name):
    first, again = conditions.spoiled(name), conditions.spoiled(name)
    source = CONDITIONS[name].source
    for split, part in first.items():
        np.testing.assert_array_equal(part.images, again[split].images)
        np.testing.assert_array_equal(part.labels, again[split].labels)
        assert part.images.dtype == np.float32
        assert part.labels.dtype == np.int32
        clean = source.part(split)
        assert part.num_classes == clean.num_classes
        if source is DIGITS:
            data.check_images(part.images, part.labels, part.num_classes, part.levels)
            assert part.levels == clean.levels == 17
        if split == "test":
            np.testing.assert_array_equal(part.images, clean.images)
            np.testing.assert_array_equal(part.labels, clean.labels)
        else:
            same = part.size == clean.size and np.array_equal(part.images, clean.images)
            assert not same or not np.array_equal(part.labels, clean.labels), split
    other = conditions.spoiled(name, seed=1)["train"]
    same = other.size == first["train"].size
    assert not same or not np.array_equal(other.images, first["train"].images)


@pytest.mark.parametrize(
    ("name", "share"),
    [("rare_1", 0.01), ("rare_01", 0.001), ("ring_rare_1", 0.01), ("ring_rare_01", 0.001)],
)
def test_a_rare_class_has_its_share_and_no_other_class_loses(name, share):
    source = CONDITIONS[name].source
    for split in ("train", "valid"):
        clean, bad = source.part(split), conditions.spoiled(name)[split]
        before, after = (np.bincount(x.labels, minlength=x.num_classes) for x in (clean, bad))
        rare = np.arange(len(before)) == source.rare
        np.testing.assert_array_equal(before[~rare], after[~rare])
        assert after[rare] == max(1, round(share * before[~rare].sum() / (1 - share)))
        assert abs(after[source.rare] - share * bad.size) < 1
        assert set(_rows(bad)) <= set(_rows(clean))


@pytest.mark.parametrize(
    ("name", "share"), [("noise_10", 0.1), ("noise_30", 0.3), ("ring_noise_10", 0.1)]
)
def test_noise_has_its_share_and_is_noise(name, share):
    clean, bad, images, labels = _changed(name)
    assert len(images) == pytest.approx(share * clean.size, abs=1)
    assert set(labels) <= set(images)
    noise = bad.images[images]
    side = 1.0 if CONDITIONS[name].source is DIGITS else corrupt.SQUARE
    assert noise.min() >= -side
    assert noise.max() <= side
    # A uniform variable has variance side²/3; of 17 equally far values it is 1.125 of that.
    var = (side**2 / 3) * (18 / 16 if CONDITIONS[name].source is DIGITS else 1)
    assert noise.var() == pytest.approx(var, rel=0.08)
    counts = np.bincount(bad.labels[images], minlength=clean.num_classes)
    assert counts.min() > 0.3 * len(images) / clean.num_classes
    for other in (conditions.spoiled(name)["valid"], conditions.spoiled(name, seed=1)["train"]):
        assert not set(_rows(other)) & set(_rows(bad.take(images))), "two draws are one"


def test_labels_are_wrong_in_their_share_and_images_stay():
    clean, bad, images, labels = _changed("labels_10")
    assert not len(images)
    assert len(labels) == round(0.1 * clean.size)
    steps = (bad.labels - clean.labels)[labels] % clean.num_classes
    assert set(steps) == set(range(1, 10)), "some wrong label is never given"


@pytest.mark.parametrize(("name", "n", "valid"), [("few_200", 200, 80), ("few_50", 50, 20)])
def test_few_images_of_every_class(name, n, valid):
    parts = conditions.spoiled(name)
    assert (parts["train"].size, parts["valid"].size) == (n, valid)
    for split, size in (("train", n), ("valid", valid)):
        assert set(np.bincount(parts[split].labels, minlength=10)) == {size // 10}
        rows = _rows(parts[split])
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(_rows(DIGITS.part(split)))
    assert conditions.settings(name).train.batch <= n


def test_half_are_copies_of_five():
    _, bad, _, _ = _changed("duplicated")
    _, first, counts = np.unique(_rows(bad), return_index=True, return_counts=True)
    copied = counts > 2
    assert copied.sum() == corrupt.COPIED
    assert (counts[copied] - 1).sum() == bad.size // 2
    assert np.ptp(counts[copied]) <= 1
    for row in first[copied]:
        own = (bad.images == bad.images[row]).reshape(bad.size, -1).all(axis=1)
        assert len(set(bad.labels[own])) == 1, "a copy lost its label"


@pytest.mark.parametrize(("name", "factor"), [("outliers", -1.0), ("ring_outliers", corrupt.FAR)])
def test_outliers_have_their_share_and_are_far(name, factor):
    clean, bad, images, labels = _changed(name)
    assert len(images) == round(0.05 * clean.size)
    assert not len(labels)
    np.testing.assert_allclose(bad.images[images], factor * clean.images[images])


def test_settings_of_conditions():
    plain = conditions.settings("clean")
    assert plain.data.name == "digits"
    fast, weak = conditions.settings("rate_x10"), conditions.settings("critic_weak")
    assert fast.critic.lr == pytest.approx(10 * plain.critic.lr)
    assert fast.generator.lr == pytest.approx(10 * plain.generator.lr)
    for name in variants.CONTROLS:
        control, usual = (config.control_of(variants.applied(cfg, name)) for cfg in (fast, plain))
        assert control.critic.lr == pytest.approx(10 * usual.critic.lr)
        assert control.generator.lr == pytest.approx(10 * usual.generator.lr)
    assert (weak.model.critic_ch, weak.critic.steps) == (6, 1)
    # Two that share a base have its data and model; all else has a base of its own.
    for name, one in CONDITIONS.items():
        if one.base:
            here, there = conditions.settings(name), conditions.settings(one.base)
            assert here.data == there.data, name
            assert here.model == there.model, name
    with pytest.raises(errors.ConfigError, match="Did you mean 'noise_10'"):
        conditions.get("noise_1")


def test_variants_that_shift_or_cut_are_for_images():
    assert variants.fits("clean", "augment")
    assert not variants.fits("ring_clean", "augment")
    assert variants.fits("ring_clean", "lecam")
    assert variants.fits("ring_clean", "hinge")


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_variant_of_every_condition_is_a_valid_configuration(name):
    plan = runs.Plan(Path("w"), (0.2, 5.0), (0,))
    with conditions.registered(tuple(CONDITIONS)):
        for variant in (*variants.VARIANTS, *variants.CONTROLS):
            cfg = variants.applied(runs.settings(plan, name, (0,)), variant)
            config.validate(cfg)
            assert (cfg.lams == ()) == (variant in variants.CONTROLS) == cfg.control
    for variant, knobs in variants.VARIANTS.items():
        changed = conditions.changed(conditions.settings(name), knobs)
        assert (changed == conditions.settings(name)) == (variant == "default")
    with pytest.raises(errors.ConfigError, match="unknown variant"):
        variants.applied(conditions.settings(name), "nothing")


def test_sources_are_registered_for_a_while():
    before = dict(data.SOURCES)
    with conditions.registered(tuple(CONDITIONS)):
        found = data.load("digits+rare_01", "train")
        assert np.sum(found.labels == DIGITS.rare) == 1
        ring = data.load("ring8+ring_noise_10", "test", fractions=(0.8, 0.1, 0.1))
        np.testing.assert_array_equal(ring.images, RING.part("test").images)
    assert before == data.SOURCES


# --- what is measured ---------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "noise"), [(DIGITS, 0.99), (RING, 0.85)])
def test_rules_know_odd_items_that_they_have_not_seen(source, noise):
    """Noise in the plane falls on the modes at times, so that its rule errs both ways."""
    by = measure.yardstick(source)
    assert by.noise.on_clean < (0.001 if source is DIGITS else 0.05)
    assert by.noise.on_odd > noise
    assert by.outlier.on_clean < 0.02
    assert by.outlier.on_odd > 0.98
    fresh = corrupt.noise_items(by.test, 300, np.random.default_rng(5))
    mixed = np.concatenate([fresh, by.test.images[:100]])
    assert by.noise.share(mixed) == pytest.approx(0.75 * by.noise.on_odd, abs=0.05)
    assert by.accuracy > 0.95
    asked = by.test.labels == source.rare
    assert (by.classify(by.test.images[asked]) == source.rare).mean() > 0.9


def test_numbers_of_classes_are_those_of_the_class_alone():
    """Good samples of all classes but one, which repeats a single image."""
    test = DIGITS.part("test")
    items, asked = DIGITS.part("train").images, DIGITS.part("train").labels
    items = items.copy()
    items[asked == 3] = items[asked == 3][0]
    precision, recall = measure.by_class(test, items, asked, 1)
    assert recall[3] < 0.05
    assert min(recall[:3] + recall[4:]) > 0.5
    assert precision[3] in (0.0, 1.0)
    # A class of three images has no third neighbour.
    few = test.take(np.flatnonzero((test.labels != 3) | (np.cumsum(test.labels == 3) <= 3)))
    precision, recall = measure.by_class(few, items, asked, 1)
    assert math.isnan(precision[3])
    assert math.isnan(recall[3])


def test_samples_are_read_and_judged(tmp_path):
    test = DIGITS.part("test")
    noise = corrupt.noise_items(test, test.size, np.random.default_rng(3))
    items = np.where((test.labels == DIGITS.rare)[:, None, None, None], noise, test.images)
    x = np.rint((items + 1) * 127.5).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=x, labels=test.labels)
    found = measure.samples(tmp_path / "a.npz", DIGITS, 1)
    share = np.mean(test.labels == DIGITS.rare)
    assert found["noise_share"] == pytest.approx(share, abs=0.02)
    assert found["outlier_share"] < 0.1
    assert found["rare_recall"] == found["worst_recall"] == found["class_recall"][DIGITS.rare] == 0
    assert found["rare_precision"] < 0.1
    assert min(np.delete(found["class_recall"], DIGITS.rare)) > 0.99


LINES = [
    {"step": 5, "run": "lam_1-seed0", "heldout_calibration_error": 0.3, "recall_proxy": 0.6},
    {"step": 6, "run": "lam_1-seed0", "alarm": "blind", "severity": "warning"},
    {"step": 7, "run": "lam_1-seed0", "rollback": 5, "severity": "none"},
    {"step": 9, "run": "lam_1-seed0", "heldout_calibration_error": 0.2, "recall_proxy": 0.3},
    {"step": 9, "run": "lam_1-seed1", "alarm": "collapsed", "severity": "fatal"},
    {"step": 9, "run": "lam_1-seed1", "rollback": 5},
    {"step": 9, "run": "lam_1-seed1", "rollback": 5},
    {"step": 9, "run": "lam_2-seed0", "recall_proxy": 0.6},
    {"step": 10, "run": "lam_2-seed0", "recall_proxy": 0.1},
]


def test_records_are_read():
    found = measure.logged(LINES, "lam_1-seed0")
    assert found == {"fatal": [], "rollbacks": 1, "calibration_error": 0.2}
    found = measure.logged(LINES, "lam_1-seed1")
    assert found == {"fatal": ["collapsed"], "rollbacks": 2, "calibration_error": None}
    assert measure.collapsed({"fatal": [], "recall": 0.19}, 0.6)
    assert not measure.collapsed({"fatal": [], "recall": 0.21}, 0.6)
    assert not measure.collapsed({"fatal": [], "recall": 0.0}, None)
    assert not measure.collapsed({"fatal": [], "recall": 0.0}, 0.04)  # there was nothing to lose
    assert measure.collapsed({"fatal": ["exploding"], "recall": 0.9}, 0.6)


def test_short_fine_tunes_are_counted():
    found = [short.outcome(LINES, lam, seed) for lam, seed in ((1.0, 0), (1.0, 1), (2.0, 0))]
    found.append(short.outcome(LINES, 3.0, 0, "not finite"))
    assert [one.collapsed for one in found] == [False, True, True, False]
    assert found[2].kept == pytest.approx(1 / 6)
    counts = short.counted(found)
    assert [counts[what][0] for what in counts] == [2, 1, 2, 4]
    assert counts["went back"][:2] == (2, 4)
    # Wilson's interval of 2 in 4: (.5 ± z²/8 …) by hand with z = 1.96.
    assert counts["collapsed"][2:] == pytest.approx((0.150, 0.850), abs=1e-3)
    assert "λ = 3, seed 0: not finite" in short_finetunes.text("default", found)
    lams = short.grid(25)
    assert (lams[0], lams[-1], len(set(lams))) == (0.05, 50.0, 25)
    ratios = np.diff(np.log(lams))
    assert np.ptp(ratios) < 1e-2


# --- tables -------------------------------------------------------------------------------------


def _row(variant, lam, seed, precision=0.8, recall=0.5, **more):
    name = "base" if variant == "base" else "control" if lam is None else prpr_run.lam_name(lam)
    about = {"condition": "rare_1", "variant": variant, "name": name, "lam": lam, "seed": seed}
    zeros = dict.fromkeys(table.COLUMNS, 0.0)
    plain = {**zeros, "precision": precision, "recall": recall, "rollbacks": 0, "fatal": []}
    return {**about, "error": None, **plain, **more}


ROWS = [
    _row("hinge", None, 0),
    _row("default", 5.0, 0, 0.9, 0.3, rare_recall=0.25),
    _row("default", 5.0, 1, 0.8, 0.1, rare_recall=0.75, rollbacks=3),
    _row("default", 1.0, 0, 0.7, 0.4, fatal=["exploding"]),
    _row("default", 0.2, 0, 0.6, 0.4, calibration_error=None),
    _row("clip", 5.0, 0),
    _row("base", None, 1),
    _row("base", None, 0, recall=0.6),
    runs.failed_row("rare_1", "default", 1.0, 1, "not finite"),
]


def test_rows_become_lines():
    lines = table.lines(ROWS)
    labels = ["base", "λ = 0.2", "λ = 1", "λ = 5", "λ = 5, clip", "hinge"]
    assert [line.label for line in lines] == labels
    one = dict(zip(labels, lines, strict=True))
    five = one["λ = 5"]
    assert five.cells["precision"].mean == pytest.approx(0.85)
    assert five.cells["precision"].sd == pytest.approx(0.1 / math.sqrt(2))
    assert five.cells["rare_recall"].text() == "0.500 ± 0.354"
    # Seed 0 has half of its base's recall left, seed 1 a fifth.
    assert (five.runs, five.failed, five.collapsed, five.rollbacks) == (2, 0, 1, 3)
    assert one["λ = 1"][4:] == (2, 1, 1, 0)
    assert one["λ = 1"].cells["recall"] == (0.4, pytest.approx(math.nan, nan_ok=True), 1)
    assert one["λ = 0.2"].cells["calibration_error"].text() == "–"


def test_correlations_of_lambda():
    """Of seed 0 precision rises with λ; recall is .4, .4, .3: ranks 2.5, 2.5, 1."""
    (found,) = table.correlations(ROWS)
    assert (found["condition"], found["variant"], found["seed"]) == ("rare_1", "default", 0)
    assert found["precision"] == pytest.approx(1.0)
    assert found["recall"] == pytest.approx(-math.sqrt(3) / 2)
    flat = [_row("default", lam, 0, recall=0.5, precision=lam) for lam in (0.1, 0.2, 0.3)]
    assert math.isnan(table.correlations(flat)[0]["recall"])
    # Seeds together: precision .1, .2, .3 and .3, .2, .1 have nothing to do with λ.
    turned = [_row("default", lam, 1, precision=0.4 - lam) for lam in (0.1, 0.2, 0.3)]
    found = table.correlations([*flat, *turned])
    assert [one["seed"] for one in found] == [0, 1, None]
    assert [one["precision"] for one in found] == pytest.approx([1.0, -1.0, 0.0])


def test_what_a_variant_changes(tmp_path):
    """Pairs are of the same λ and seed; what one side lacks, or failed, is no pair."""
    more = [
        _row("clip", 5.0, 1, 0.9, 0.5, fatal=["exploding"], calibration_error=None),
        _row("clip", 1.0, 1),  # the default failed there
        _row("clip", 20.0, 0),  # and was not run here
    ]
    (found,) = table.effects([*ROWS, *more])
    assert (found.condition, found.variant, found.runs) == ("rare_1", "clip", 2)
    assert found.cells["precision"].mean == pytest.approx((0.8 - 0.9 + 0.9 - 0.8) / 2)
    assert found.cells["recall"].mean == pytest.approx((0.5 - 0.3 + 0.5 - 0.1) / 2)
    assert found.cells["calibration_error"].n == 1
    assert found.collapsed == (1, 1)  # seed 1: an alarm, and a sixth of the base's recall
    page = table.markdown([*ROWS, *more], {})
    assert "| rare_1 | clip | +0.000 ± 0.141 | +0.300 ± 0.141 |" in page
    drawn = figure.changes([found])
    assert [text.get_text() for text in drawn.axes[1].texts] == ["+.30"]
    (path,) = plotting.save(drawn, tmp_path / "a", formats=("png",))
    assert path.stat().st_size > 10_000


def test_page_and_figure(tmp_path):
    page = table.markdown(ROWS, {"digits": "the rule finds .99 of the noise."})
    assert "the rule finds .99 of the noise." in page
    assert "| λ = 5 | 0.850 ± 0.071 | 0.200 ± 0.141 |" in page
    assert "| default, seed 0 | +1.00 | -0.87 | – |" in page
    assert "- rare_1, default, lam_1, seed 1: not finite" in page
    drawn = figure.heat_map(table.lines(ROWS))
    recall = drawn.axes[1]
    assert [text.get_text() for text in recall.get_xticklabels()] == [
        "base",
        "0.2",
        "1",
        "5",
        "hinge",
    ]
    assert [text.get_text() for text in recall.texts] == [".55", ".40", ".40", ".20", ".50"]
    lost = [text.get_text() for text in drawn.axes[4].texts]
    assert lost == [".00", ".00", "1", ".50", ".00"]
    other = figure.heat_map(table.lines(ROWS), "clip")
    assert [text.get_text() for text in other.axes[0].get_xticklabels()] == ["base", "5", "hinge"]
    (path,) = plotting.save(drawn, tmp_path / "a", formats=("png",))
    assert path.stat().st_size > 10_000


# --- runs that fail -----------------------------------------------------------------------------


def _summary(seeds, lams):
    metrics = {m: {"value": 0.5, "low": 0.4, "high": 0.6} for m in ("precision", "recall")}
    rows = [{"name": "real", "lam": None, "seed": None}]
    rows += [{"name": "base", "lam": None, "seed": seed} for seed in seeds]
    rows += [
        {"name": prpr_run.lam_name(lam), "lam": lam, "seed": seed} for seed in seeds for lam in lams
    ]
    return {"rows": [{**row, "metrics": metrics} for row in rows]}


@pytest.mark.parametrize("end", [errors.PrprError("no longer\nfinite"), SystemExit(3)])
def test_a_run_that_fails_is_a_row_and_others_go_on(tmp_path, monkeypatch, end):
    calls = []

    def finetune(cfg, folder):
        calls.append((cfg.seeds, cfg.lams))
        if 1 in cfg.seeds and 5.0 in cfg.lams:
            raise end
        print("what a run prints")
        return _summary(cfg.seeds, cfg.lams)

    monkeypatch.setattr(prpr_run, "finetune", finetune)
    monkeypatch.setattr(record, "read_metrics", lambda _: [])
    monkeypatch.setattr(measure, "samples", lambda path, *_: {"file": path.name})
    plan = runs.Plan(tmp_path, (0.2, 1.0, 5.0), (0, 1, 2))
    rows = runs.make_variant(plan, "rare_1", "default", plan.seeds)
    at = {(row["seed"], row["lam"]): row for row in rows}
    assert len(rows) == len(at) == 9
    bad = at.pop((1, 5.0))
    assert bad["error"] == ("exit 3" if isinstance(end, SystemExit) else "no longer finite")
    assert (bad["condition"], bad["variant"], bad["name"]) == ("rare_1", "default", "lam_5")
    assert not any(row["error"] for row in at.values())
    assert at[1, 1.0]["file"] == "lam_1-seed1.npz"
    assert calls[0] == ((0, 1, 2), plan.lams)
    assert ((0,), plan.lams) in calls, "seeds without a fault are made together"


def test_runs_that_were_given_up_are_rows_and_nothing_is_tried_again(tmp_path, monkeypatch):
    """All others are in summary.json by then."""
    calls = []

    def finetune(cfg, folder):
        calls.append(cfg.lams)
        summary = _summary(cfg.seeds, cfg.lams)
        summary["rows"] = [row for row in summary["rows"] if (row["seed"], row["lam"]) != (1, 5.0)]
        record.write_bytes(folder / "a", b"")
        record.write_json(folder / "summary.json", summary)
        raise errors.GivenUp("given up")

    monkeypatch.setattr(prpr_run, "finetune", finetune)
    monkeypatch.setattr(record, "read_metrics", lambda _: [])
    monkeypatch.setattr(measure, "samples", lambda *_: {})
    alarm = health.Alarm("collapsed", "fatal", 9, {}, "found", "means", "advice")
    folder = tmp_path / "runs" / "clean" / "default" / "checkpoints" / "lam_5-seed1"
    recovery.write(folder, [recovery.Fall((alarm,), 5, 0.5)] * 4, {})
    plan = runs.Plan(tmp_path, (0.2, 5.0), (0, 1))
    rows = runs.make_variant(plan, "clean", "default", plan.seeds)
    assert calls == [plan.lams]
    assert [row["error"] for row in rows] == [
        *(None, None, None, "given up after 4 fatal alarms, the last time by collapsed")
    ]
    assert (rows[3]["name"], rows[3]["seed"]) == ("lam_5", 1)
    monkeypatch.setattr(runs, "base_folder", lambda *_: tmp_path)
    monkeypatch.setattr(runs, "fate", lambda *_: "given up")
    found = short.outcomes(plan, "default", plan.seeds)
    assert [one.error for one in found] == ["", "", "", "given up"]


def test_an_end_that_is_asked_for_is_no_failure(monkeypatch, tmp_path):
    def finetune(*_):
        raise errors.Preempted("saved")

    monkeypatch.setattr(prpr_run, "finetune", finetune)
    plan = runs.Plan(tmp_path, (0.2, 5.0), (0, 1))
    with pytest.raises(errors.Preempted):
        runs.make_variant(plan, "clean", "default", plan.seeds)


def test_command_without_bases_reports_the_failure(tmp_path, monkeypatch, capsys):
    """What was measured before stays in the result."""

    def train_base(*_):
        raise errors.PrprError("no memory")

    monkeypatch.setattr(prpr_run, "train_base", train_base)
    robustness.keep(tmp_path, ROWS)
    arguments = [f"--workdir={tmp_path}", "--conditions=noise_10", "--seeds=0,4"]
    assert robustness.main(arguments) == 0
    out = capsys.readouterr().out
    assert "- noise_10, base, base, seed 4: no memory" in out
    assert out == (tmp_path / "robustness.md").read_text() + "\n"
    assert "## rare_1" in out
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert figures == {"robustness.png", "robustness-clip.png", "variants.png"}
    assert len(robustness.stored(tmp_path)) == len(ROWS) + 2
    assert robustness.main([f"--workdir={tmp_path}", "--report_only"]) == 0
    assert robustness.main([f"--workdir={tmp_path / 'none'}", "--report_only"]) == 1
    assert "run it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--conditions=rare_2", "Did you mean 'rare_1'"),
        ("--variants=clp", "Did you mean 'clip'"),
        ("--seeds=a", "invalid literal"),
    ],
)
def test_command_refuses_what_it_cannot_do(flag, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        robustness.main([f"--workdir={tmp_path}", flag])
    assert words in capsys.readouterr().err
