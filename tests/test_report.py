"""The report: whole files, a page that stands alone, and sentences that are true of the numbers."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from prpr import plotting, record, report, report_figures
from prpr.errors import DataError, WorkdirError

VOID = {"meta", "img", "br"}
FIGURES = ("precision_recall", "samples", "training", "calibration")


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
    assert len(images) == len(FIGURES)
    for attributes in images:
        assert attributes["alt"]
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(data)) as image:
            # Half the pixels: sharp on dense screens.
            assert image.width // 2 == int(attributes["width"])
            assert image.height // 2 == int(attributes["height"])


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
    assert "grey dots are real data" in page.text
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
    sheet = report_figures._sheet(report_figures.Samples(images, labels))
    cells = sheet[2::5, 2::5, 0]
    # Three columns a class; class 0 has four images, the others two; the rest is blank.
    assert cells[0].tolist() == [0, 0, 0, 40, 40, 255, 80, 80, 255]
    assert cells[1].tolist() == [0, *[255] * 8]


def test_colors_are_ordered_in_lightness_and_near_for_near_lams():
    colors = report_figures.Colors((0.2, 1.0, 5.0))
    assert sum(colors("", 0.2)) < sum(colors("", 1.0)) < sum(colors("", 5.0))
    near = report_figures.Colors((1.0, 1.1))
    assert np.abs(np.subtract(near("", 1.0), near("", 1.1))).max() < 0.1
