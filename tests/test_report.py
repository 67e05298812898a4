"""The report: whole files, a page that stands alone, and sentences that are true of the numbers."""

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from prpr import (
    build,
    choosing,
    config,
    plotting,
    record,
    report,
    report_figures,
    report_sections,
    report_sheets,
    report_svg,
)
from prpr.errors import ConfigError, DataError, WorkdirError
from prpr.evaluate import page
from prpr.metrics import prdc

VOID = {"meta", "img", "br", "input"}
FIGURES = ("precision_recall", "samples", "training", "calibration", "health")


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """A third of the pixels each way: what is tested does not depend on them, the time does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plotting.STYLE, "savefig.dpi", 100)
        yield


# ---- synthetic records ------------------------------------------------------------------


def metric(value, spread=0.03):
    return {"value": value, "low": value - spread, "high": value + spread}


def row(name, lam, seed, precision, recall):
    values = {"precision": precision, "recall": recall, "density": 1.1, "coverage": 0.8}
    return {
        "name": name,
        "lam": lam,
        "seed": seed,
        "metrics": {key: metric(value) for key, value in values.items()},
    }


def summary(seeds=(0,), precisions=(0.6, 0.7, 0.85), recalls=(0.7, 0.6, 0.4)):
    # Not in the order of the table, which is the report's own business.
    rows = [
        row(f"lam_{lam:g}", lam, seed, p + 0.01 * seed, r - 0.02 * seed)
        for lam, p, r in reversed(list(zip((0.2, 1.0, 20.0), precisions, recalls, strict=True)))
        for seed in seeds
    ]
    rows += [row("control", None, seed, 0.66, 0.61) for seed in seeds]
    rows += [row("base", None, seed, 0.65, 0.6) for seed in seeds]
    rows.append(row("real", None, None, 0.95, 0.94))
    return {
        "rows": rows,
        "encoder": "classifier",
        "k": 3,
        "k_coverage": 5,
        "n_real": 200,
        "n_fake": 150,
        "split": "test",
        "level": 0.95,
        "seconds": 12.0,
    }


def lines(run, steps=12, **last):
    """Lines of metrics.jsonl of one run; `last` replaces values of its last held-out check."""
    out = []
    for step in range(1, steps + 1):
        wave = math.sin(step + len(run))
        line = {"critic_loss": 1 + wave, "log_r_data": wave, "log_r_samples": -wave}
        line |= {"normalisation": math.exp(wave), "finite": 1.0, "generator_loss": wave}
        out.append({"step": step, "run": run, "time": 0.1, "alpha": 0.5, **line})
    middle = [(i + 0.5) / 10 for i in range(10)]
    check = {
        "heldout_calibration_error": 0.05,
        "heldout_calibration_slope": 0.9,
        "heldout_auc": 0.8,
        "heldout_normalisation": 1.1,
        "heldout_inverse_normalisation": 0.9,
        "reliability_predicted": middle,
        "reliability_observed": middle,
        "reliability_mass": [0.5, *[0.0] * 8, 0.5],
    }
    out.append({"step": steps, "run": run, "time": 0.1, **check, **last})
    return out


def write(folder, results, metrics=(), samples="images", loss="hinge", name="digits"):
    folder.mkdir(parents=True, exist_ok=True)
    record.write_json(folder / "summary.json", results)
    config = {"name": name, "critic": {"loss": "logistic", "steps": 2}, "base": {"loss": loss}}
    record.write_json(folder / "config.json", config)
    environment = {
        "versions": {"jax": "0.10.2"},
        "platform": "Linux x86_64",
        "device": {"platform": "cpu", "kind": "cpu", "count": 2, "processes": 1},
        "git": "abc123+",
        "command": ["finetune_biggan.py", "--config.name=a b"],
        "started": "2026-01-01T00:00:00Z",
    }
    record.write_json(folder / "environment.json", environment)
    if metrics:
        text = "".join(json.dumps(record.to_plain(line)) + "\n" for line in metrics)
        (folder / "metrics.jsonl").write_text(text)
    rng = np.random.default_rng(0)
    for r in results["rows"] if samples else ():
        run = r["name"] if r["seed"] is None else f"{r['name']}-seed{r['seed']}"
        (folder / "samples").mkdir(exist_ok=True)
        arrays = (
            {"points": rng.normal(size=(50, 2)).astype(np.float32)}
            if samples == "points"
            else {"images": rng.integers(0, 255, (60, 8, 8, 1), np.uint8)}
        )
        n = len(next(iter(arrays.values())))
        np.savez(folder / "samples" / f"{run}.npz", labels=np.arange(n) % 10, **arrays)
    return folder


# ---- a page, parsed ---------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, text by tag, and whether every tag that opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.stack, self.text, self.table, self.headings = [], [], "", [], []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th"):
            self.table[-1].append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.text += data
        if self.stack and {"td", "th"} & set(self.stack):
            self.table[-1][-1] += data
        if self.stack and self.stack[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data


def parse(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    runs = ("control-seed0", "lam_0.2-seed0", "lam_1-seed0", "lam_20-seed0")
    metrics = [line for run in runs for line in lines(run)]
    folder = write(tmp_path_factory.mktemp("one") / "run", summary(), metrics)
    return report.make(folder)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three seeds, a name and settings that are markup, long curves, and what is not finite."""
    results = summary(seeds=(0, 1, 2))
    results["rows"].append(row("<b>odd", None, 0, 0.5, 0.5))
    metrics = [line for seed in (0, 1, 2) for line in lines(f"lam_0.2-seed{seed}", steps=90)]
    metrics += lines("lam_20-seed1", heldout_normalisation=math.inf, heldout_calibration_error=0.3)
    metrics[5]["normalisation"] = math.nan
    folder = tmp_path_factory.mktemp("three") / "run"
    write(folder, results, metrics, name='<script>alert("x")</script>')
    return report.make(folder)


# ---- files ------------------------------------------------------------------------------


def test_every_file_is_whole_and_no_draft_stays(one):
    folder = one.parent
    assert one == folder / "report.html"
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {f"{name}.png" for name in FIGURES}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    for name in names:
        with Image.open(folder / "figures" / name) as image:
            image.verify()
        with Image.open(folder / "figures" / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert 0.003 < (pixels.min(2) < 128).mean() < 0.9
        assert (pixels[:, -1] == 255).all()  # nothing is cut off on the right
        assert (pixels[0] == 255).all()


def test_the_same_records_give_the_same_bytes(one):
    files = [one, *sorted((one.parent / "figures").iterdir())]
    before = [path.read_bytes() for path in files]
    report.make(str(one.parent))
    assert [path.read_bytes() for path in files] == before


def test_the_page_stands_alone(one):
    text = one.read_text(encoding="utf-8")
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == tags.count("html") == tags.count("main") == 1
    assert not {"script", "link", "iframe", "object"} & set(tags)
    assert dict(page.tags)["html"]["lang"] == "en"
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"https?://|url\(|@import", text)
    for _, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes)
        assert attributes.get("href", "#").startswith("#")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3 + 2 * 6  # curves, calibration and health, two sheets of six rows
    for attributes in images:
        assert attributes["alt"]
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(data)) as image:
            shown = int(attributes["width"]), int(attributes["height"])
            if attributes.get("class") == "pixels":
                # Whole pixels of the screen for each of the image's.
                scale = shown[0] // image.width
                assert (image.width * scale, image.height * scale) == shown
            else:
                # Half the pixels: sharp on dense screens.
                assert (image.width // 2, image.height // 2) == shown


def test_the_page_has_every_row_precision_first(one):
    page = parse(one)
    names = [cells[0] for cells in page.table[:7]]
    assert names == ["name", "real", "base", "control", "lam_0.2", "lam_1", "lam_20"]
    assert page.table[0][2:] == ["precision", "recall", "density", "coverage"]
    assert page.table[4][1:4] == ["0.2", "0.600[0.570, 0.630]", "0.700[0.670, 0.730]"]
    assert "200 real × 150 generated" in page.text
    assert "One seed" in page.text
    for part in ("jax 0.10.2", "2 × cpu", "abc123+", "config.critic.steps", "12 s"):
        assert part in page.text
    assert "python experiments/finetune_biggan.py '--config.name=a b'" in page.text


def test_several_seeds_become_mean_and_spread(three):
    page = parse(three)
    cells = next(cells for cells in page.table if cells[0] == "lam_20")
    # 0.85, 0.86, 0.87 and 0.40, 0.38, 0.36
    assert cells[2:4] == ["0.860± 0.010", "0.380± 0.020"]
    assert next(c for c in page.table if c[0] == "real")[2] == "0.950[0.920, 0.980]"
    assert "Over 3 seeds" in page.text


def test_text_is_escaped(three):
    page = parse(three)
    tags = {tag for tag, _ in page.tags}
    assert not {"b", "script"} & tags
    assert "<b>odd" in [cells[0] for cells in page.table]
    assert page.headings[0].startswith('<script>alert("x")</script>')


# ---- what it says -----------------------------------------------------------------------


def say(**changes):
    return report.headline(report.groups(record.to_plain(summary(**changes))))


def test_the_headline_of_an_ordered_run():
    said = say()
    assert "From λ = 0.2 to λ = 20, precision rises from 0.600 to 0.850" in said
    assert "recall falls from 0.700 to 0.400" in said
    assert "with the base's own loss: precision 0.660, recall 0.610" in said
    assert "overlap" not in said
    assert "Not at every step" not in said


def test_the_headline_of_an_inverted_run():
    said = say(precisions=(0.85, 0.7, 0.6), recalls=(0.4, 0.6, 0.7))
    assert "precision does not rise: it goes down from 0.850 to 0.600" in said
    assert "recall does not fall: it goes up from 0.400 to 0.700" in said
    assert "Not at every step" not in said


def test_the_headline_of_a_run_in_which_nothing_moves():
    said = say(precisions=(0.6, 0.9, 0.6), recalls=(0.5, 0.48, 0.46))
    assert "precision does not rise: it stays at 0.600" in said
    assert "recall falls from 0.500 to 0.460 (the two intervals overlap)" in said
    assert "Not at every step: precision drops 0.300 from λ = 1 to λ = 20" in said


def test_the_headline_without_values_or_without_lam():
    assert "precision has no value at both ends" in say(precisions=(math.nan, 0.7, 0.8))
    few = summary()
    few["rows"] = [r for r in few["rows"] if r["name"] in ("real", "base")]
    assert report.headline(report.groups(few)) == "Base: precision 0.650, recall 0.600."
    few["rows"] = [row("lam_1", 1.0, 0, 0.5, 0.4)]
    assert report.headline(report.groups(few)) == "At λ = 1: precision 0.500, recall 0.400."
    assert "No generator" in report.headline([])


def test_the_trend_is_spearmans_over_all_runs():
    # Ranks of λ 1, 2, 3; of precision 1, 2, 3; of recall 3, 1, 2: 1 − 6·(4 + 1 + 1)/(3·8) = −½.
    lines = report.trend(summary(precisions=(0.6, 0.7, 0.85), recalls=(0.7, 0.4, 0.5)))
    assert lines == ["Spearman of λ with precision +1.00, with recall −0.50 (over 3 runs)"]
    assert report.table(summary()).splitlines()[-1].startswith("Spearman")
    alone = summary()
    alone["rows"] = [row for row in alone["rows"] if row["lam"] in (None, 1.0)]
    assert report.trend(alone) == []


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_table_is_aligned(seeds):
    results = summary(seeds=seeds)
    results["rows"].append(row("a-name-that-is-much-too-long-for-its-column", None, 0, 0.5, 0.5))
    text = report.table(results)
    body = text.splitlines()
    assert all(len(line) <= report.WIDTH for line in body)
    assert "encoder classifier, k = 3" in body[0]
    assert "95 %" in body[1]
    head = next(line for line in body if line.startswith("name"))
    assert re.split(r"\s+", head) == ["name", "λ", "precision", "recall", "density", "coverage"]
    start = head.index("recall")
    rows = body[body.index(head) + 2 : -2]  # a rule and the trend follow
    assert [line.split()[0] for line in rows][:3] == ["real", "base", "control"]
    assert [line.split()[0] for line in rows][-3:] == ["lam_0.2", "lam_1", "lam_20"]
    assert all(re.match(r"\d\.\d{3} [\[±]", line[start:]) for line in rows)


# ---- warnings ---------------------------------------------------------------------------


def test_a_run_within_bounds_has_no_warnings(one):
    page = parse(one)
    assert "None: every run's last held-out checks are within their bounds." in page.text
    assert "see the warnings" not in page.text
    # The hinge loss of the control determines no ratio.
    assert "leave out control" in page.text


def test_an_estimate_that_is_off_is_shown(three):
    page = parse(three)
    assert "2 checks are off: see the warnings." in page.text
    assert "λ = 20: inf" in page.text
    assert "λ = 20: 0.3" in page.text
    assert "What to try: " in page.text


def test_what_rang_and_what_was_done_is_told(one, tmp_path):
    assert "No alarm rang while the runs of this page were trained." in parse(one).text
    fell = {"rollback": 1, "because": "collapsed", "at": 9, "rate": 0.5}
    events = [
        {"step": 4, "run": "lam_20-seed0", **fell},
        {"step": 7, "run": "lam_1-seed0", "alarm": "blind", "severity": "warning"},
        {"step": 11, "run": "lam_1-seed0", "alarm": "blind", "severity": "warning"},
        {"step": 9, "run": "lam_5-seed0", "given_up": "not_finite"},  # it has no row
    ]
    runs = ("lam_1-seed0", "lam_20-seed0")
    metrics = [line for run in runs for line in lines(run)] + events
    page = parse(report.make(write(tmp_path / "run", summary(), metrics)))
    for said in (
        "lam_20-seed0: went back to step 4 after collapsed at step 9, with rates x 0.5 (attempt",
        "lam_5-seed0: was given up after not_finite at step 9; it is not scored",
        "lam_1-seed0: warning: blind at step 7, 11.",
    ):
        assert said in " ".join(page.text.split())
    made = [report_figures.Run("lam_20", 20.0, 0, [*lines("lam_20-seed0"), events[0]], True)]
    figure = report_figures.health(made, report_figures.Colors((20.0,)))
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in marks] == [[4.0]]
    assert report_figures.health([made[0]._replace(lines=[])], report_figures.Colors(())) is None


def test_checks_look_at_the_last_value_and_at_ratios_only():
    def run(ratio=True, **last):
        return report_figures.Run("lam_1", 1.0, 0, lines("lam_1-seed0", **last), ratio)

    def keys(*runs):
        return [failed.check.key for failed in report.warnings(runs)]

    assert keys(run()) == []
    assert keys(run(heldout_calibration_slope=0.4)) == ["heldout_calibration_slope"]
    assert keys(run(heldout_normalisation=math.nan)) == ["heldout_normalisation"]
    assert keys(run(ratio=False, heldout_normalisation=9.0)) == []
    assert keys(run(ratio=False, finite=0.0)) == ["finite"]
    mended = run()
    mended.lines[0]["heldout_normalisation"] = 9.0
    assert keys(mended) == []


def test_every_mend_names_real_knobs():
    from prpr import config

    known = set(re.findall(r"^([\w.]+) = ", config.describe(), re.MULTILINE))
    named = {
        knob for check in report.CHECKS for knob in re.findall(r"config\.([\w.]*\w)", check.mend)
    }
    assert named
    assert named <= known


# ---- what is missing --------------------------------------------------------------------


def test_missing_parts_cost_their_section_only(tmp_path):
    folder = write(tmp_path / "bare", summary(), samples=None)
    (folder / "config.json").unlink()
    (folder / "environment.json").unlink()
    (folder / "figures").mkdir()
    (folder / "figures" / "training.png").write_bytes(b"of an earlier run")
    page = parse(report.make(folder))
    assert [path.name for path in (folder / "figures").iterdir()] == ["precision_recall.png"]
    for part in (
        "no samples are stored",
        "λ = 1: samples/lam_1-seed0.npz is not there",
        "no training curves in metrics.jsonl",
        "no reliability curves in metrics.jsonl",
        "config.json is not there",
        "environment.json is not there",
        "No held-out check of the critic is recorded",
        "nothing in metrics.jsonl",
    ):
        assert part in page.text
    assert page.headings[0].startswith("bare")


def test_some_samples_missing_or_damaged_and_a_run_of_one_line(tmp_path):
    short = [{"step": 1, "run": "lam_1-seed0", "time": 0.1, "critic_loss": 1.0}]
    folder = write(tmp_path, summary(), short, samples="points")
    (folder / "samples" / "lam_1-seed0.npz").unlink()
    (folder / "samples" / "base-seed0.npz").write_bytes(b"PK\x03\x04 half")
    page = parse(report.make(folder))
    assert "samples/lam_1-seed0.npz is not there" in page.text
    assert "samples/base-seed0.npz cannot be read" in page.text
    assert "Grey dots are real data" in page.text
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"precision_recall.png", "samples.png", "training.png"}


def test_no_summary(tmp_path):
    with pytest.raises(DataError, match=r"summary\.json.*name the workdir of a finished run"):
        report.make(tmp_path)
    with pytest.raises(WorkdirError, match="not a directory"):
        report.make(tmp_path / "nowhere")
    (tmp_path / "summary.json").write_text('{"rows": [')
    with pytest.raises(DataError, match="damaged"):
        report.make(tmp_path)
    record.write_json(tmp_path / "summary.json", {"rows": [{"name": "base"}]})
    with pytest.raises(DataError, match="lam"):
        report.make(tmp_path)
    assert not (tmp_path / "report.html").exists()


# ---- figures ----------------------------------------------------------------------------


def test_labels_of_points_do_not_collide():
    lams = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
    rows = [
        row(f"lam_{lam:g}", lam, 0, 0.7 + 0.01 * i, 0.6 - 0.01 * i) for i, lam in enumerate(lams)
    ]
    rows += [row("base", None, 0, 0.715, 0.59), row("control", None, 0, 0.72, 0.585)]
    groups = report.groups({"rows": rows})
    fig = report_figures.precision_recall(groups, report_figures.Colors(lams))
    assert fig is not None
    (ax,) = fig.axes
    assert (ax.get_xlabel()[:6], ax.get_ylabel()[:9]) == ("recall", "precision")
    fig.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without leader lines
    assert {text.get_text() for text in ax.texts} == {group.label for group in groups}
    for i, box in enumerate(boxes):
        assert ax.bbox.x0 <= box.x0
        assert box.x1 <= ax.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_a_column_of_a_sheet_is_a_class():
    labels = np.array([2, 0, 1, 2, 0, 1, 0, 0])
    images = np.broadcast_to(labels[:, None, None, None] * 40, (8, 4, 4, 1)).astype(np.uint8)
    sheet = report_figures.sheet(report_figures.Samples(images, labels))
    cells = sheet[2::5, 2::5, 0]
    # Three columns a class; class 0 has four images, the others two; the rest is blank.
    assert cells[0].tolist() == [0, 0, 0, 40, 40, 255, 80, 80, 255]
    assert cells[1].tolist() == [0, *[255] * 8]


def test_colors_are_ordered_in_lightness_and_near_for_near_lams():
    colors = report_figures.Colors((0.2, 1.0, 5.0))
    assert sum(colors("", 0.2)) < sum(colors("", 1.0)) < sum(colors("", 5.0))
    near = report_figures.Colors((1.0, 1.1))
    assert np.abs(np.subtract(near("", 1.0), near("", 1.1))).max() < 0.1


# ---- the plane and its explorer ---------------------------------------------------------


def marks(lams, step=0.01):
    rows = [
        row(f"lam_{lam:g}", lam, 0, 0.7 + step * i, 0.6 - step * i) for i, lam in enumerate(lams)
    ]
    rows += [row("base", None, 0, 0.715, 0.59), row("control", None, 0, 0.72, 0.585)]
    shapes = {"base": "diamond", "control": "square"}
    return [
        report_svg.Mark(
            g.label,
            shapes.get(g.name, "circle"),
            "#123456",
            g.metrics["precision"],
            g.metrics["recall"],
            g.lam is not None,
        )
        for g in report.groups({"rows": rows})
    ]


def test_the_plane_has_recall_to_the_right_and_precision_upwards():
    found = marks((0.2, 20.0))
    plane = report_svg.plane(found, [report_svg.Bound("precision", True, 0.705)], "alt <text>")
    by_label = {mark.label: place for mark, place in zip(found, plane.places, strict=True)}
    (x_low, y_low), (x_high, y_high) = by_label["λ = 0.2"], by_label["λ = 20"]
    assert x_high < x_low
    assert y_high < y_low
    assert all(0 < share < 1 for place in plane.places for share in place)
    svg = Page(plane.svg)
    shapes = [tag for tag, attributes in svg.tags if attributes.get("class") == "dot"]
    assert sorted(shapes) == ["circle", "circle", "polygon", "polygon"]
    assert svg.tags[0] == (
        "svg",
        {"viewbox": "0 0 400 350", "role": "img", "aria-label": "alt <text>"},
    )
    assert "wish: precision ≥ 0.705" in svg.text
    # The line of the bound lies between the two λ.
    bound = next(a for _, a in svg.tags if a.get("class") == "bound")
    height = float(re.search(r"M52 ([\d.]+)L", bound["d"])[1]) / report_svg.HEIGHT
    assert y_high < height < y_low


@pytest.mark.parametrize("step", [0.01, 0.001])
def test_labels_of_the_plane_do_not_collide(step):
    found = marks((0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0), step)
    svg = report_svg.plane(found, [report_svg.Bound("precision", True, 0.7)], "").svg
    boxes = []
    for x, y, text in re.findall(r'class="\w+" x="([\d.]+)" y="([\d.]+)">([λbcw][^<]*)<', svg):
        boxes.append((float(x), float(y) - 11, float(x) + 7 * len(text), float(y)))
    assert len(boxes) == len(found) + 1
    for i, a in enumerate(boxes):
        assert a[2] <= report_svg.WIDTH
        assert not any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i]
        )


def test_every_mark_has_a_button_and_a_panel_with_its_numbers(one):
    text = one.read_text(encoding="utf-8")
    page = Page(text)
    inputs = [a for tag, a in page.tags if tag == "input"]
    assert [a["id"] for a in inputs] == [f"pick-{i}" for i in range(6)]
    assert {(a["type"], a["name"]) for a in inputs} == {("radio", "pick")}
    assert [a["id"] for a in inputs if "checked" in a] == ["pick-5"]  # the largest λ
    targets = [a["for"] for tag, a in page.tags if tag == "label"]
    assert sorted(targets) == sorted(2 * [a["id"] for a in inputs])
    panels = re.findall(
        r'<div class="panel panel-\d">(.*?)</div>(?=<div class="panel|</div>)', text
    )
    assert len(panels) == 6
    assert "λ = 20" in panels[5]
    assert "0.850 <small>[0.820, 0.880]" in panels[5]
    assert all("<img" in panel for panel in panels)
    for i in range(6):
        assert f".pick-{i}:checked ~ .panels > .panel-{i} {{ display: block; }}" in text
        assert f".explorer:has(.at-{i}:hover) > .panels > .panel-{i} {{ display: block; }}" in text


# ---- sheets -----------------------------------------------------------------------------


def pixels_of(html):
    source = re.search(r"data:image/png;base64,([^\"]*)", html)[1]
    with Image.open(io.BytesIO(base64.b64decode(source))) as image:
        return np.asarray(image)


def sheets_of(labels, *, other=None, shape=(4, 4, 1)):
    rows = [row(f"lam_{lam:g}", lam, 0, 0.5, 0.5) for lam in (1.0, 2.0)]
    groups = report.groups({"rows": rows})
    index = np.arange(len(labels)).reshape(-1, 1, 1, 1)
    stored = {
        # A sample's value says which input it was made of, and by which generator.
        g.name: report_figures.Samples(
            np.broadcast_to(index * 5 + i, (len(labels), *shape)).astype(np.uint8),
            np.asarray(other if i and other is not None else labels),
        )
        for i, g in enumerate(groups)
    }
    return report_sheets.sheets(groups, stored, {})


def test_the_same_place_of_two_sheets_is_the_same_input():
    labels = np.array([2, 0, 1, 2, 0, 1, 0, 0, 1, 2] * 4)
    found = sheets_of(labels)
    assert found.alike
    a, b = (pixels_of(found.whole[name])[2::5, 2::5].astype(int) for name in ("lam_1", "lam_2"))
    assert a.shape == (4, 9)
    filled = a != 255
    assert filled.sum() == 36
    assert (b[filled] - a[filled] == 1).all()
    # Columns are classes: three of each.
    assert (labels[a[filled] // 5].reshape(4, 9) == np.repeat([0, 1, 2], 3)).all()
    assert not sheets_of(labels, other=labels[::-1]).alike


def test_large_images_are_shown_smaller():
    found = sheets_of(np.zeros(12, np.int32), shape=(256, 256, 3))
    whole, short = (pixels_of(each["lam_1"]) for each in (found.whole, found.short))
    assert whole.shape[1] == short.shape[1] == 6 * 136 - 8
    assert whole.shape[0] == 2 * 136 - 8
    assert short.shape[0] == 128


def test_points_lie_over_the_real_ones_which_are_drawn_once(tmp_path):
    folder = write(tmp_path, summary(), samples="points")
    text = report.make(folder).read_text(encoding="utf-8")
    assert text.count('id="real-points"') == 1
    # Each row with a sheet and a panel, real data included.
    assert text.count('<use href="#real-points"/>') == 12
    assert text.count('class="cloud"') == 12
    assert "50 points: λ = 20, over real data in grey" in text


# ---- a goal, classes, training images ---------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A workdir with samples of real digits; λ = 20 has one 8 alone, and a training image."""
    folder = write(tmp_path_factory.mktemp("digits") / "run", summary(), samples=None)
    cfg = config.defaults()
    cfg.data.name, cfg.name, cfg.score.encoder = "digits", "digits", "pixels"
    cfg.data.path = "/a/secret/place"
    record.write_json(folder / "config.json", record.to_plain(cfg))
    results = summary() | {"encoder": "pixels", "n_real": 120, "n_fake": 120}
    record.write_json(folder / "summary.json", results)
    environment = record.read_json(folder / "environment.json")
    environment["command"].append("--workdir=/a/secret/place/run")
    record.write_json(folder / "environment.json", environment)
    parts, rng = build.splits(cfg), np.random.default_rng(0)
    (folder / "samples").mkdir()

    def chosen(part, shift=0):
        rows = [np.flatnonzero(part.labels == c)[shift : shift + 12] for c in range(10)]
        taken = part.take(np.sort(np.concatenate(rows)))
        order = np.argsort(taken.labels, kind="stable")
        return np.rint((taken.images[order] + 1) * 127.5), taken.labels[order]

    def store(run, images, labels):
        images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
        np.savez(folder / "samples" / f"{run}.npz", images=images, labels=labels)

    store("real", *chosen(parts.test))
    train, labels = chosen(parts.train)
    for name, noise in (("base", 60), ("control", 20), ("lam_0.2", 25), ("lam_1", 18)):
        store(f"{name}-seed0", train + rng.normal(0, noise, train.shape), labels)
    alone = np.where((labels == 8)[:, None, None, None], train[labels == 8][:1], train)
    alone += rng.normal(0, 9, train.shape)
    alone[7] = train[7]
    store("lam_20-seed0", alone, labels)
    return folder


@pytest.fixture(scope="module")
def decided(digits):
    return page.make(digits, "precision >= 0.8", "recall >= .3", digits / "sent.html")


def test_the_goal_says_what_choosing_says(digits, decided):
    found = parse(decided)
    answer = choosing.choose(choosing.read([digits]), "precision >= 0.8")
    assert (answer.verdict, answer.lam) == ("promised", 20.0)
    assert "Precision at least 0.8; beyond that as much recall as possible." in found.text
    said = choosing.to_text(answer).split("\n\n")[1].replace("\n", " ")
    assert said in found.text
    assert "✓ promised" in found.text
    assert "wish: precision ≥ 0.8" in found.text
    given_up = answer.given_up["recall"]
    assert (
        f"recall: {given_up['here']:.3f}; λ\xa0=\xa00.2 has +{given_up['difference']:.3f}"
        in found.text
    )
    assert f"λ\xa0=\xa0{answer.next_lam:g}, since {answer.next_why}." in found.text
    assert "The wish holds here with probability" in found.text
    rows = [cells for cells in found.table if cells[0] in ("0.2", "1", "20 (taken)")]
    assert [cells[-1] for cells in rows[:3]] == ["no", "no", "✓ yes"]
    # The λ that was chosen is the one that is shown first.
    assert [a["id"] for tag, a in found.tags if tag == "input" and "checked" in a] == ["pick-5"]


def test_words_of_a_wish():
    def said(wish):
        return page.words(choosing.parse(wish))

    assert said("recall >= 60%, max precision").startswith(
        "Recall at least 0.6; beyond that as much"
    )
    assert said("worst recall >= .3") == (
        "Recall of the worst class at least 0.3; beyond that as much precision as possible."
    )
    assert said("fid <= 12 and precision[7] >= .5 and min fid") == (
        "Fid at most 12 and precision of class 7 at least 0.5; beyond that as little fid as "
        "possible."
    )
    assert "a bad sample costs 5" in said("cost: bad=5 missing=1")


def test_classes_gain_and_pay_and_a_guard_marks_those_below(digits, decided):
    found = parse(decided)
    kept = record.read_json(digits / page.DATA)["classes"]
    named = {one["name"]: one["classes"] for one in kept["rows"]}
    assert list(named) == ["base", "control", "lam_0.2", "lam_1", "lam_20"]
    # By the metrics' own code, of the samples of one class alone.
    real, fake = (np.load(digits / "samples" / f"{run}.npz") for run in ("real", "lam_20-seed0"))
    own = [
        (each["images"][each["labels"] == 8] / 127.5 - 1).reshape(12, -1) for each in (real, fake)
    ]
    expected = prdc.prdc_with_intervals(*own, 3, 5)["recall"]
    assert named["lam_20"]["8"]["recall"]["value"] == pytest.approx(expected.value)
    assert expected.value < 0.3
    assert "Guard: no class below recall 0.3." in found.text
    assert "λ\xa0=\xa020 does not pass: " in found.text
    assert f"recall of class 8 is {expected.value:.3f} [" in found.text
    heads = [cells for cells in found.table if cells[0] == "class"]
    assert [head[1:] for head in heads] == 2 * [
        [
            "smallest to largest λ",
            "base",
            "control",
            *(f"λ\xa0=\xa0{x}" for x in ("0.2", "1", "20 (chosen)")),
        ]
    ]
    precision, recall = (cells for cells in found.table if cells[0] == "8")
    assert recall[-1].startswith("▼")
    assert not precision[-1].startswith("▼")
    assert recall[1].startswith("↓ pays −")
    assert "recall falls in" in found.text


def test_a_guard_that_holds_says_how_surely(digits, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(digits, folder)

    def said(guard, wish="precision >= 0.8"):
        text = parse(page.make(folder, wish, guard)).text
        return text, record.read_json(folder / page.DATA)["guard"]["probability"]["20"]

    unsure, low = said("precision >= .6")
    sure, high = said("precision >= .01")
    passes = "λ\xa0=\xa020 passes, by the estimates of all 10 classes"
    assert low < 0.95 < high
    assert f"≈ {passes}, but not surely: that no class is below has probability {low:.3f}" in unsure
    assert f"✓ {passes}, and surely: with probability {high:.3f} no class is below" in sure
    without, _ = said("recall >= .3", "")
    assert "Of the λ, all classes are above it, by their estimates, at " in without
    assert "No goal was given" in without


def test_a_guard_names_the_lowest_classes_and_counts_the_rest():
    def cell(value):
        return {"recall": {"value": value, "low": 0.0, "high": 1.0}}

    rows = [{"name": "lam_1", "lam": 1.0, "classes": {f"c{i}": cell(i / 10) for i in range(9)}}]
    data = {
        "goal": {"answer": {"lam": 1.0}},
        "guard": {"bounds": [{"metric": "recall", "bound": 0.75}], "probability": {"1": 0.0}},
        "classes": {"rows": rows, "level": 0.95},
    }
    said = report_sections.guard(data)
    named = re.findall(r"recall of class (c\d) is", said)
    assert named == ["c0", "c1", "c2", "c3", "c4"]
    assert "; and 3 more." in said
    unmeasured = report_sections.guard(data | {"classes": {"missing": "no classes"}})
    assert "could not be checked" in unmeasured


def test_the_nearest_training_images_stand_beside_the_most_suspect_samples(digits, decided):
    found = record.read_json(digits / page.DATA)["nearest"]
    assert found["lam"] == 20.0
    assert len(found["samples"]) == 6
    first = found["samples"][0]
    assert (first["row"], first["nearest"][0]["distance"]) == (7, 0.0)
    assert first["image"] == first["nearest"][0]["image"]
    text = parse(decided).text
    assert "d\xa0=\xa00" in text
    assert "(authenticity); of 120 held-out real images" in text
    assert "look at the pairs for copies" in text


def test_a_decided_page_is_the_same_again_and_holds_no_paths(digits, decided):
    files = [decided, digits / page.DATA]
    before = [path.read_bytes() for path in files]
    assert page.make(digits, "precision >= 0.8", "recall >= .3", decided) == decided
    assert [path.read_bytes() for path in files] == before
    text = before[0].decode()
    assert str(digits.parent) not in text
    assert "/a/secret" not in text
    assert "--workdir=…/run" in text
    assert "config.data.path" in text
    assert len(before[0]) < 1_500_000
    assert "--guard=recall &gt;= .3" in text


def test_classes_of_another_encoder_are_those_that_were_measured(tmp_path):
    folder = write(tmp_path, summary())
    said = parse(page.make(folder)).text
    assert "choose_lambda.py --workdir=RUN --wish='worst recall >= 0.3'" in said
    cell = {"value": 0.4, "low": 0.3, "high": 0.5, "level": 0.95}
    rows = [
        {
            "lam": lam,
            "fake": f"run?lam={lam}&seed=0",
            "real": "run?real",
            "encoder": "classifier",
            "k": 3,
            "metrics": {"precision": cell, "recall": cell},
            "per_class": {"classes": {"<b>cat": {"metrics": {"precision": cell, "recall": cell}}}},
        }
        for lam in (0.2, 1.0, 20.0)
    ]
    stamps = {
        run: (folder / "samples" / f"{run}.npz").stat().st_mtime_ns
        for run in ("lam_0.2-seed0", "lam_1-seed0", "lam_20-seed0")
    }
    record.write_json(folder / "goal.json", {"settings": {"runs": stamps}, "rows": rows})
    found = parse(page.make(folder, "", "recall >= .45"))
    cells = [row for row in found.table if row[0] == "<b>cat"]
    assert [row[1] for row in cells] == ["→ stays", "→ stays"]
    assert cells[1][2].startswith("▼0.400 [0.300, 0.500]")
    assert "none keeps all classes above it" in found.text
    stamps["lam_1-seed0"] += 1
    record.write_json(folder / "goal.json", {"settings": {"runs": stamps}, "rows": rows})
    assert "goal.json holds is of older samples" in parse(page.make(folder)).text


def test_costs_that_were_planned(tmp_path):
    folder = write(tmp_path, summary())
    wide = {"low": 1.0, "middle": 2.0, "high": 3.0}
    card = {
        "device": "l4<",
        "devices": 2,
        "total_hours": wide,
        "memory": {"total": {key: 1e9 * value for key, value in wide.items()}, "fits": "tight"},
        "money": wide,
        "warnings": ["the batch of /a/secret/place is large"],
    }
    record.write_json(folder / "plan.json", [card])
    found = parse(report.make(folder))
    cells = next(row for row in found.table if row[0] == "2 × l4<")
    assert cells[1:] == ["21 to 3", "21 to 3 GB", "tight", "21 to 3"]
    assert "the batch of …/place is large" in found.text
    for other in ('[{"device": "l4"}]', '[{"device":'):
        (folder / "plan.json").write_text(other)
        assert "plan.json is not what --plan_json writes" in parse(report.make(folder)).text


def test_paths_are_cut_and_formulas_are_not():
    cut = report_sections.short
    assert cut("/a/b/c") == "…/c"
    assert cut("cannot read /home/me/x.npz: gone") == "cannot read …/x.npz: gone"
    assert cut('["/a/b", "c/d"]') == '["…/b", "c/d"]'
    assert cut("tfds:/data/x?y") == "tfds:…/x?y"
    for text in ("1/r̂ and a/b", "E_p[1/r]", "runs/digits", "~/runs", "a / b"):
        assert cut(text) == text


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"wish": "precision > > 1"}, ConfigError, "cannot be read at character"),
        ({"wish": "beauty >= 0.5"}, ConfigError, "beauty"),
        ({"guard": "recall >"}, ConfigError, "--guard='recall >': the wish cannot be read"),
        ({"guard": "recall <= .3"}, ConfigError, "what no class may be below"),
        ({"guard": "max recall"}, ConfigError, "what no class may be below"),
        ({"guard": "fid <= 3"}, ConfigError, "what no class may be below"),
        ({"out": "{tmp}/folder"}, WorkdirError, "cannot write .*folder"),
    ],
)
def test_what_was_asked_wrongly_writes_nothing(tmp_path, settings, error, message):
    folder = write(tmp_path / "run", summary())
    (tmp_path / "folder").mkdir()
    settings = {key: text.format(tmp=tmp_path) for key, text in settings.items()}
    with pytest.raises(error, match=message):
        page.make(folder, **settings)
    assert {path.name for path in folder.iterdir()} == {
        "summary.json",
        "config.json",
        "environment.json",
        "samples",
    }


def test_a_run_that_is_missing_unfinished_or_damaged(tmp_path):
    with pytest.raises(WorkdirError, match="not a directory"):
        page.make(tmp_path / "nowhere")
    with pytest.raises(DataError, match="name the workdir of a finished run"):
        page.make(tmp_path)
    folder = write(tmp_path / "run", summary() | {"encoder": "pixels"})
    (folder / "samples" / "lam_1-seed0.npz").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(DataError, match=r"lam_1-seed0\.npz cannot be read"):
        page.make(folder)
    assert not (folder / page.DATA).exists()
    assert not (folder / "report.html").exists()


def test_the_command_ends_with_one_line(tmp_path):
    script = Path(report.__file__).parents[1] / "experiments" / "report.py"
    command = [sys.executable, str(script), f"--workdir={tmp_path / 'nowhere'}", "--wish=recall >"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("error: the wish cannot be read")
    assert len(found.stderr.splitlines()) == 1
