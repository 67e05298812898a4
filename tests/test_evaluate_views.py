"""Classes, memorised samples, and the runs of prpr as a source of samples."""

import dataclasses
import json
import os
import weakref

import jax
import numpy as np
import pytest
from PIL import Image

from prpr import build, checkpoint, config, record, samplers, sampling, score, train, weights
from prpr.errors import CheckpointError, ConfigError, DataError, WorkdirError
from prpr.evaluate import control as control_module
from prpr.evaluate import conventions, evaluate, open_input, runs, table, views
from prpr.evaluate import lambda_table as lambda_module
from prpr.evaluate import measure as measure_module
from prpr.evaluate.lambda_table import lambda_table
from prpr.jobs import Job, settings
from prpr.metrics import Options, measure, statistics, trained_measured
from prpr.metrics.groups import FAKE
from prpr.samplers import drawing
from prpr.samplers import settings as settings_module

PR = ("precision", "recall")


@pytest.fixture
def rng():
    return np.random.default_rng(2)


# ---- classes ------------------------------------------------------------------------------------


def labelled(x, labels, names=None):
    about = {"class_names": names} if names else {}
    return statistics(x, labels=np.asarray(labels), about=about)


def test_each_class_is_measured_by_itself(rng):
    real, fake = rng.normal(size=(2, 60, 3))
    labels = np.repeat([0, 1, 2], 20)
    fake[labels == 1] += 9  # a class that is all wrong
    found = evaluate(labelled(real, labels), labelled(fake, labels), PR, per_class=True)
    assert found.per_class is not None
    assert list(found.per_class.classes) == ["0", "1", "2"]
    for c in range(3):
        expected = measure(
            PR,
            statistics(real[labels == c]),
            statistics(fake[labels == c]),
            Options(k_dc=3),
        )
        assert found.per_class.classes[str(c)] == expected.metrics
    assert found.per_class.worst == {"precision": "1", "recall": "1"}
    plain = found.to_json()["per_class"]
    assert plain["worst"]["precision"] == "1"
    assert plain["classes"]["1"]["metrics"]["precision"]["value"] == 0
    assert (plain["classes"]["1"]["n_real"], plain["left_out"]) == (20, {})
    assert "worst class, precision: 1, recall: 1" in table.text(found)


def test_classes_are_matched_by_name_and_cut_to_equal_sizes(rng):
    real = labelled(rng.normal(size=(50, 3)), [0] * 30 + [1] * 20, ["cat", "dog"])
    fake = labelled(rng.normal(size=(50, 3)), [0] * 16 + [1] * 30 + [2] * 4, ["dog", "cat", "owl"])
    found = views.per_class(("r", real), [("f", fake)], Options(), equal=True)
    assert found.sizes == {"cat": (30, 30), "dog": (16, 16)}
    assert found.left_out == {"owl": (0, 4)}
    assert found.notes == (
        "classes that only the generated samples have, so that their precision is 0, are in no "
        "number per class: 1, owl",
    )


def test_a_class_of_one_side_is_named_with_its_numbers(rng):
    """A model that drops a class has recall 0 there, which must not vanish from the view."""
    real = labelled(rng.normal(size=(50, 3)), [0] * 20 + [1] * 20 + [2] * 10, ["a", "b", "c"])
    fake = labelled(rng.normal(size=(40, 3)), [0] * 40, ["a"])
    result = evaluate(real, fake, PR, per_class=True)
    plain = result.to_json()["per_class"]
    assert list(plain["classes"]) == ["a"]
    assert plain["left_out"] == {
        "b": {"n_real": 20, "n_fake": 0},
        "c": {"n_real": 10, "n_fake": 0},
    }
    assert any("only the real samples have, so that their recall is 0" in w and "2, b, c" in w
               for w in result.warnings)  # fmt: skip
    assert "2 classes have too few samples: b (20 real, 0 fake)" in table.text(result)


def test_numbers_are_matched_with_names_and_it_is_said(rng):
    x = rng.normal(size=(30, 3))
    named = labelled(x, np.repeat([0, 1], 15), ["cat", "dog"])
    numbers = labelled(x, [0] * 10 + [1] * 20)
    for sides, sizes in (((named, numbers), (15, 10)), ((numbers, named), (10, 15))):
        found = views.per_class(("r", sides[0]), [("f", sides[1])], Options(), equal=False)
        assert found.sizes["cat"] == sizes
        (note,) = found.notes
        assert "numbers, were taken to count the names" in note
        assert "0 = cat, 1 = dog" in note
    # Numbers from 1: the last counts no name, and all others would be off by one.
    one_based = labelled(x, [1] * 10 + [2] * 20)
    with pytest.raises(
        DataError, match=r"f has the class 2, a number, and r has 2 classes by name"
    ):
        views.per_class(("r", named), [("f", one_based)], Options(), equal=False)
    # Folders that are called 1 and 2 are not counted from 0, though there are two.
    called = labelled(x, np.repeat([0, 1], 15), ["1", "2"])
    found = views.per_class(("r", called), [("f", one_based)], Options(), equal=False)
    assert found.sizes == {"1": (15, 10), "2": (15, 20)}
    assert found.notes == ("the classes of f, numbers, were taken for the names of r",)
    called = labelled(x, np.repeat([0, 1], 15), ["0", "1"])
    assert not views.per_class(("r", called), [("f", numbers)], Options(), equal=False).notes


def test_classes_over_seeds_are_means(rng):
    labels = np.repeat([0, 1], 30)
    real = labelled(rng.normal(size=(60, 3)), labels)
    fakes = [labelled(rng.normal(0, 0.5 + i, (60, 3)), labels) for i in range(2)]
    each = [evaluate(real, one, PR, per_class=True).per_class.classes["1"] for one in fakes]
    found = evaluate(real, fakes, PR, per_class=True).per_class.classes["1"]
    for metric in PR:
        values = [one[metric].value for one in each]
        assert values[0] != values[1]
        assert found[metric].value == pytest.approx(np.mean(values), abs=1e-12)
    # A class that one seed has too few of is left out: the mean is over all seeds.
    few = labelled(rng.normal(size=(33, 3)), [0] * 30 + [1] * 3)
    found = evaluate(real, [fakes[0], few], PR, per_class=True).per_class
    assert (list(found.classes), found.left_out) == (["0"], {"1": (30, 3)})


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ((0, -1), ["a", "b"], "f has samples of label -1, and 2 class names, of labels 0 to 1"),
        ((0, 2), ["a", "b"], "f has samples of label 2, and 2 class names"),
        ((0, 1), ["a", "a"], "f has the class name 'a' for the labels 0 and 1"),
    ],
)
def test_labels_without_a_name_of_their_own(rng, labels, names, said):
    real = labelled(rng.normal(size=(30, 3)), np.repeat([0, 1], 15), ["a", "b"])
    fake = labelled(rng.normal(size=(30, 3)), np.repeat(labels, 15), names)
    with pytest.raises(DataError, match=said):
        views.per_class(("r", real), [("f", fake)], Options(), equal=True)


def test_classes_of_too_few_samples_are_named_and_none_is_an_error(rng):
    real = labelled(rng.normal(size=(34, 3)), [0] * 30 + [1] * 4)
    found = views.per_class(("r", real), [("f", real)], Options(), equal=True)
    assert found.left_out == {"1": (4, 4)}
    # A class of 21 is left out, and not the end of the others: of 20 groups one has two samples.
    other = labelled(rng.normal(size=(51, 3)), [0] * 30 + [1] * 21)
    found = views.per_class(("r", other), [("f", other)], Options(k=19), equal=True)
    assert (list(found.classes), found.left_out) == (["0"], {"1": (21, 21)})
    with pytest.raises(DataError, match="no class of r and f has the 33 samples"):
        views.per_class(("r", real), [("f", real)], Options(k=30), equal=True)
    other = labelled(rng.normal(size=(34, 3)), [0] * 34, ["x"])
    named = dataclasses.replace(real, about={"class_names": ["a", "b"]})
    with pytest.raises(DataError, match="no class in common: a, b"):
        views.per_class(("r", named), [("f", other)], Options(), equal=True)


def test_samples_without_classes(rng):
    with pytest.raises(DataError, match=r"the real array has no classes, which --per_class needs"):
        evaluate(*rng.normal(size=(2, 30, 3)), PR, per_class=True)


def test_class_folders_are_classes(tmp_path, rng):
    for side in ("real", "fake"):
        for name in ("a", "b"):
            (tmp_path / side / name).mkdir(parents=True)
            for i in range(8):
                x = rng.integers(0, 256, (4, 4, 3), np.uint8)
                Image.fromarray(x).save(tmp_path / side / name / f"{i}.png")
    found = evaluate(tmp_path / "real", tmp_path / "fake", PR, encoder="pixels", per_class=True)
    assert found.per_class is not None
    assert found.per_class.sizes == {"a": (8, 8), "b": (8, 8)}


# ---- memorised samples --------------------------------------------------------------------------


def test_the_sheet_shows_the_copies_first(tmp_path, rng, monkeypatch):
    train = rng.integers(0, 256, (40, 6, 6, 3), np.uint8)
    fake = rng.integers(0, 256, (30, 6, 6, 3), np.uint8)
    fake[7], fake[21] = train[3], np.clip(train[9].astype(int) + 1, 0, 255)
    pictures, nearest = [], []
    show = views._show

    def seen(axes, side, row, title):
        show(axes, side, row, title)
        (pictures if title.startswith("ratio") else nearest).append(axes.images[0].get_array())

    monkeypatch.setattr(views, "_show", seen)
    path = tmp_path / "sheets" / "out.png"
    found = evaluate(train[:30], fake, PR, train=train, encoder="pixels", sheet=str(path))
    assert found.to_json()["sheet"] == str(path)
    with Image.open(path) as picture:
        assert picture.size[0] > 300
    assert (pictures[0] == fake[7]).all()
    assert (pictures[1] == fake[21]).all()
    assert (nearest[0] == train[3]).all()
    assert (nearest[3] == train[9]).all()
    assert not any("seeds" in line for line in found.warnings)
    # Also where only some of the samples are used, by a shuffle; of several seeds the first's.
    several, settings_ = [fake, fake[::-1]], {"train": train, "encoder": "pixels", "n_fake": 29}
    found = evaluate(train[:30], several, PR, sheet=str(path), **settings_)
    assert "the sheet shows samples of the fake array, the first of 2 seeds" in found.warnings
    assert (pictures[8] == fake[7]).all() or (pictures[8] == fake[21]).all()


def test_a_sheet_needs_images_and_a_png(tmp_path, rng):
    x = rng.normal(size=(30, 3))
    with pytest.raises(ConfigError, match="a sheet shows images"):
        evaluate(x, x, PR, sheet=str(tmp_path / "x.png"))
    with pytest.raises(ConfigError, match=r"its name ends with \.png"):
        evaluate(x, x, PR, sheet=str(tmp_path / "x.pdf"))


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _usual_jax():
    """Optax's Adam does not run with strict dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def filled(system, cfg, parts, rng):
    """A state of random numbers: initialising a network takes ten times as long."""
    example = jax.ShapeDtypeStruct((2, *parts.train.shape), np.float32)
    like = jax.eval_shape(
        lambda key, x: train.init(system, key, x, build.dials(cfg, None)),
        jax.random.key(0),
        example,
    )

    def leaf(path, x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        values = rng.normal(0, 0.3, x.shape)
        return (np.abs(values) if "var" in str(path[-1]) else values).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, like)


def made(folder, cfg, jobs, steps=None):
    """A workdir with untrained checkpoints; {job's run: its state}."""
    cfg.train.steps, cfg.train.warmup = 2, 0
    record.write_json(folder / "config.json", record.to_plain(cfg))
    parts = build.splits(cfg)
    states = {}
    for job in jobs:
        own = config.control_of(cfg) if job.name == "control" else cfg
        system = build.system(own, parts.train)
        state = filled(system, own, parts, np.random.default_rng(job.seed))
        state = state.replace(step=np.int32(2 if steps is None else steps))
        meta = {"settings": settings(own), "lam": job.lam, "seed": job.seed}
        checkpoint.save(folder / "checkpoints" / job.run, int(state.step), state, meta)
        states[job.run] = system, state
    return parts, states


@pytest.fixture
def points(tmp_path):
    """A workdir of points in the plane: λ = 5 at two seeds, and a control."""
    cfg = config.defaults()
    cfg.lams, cfg.seeds, cfg.data.name, cfg.model.name = (5.0,), (0, 1), "ring8", "mlp"
    cfg.model.generator_ch = cfg.model.critic_ch = 4
    cfg.model.dim_z, cfg.score.encoder = 2, "pixels"
    cfg.data.fractions = (0.9, 0.05, 0.05)
    jobs = [Job("lam_5", 5.0, 0), Job("lam_5", 5.0, 1), Job("control", None, 0)]
    workdir = tmp_path / "run"
    workdir.mkdir()
    return workdir, cfg, *made(workdir, cfg, jobs)


def latents_key(seed):
    """Of the latents of a run of this seed: runs of one seed share them, seeds do not."""
    key = jax.random.key(score._LATENTS)
    return jax.random.fold_in(jax.random.fold_in(key, 2), seed)


def drawn_labels(known, n):
    """Classes as they are held out: by a shuffle where only some are drawn."""
    return known[conventions.shuffled(n, len(known), 0, FAKE)].astype(np.int32)


def test_points_of_a_run_and_its_held_out_data(points):
    workdir, _, parts, states = points
    real = open_input(f"{workdir}?real", "real").needed
    assert (real.features == parts.test.images).all()
    assert open_input(f"{workdir}?train", "train").size == parts.train.size
    system, state = states["lam_5-seed1"]
    labels = drawn_labels(parts.test.labels, 30)
    assert len(set(labels.tolist())) > 4  # the first ones are not of all eight components
    expected = sampling.sample(system, state.ema, labels, latents_key(1))
    found = open_input(f"{workdir}?lam=5&seed=1", "fake", 30).needed
    assert (found.features == expected).all()
    assert (found.labels == labels).all()
    result = evaluate(
        f"{workdir}?real", f"{workdir}?lam=5&seed=0,1", PR, compare=f"{workdir}?run=control"
    )
    assert result.seeds is not None
    assert len(result.seeds.names) == 2
    assert result.n_real == result.n_fake == parts.test.size
    assert result.comparison is not None


def test_a_truncation_sweep(points):
    workdir = points[0]
    fake = f"{workdir}?lam=5"
    found = evaluate(f"{workdir}?real", fake, PR, truncation=(1.0, 0.25))
    assert [t for t, _ in found.truncation] == [1.0, 0.25]
    small = open_input(fake, "fake", 50, 0.25).needed.features
    whole = open_input(fake, "fake", 50).needed.features
    assert small.std(axis=0).max() < whole.std(axis=0).max()
    rows = found.to_json()["truncation"]
    assert rows[1]["truncation"] == 0.25
    assert set(rows[1]["metrics"]) == set(PR)
    assert "0.25" in table.text(found)
    with pytest.raises(ConfigError, match="truncation needs a generator"):
        evaluate(f"{workdir}?real", f"{workdir}?real", PR, truncation=(1.0,))
    with pytest.raises(ConfigError, match="above 0"):
        evaluate(f"{workdir}?real", fake, PR, truncation=(0.0,))


@pytest.mark.parametrize("given", ["reject:budget=2", "mh:steps=3", "ddls:steps=2", "drs"])
def test_samples_through_a_sampler(points, given):
    """Of the average that is scored, judged by the run's critic, with the labels that are asked."""
    workdir, cfg, parts, states = points
    system, state = states["lam_5-seed1"]
    sampler = samplers.parse(given)
    labels = drawn_labels(parts.test.labels, 30)
    valid = drawing.Held(parts.valid.images, parts.valid.labels)
    net, _ = score.ready(cfg, system, state.ema, 0.0)
    expected = drawing.sample(
        *(system, state.replace(generator=net), labels, latents_key(1), sampler),
        held=valid,
        batch=cfg.score.batch,
    )
    found = open_input(f"{workdir}?lam=5&seed=1", "fake", 30, sampler=sampler)
    assert (found.needed.features == expected.items).all()
    assert (found.needed.labels == labels).all()
    assert found.cost == expected.cost
    told = settings_module.text(sampler)
    assert f"30 samples, drawn anew through {told}: of the last ch" in found.notes.lines()[0]


def test_an_evaluation_through_a_sampler(points):
    workdir, cfg, parts, _ = points
    real, fake = f"{workdir}?real", f"{workdir}?lam=5&seed=0,1"
    found = evaluate(real, fake, PR, sampler="reject:budget=2", compare=f"{workdir}?lam=5&seed=0,1")
    assert found.sampler is not None
    plain = found.to_json()["sampler"]
    assert (plain["name"], plain["settings"]["budget"]) == ("reject", 2.0)
    assert plain["cost"]["items"] == 2 * parts.test.size
    assert 1 <= plain["cost"]["per_item"]["generator"] < 4
    assert len(plain["costs"]) == 2
    assert "sampler  reject:budget=2  (calls a sample: " in table.text(found)
    assert any("through reject:budget=2" in line for line in found.warnings)
    # The rival is as it is.
    assert any("samples, drawn anew: of" in line for line in found.warnings)
    # Truncation by this name is the truncation of a sweep.
    swept = evaluate(real, f"{workdir}?lam=5", PR, truncation=(0.5,)).truncation[0][1]
    one = evaluate(real, f"{workdir}?run=control", PR, sampler="truncation:at=.5")
    assert one.sampler is not None
    assert one.sampler.total.per_item == {"generator": 1.0, "critic": 0.0, "gradient": 0.0}
    assert evaluate(real, f"{workdir}?lam=5", PR, sampler="truncation:at=.5").metrics == swept
    # The latents of a run that is scored with a truncation are not cut for a ratio.
    cfg.score.truncation = 0.5
    record.write_json(workdir / "config.json", record.to_plain(cfg))
    wide = open_input(f"{workdir}?lam=5", "fake", 30, sampler=samplers.parse("reject:budget=1"))
    assert "without truncation" in wide.notes.lines()[0]


def test_samplers_that_a_set_cannot_be_drawn_through(points, rng):
    workdir = points[0]
    real = f"{workdir}?real"
    for fake, sampler, says in (
        (f"{workdir}?run=control", "reject:budget=2", "run=control has no ratio p/q, which every "
         "sampler but truncation needs: its critic's loss is hinge"),
        (real, "reject:budget=2", "is data: the sampler reject:budget=2 needs a generator"),
        (f"{workdir}?lam=5", "reject:budget=.5", "budget=0.5 must be a number >= 1"),
        (f"{workdir}?lam=5", "rejct", "Did you mean 'reject'"),
        (rng.normal(size=(30, 2)), "mh", "the fake set is no run of prpr: the sampler mh:s"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            evaluate(real, fake, PR, sampler=sampler)
    # Before anything is opened.
    with pytest.raises(ConfigError, match="has no ratio"):
        evaluate(f"{workdir}/none", f"{workdir}?run=control", PR, sampler="mh")
    with pytest.raises(ConfigError, match="give one of them"):
        evaluate(real, f"{workdir}?lam=5", PR, sampler="mh", truncation=(0.5,))
    with pytest.raises(ConfigError, match="has no ratio"):
        open_input(f"{workdir}?run=control", "fake", 30, sampler=samplers.parse("mh"))


def test_control_beside_training(points, monkeypatch):
    workdir, cfg, parts, _ = points
    n = parts.test.size
    drawn = []

    def opened(name, *args, **kwargs):
        drawn.append(name)
        return open_input(name, *args, **kwargs)

    monkeypatch.setattr(measure_module, "open_input", opened)

    def measured(names=("reject", "truncation:at=.5"), **settings):
        drawn.clear()
        return control_module.control(str(workdir), names=names, budgets=(2.0,), **settings)

    found = measured()
    told = ["plain", "reject:budget=2", "truncation:at=0.5"]
    expected = [("control", 0, name) for name in told[::2]]
    expected += [("lam_5", seed, name) for seed in (0, 1) for name in told]
    assert [(row["model"], row["seed"], row["sampler"]) for row in found.rows] == expected
    assert found.reused == 0
    (left,) = found.left_out
    assert (left["model"], left["sampler"]) == ("control-seed0", "reject:budget=2")
    assert "hinge" in left["why"]
    for row in found.rows:
        query = "run=control" if row["lam"] is None else f"lam=5&seed={row['seed']}"
        own = None if row["sampler"] == "plain" else row["sampler"]
        same = evaluate(f"{workdir}?real", f"{workdir}?{query}", PR, sampler=own)
        assert row["metrics"] == {
            name: {"value": e.value, "low": e.low, "high": e.high}
            for name, e in same.metrics.items()
        }
        assert row["cost"]["items"] == n
        if same.sampler is not None:
            assert row["cost"] == same.sampler.total.to_json()
    for kind in ("png", "pdf"):
        assert (workdir / "figures" / f"control.{kind}").stat().st_size > 5000
    assert json.loads((workdir / "control.json").read_text())["rows"] == list(found.rows)
    # One line for both seeds, in the table and in the figure.
    point = next(p for p in found.points if p.sampler == "reject:budget=2")
    values = [row["metrics"]["recall"]["value"] for row in found.rows[3::3]]
    assert point.seeds == 2
    assert point.recall.value == pytest.approx(np.mean(values))
    shown = found.to_text()
    assert shown.count("reject:budget=2") == 2  # a row, and what was left out
    assert "left out: control-seed0 reject:budget=2: " in shown
    # Again: nothing is drawn; another sampler keeps the rows that are there.
    again = measured()
    assert (again.rows, again.reused, again.warnings) == (found.rows, 8, found.warnings)
    sides = [f"{workdir}?real", f"{workdir}?train"]
    assert drawn == [*sides, f"{workdir}?run=control&seed=0"]  # which is refused at once
    more = measured(("mh:steps=1",), seeds=(1,))
    assert drawn == [*sides, f"{workdir}?lam=5.0&seed=1"]
    assert [row["sampler"] for row in more.rows] == ["plain", "mh:steps=1"]
    assert len(json.loads((workdir / "control.json").read_text())["rows"]) == 9
    # A checkpoint that is another one, and another measurement.
    made(workdir, cfg, [Job("lam_5", 5.0, 1)], steps=3)
    measured(seeds=(0,))
    rows = json.loads((workdir / "control.json").read_text())["rows"]
    assert {row["model"] + str(row["seed"]) for row in rows} == {"control0", "lam_50"}
    new = measured()
    assert new.reused == 5
    assert drawn.count(f"{workdir}?lam=5.0&seed=1") == 3
    assert f"{workdir}?lam=5.0&seed=0" not in drawn
    assert measured(level=0.9).reused == 0


def test_control_beside_one_model_for_every_lam(points, tmp_path):
    workdir, cfg, *_ = points
    own = cfg.copy_and_resolve_references()
    own.dial, one = (0.2, 20.0), tmp_path / "one"
    one.mkdir()
    made(one, own, [Job("dial", None, 0), Job("dial", None, 1)])

    def measured(of):
        return control_module.control(str(workdir), names=("truncation:at=.5",), one=str(of))

    found = measured(one)
    rows = [row for row in found.rows if row["model"] == "one_lam_5"]
    assert [(row["seed"], row["lam"], row["sampler"]) for row in rows] == [
        (0, 5.0, "plain"),
        (1, 5.0, "plain"),
    ]
    for row in rows:
        same = evaluate(f"{workdir}?real", f"{one}?lam=5&seed={row['seed']}", PR)
        assert row["metrics"]["recall"]["value"] == same.metrics["recall"].value
    labels = control_module.draw(found.points).axes[0].get_legend_handles_labels()[1]
    assert {"trained λ", "one model"} <= set(labels)
    assert measured(one).reused == len(found.rows)
    made(one, own, [Job("dial", None, 1)], steps=3)
    assert measured(one).reused == len(found.rows) - 1
    with pytest.raises(ConfigError, match=r"config\.dial is empty"):
        measured(workdir)
    own.data.fractions = (0.8, 0.1, 0.1)
    record.write_json(one / "config.json", record.to_plain(own))
    with pytest.raises(WorkdirError, match=r"data\.fractions"):
        measured(one)


def test_control_of_what_is_not_there(points, tmp_path, monkeypatch):
    workdir, *_ = points
    for given, says in (
        ({"lams": (2.0,)}, r"holds no lam_2-seed0, lam_2-seed1: train it.*it holds control-seed0"),
        ({"names": ("rejct",)}, "unknown sampler in --samplers=rejct"),
        ({"budgets": (0.5,)}, r"budget=0\.5 must be a number >= 1"),
        ({"n_fake": -1}, "n_fake=-1"),
        ({"n_fake": 3}, "n_fake=3: recall with k=3 needs at least"),
        ({"level": 2.0}, "level"),
    ):
        with pytest.raises(ConfigError, match=says):
            control_module.control(str(workdir), **given)
    with pytest.raises(ConfigError, match="is no workdir of a run"):
        control_module.main(str(tmp_path / "none"), "")
    assert not (tmp_path / "none").exists()

    # A sampler that fails is left out of the table; the others are measured.
    def refused(*args, **kwargs):
        raise DataError("log r̂ is NaN")

    monkeypatch.setattr(runs.drawing, "latents", refused)
    why = f"{workdir}?lam=5.0&seed=0: log r̂ is NaN"
    found = control_module.control(str(workdir), names=("mh:steps=1",), seeds=(0,), n_fake=20)
    assert [row["sampler"] for row in found.rows] == ["plain", "plain"]
    assert {"model": "lam_5-seed0", "sampler": "mh:steps=1", "why": why} in found.left_out


def test_stored_samples_are_taken_where_they_are_enough(points, rng):
    workdir = points[0]
    (workdir / "samples").mkdir()
    x = rng.normal(size=(30, 2)).astype(np.float32)
    np.savez(workdir / "samples" / "lam_5-seed0.npz", points=x, labels=np.zeros(30, int))
    found = open_input(f"{workdir}?lam=5", "fake", 30)
    assert (found.needed.features == x).all()
    (said,) = found.notes.lines()
    assert "30 of the 30 samples that were stored for its score: of the last checkpoint" in said
    assert "step 2, without truncation" in said
    drawn = open_input(f"{workdir}?lam=5", "fake", 31)
    assert drawn.size == 31
    (said,) = drawn.notes.lines()
    assert "31 samples, drawn anew: of the last checkpoint, step 2, without truncation" in said
    # They are sorted by class as the held-out data are: some of them are a shuffle, and the same.
    rows = conventions.shuffled(12, 30, 4, FAKE)
    some = open_input(f"{workdir}?lam=5", "fake", 12, seed=4)
    assert (some.needed.features == x[rows]).all()
    assert some.needed.labels is not None
    assert "by a seeded shuffle" in some.notes.lines()[0]
    assert (rows != np.arange(12)).any()
    # Scoring stores several sets: a run is measured with as many samples as there are real ones.
    real = open_input(f"{workdir}?real", "real").size
    assert real < 30 * 50
    x = np.tile(x, (50, 1))
    np.savez(workdir / "samples" / "lam_5-seed0.npz", points=x, labels=np.zeros(1500, int))
    assert evaluate(f"{workdir}?real", f"{workdir}?lam=5", PR).n_fake == real
    assert open_input(f"{workdir}?lam=5", "fake").size == 1500
    os.utime(workdir / "samples" / "lam_5-seed0.npz", (0, 0))
    old = open_input(f"{workdir}?lam=5", "fake").notes.lines()
    assert "older than the checkpoint of step 2: score the run again, or remove" in old[0]


def test_classes_that_are_not_known_are_drawn_evenly():
    """Of 10 classes 4 samples are 4 at random, and 23 are each twice and 3 at random."""
    few, many = runs._spread(np.arange(10), 4, 0), runs._spread(np.arange(10), 23, 0)
    assert len(set(few.tolist())) == 4
    assert few.tolist() != [0, 1, 2, 3]
    counts = np.bincount(many, minlength=10)
    assert sorted(counts.tolist()) == [2] * 7 + [3] * 3
    assert (counts[3:] == 3).any()
    assert runs._spread(np.arange(10), 4, 1).tolist() != few.tolist()


def test_the_base_of_a_fine_tune(points, tmp_path, rng):
    """Its samples are those that the fine-tune scored; else they are drawn as it scores."""
    workdir, cfg, *_ = points
    home = tmp_path / "home"
    home.mkdir()
    own = config.defaults()
    own.update(cfg.to_dict())
    own.score.truncation, own.lams = 0.7, ()
    made(home, own, [Job("base", None, 0)])
    (home / "samples").mkdir()
    np.savez(home / "samples" / "base-seed0.npz", points=rng.normal(size=(40, 2)))
    cfg.base.path = str(home)
    record.write_json(workdir / "config.json", record.to_plain(cfg))
    found = open_input(f"{workdir}?run=base", "fake", 20)
    assert (
        "20 samples, drawn anew: of the last checkpoint, step 2, without trunc"
        in (found.notes.lines()[0])
    )
    (workdir / "samples").mkdir()
    x = rng.normal(size=(20, 2)).astype(np.float32)
    np.savez(workdir / "samples" / "base-seed0.npz", points=x)
    assert (open_input(f"{workdir}?run=base", "fake", 20).needed.features == x).all()


def test_a_base_of_converted_weights(tmp_path, copies):
    cfg = config.defaults()
    cfg.data.name, cfg.data.path, cfg.data.resolution = "cifar10", str(copies("cifar10")), 8
    cfg.train.batch, cfg.score.standing, cfg.model.name = 2, 0, "biggan"
    cfg.model.generator_ch = cfg.model.critic_ch = 8
    cfg.model.dim_z, cfg.model.shared_dim = 4, 3
    cfg.base.path, cfg.lams = str(tmp_path / "weights"), (5.0,)
    knobs = ("name", "generator_ch", "dim_z", "shared_dim", "attention_at", "hierarchical")
    knobs += ("shared_embedding", "generator_spectral_norm", "sn_eps", "bn_eps")
    model = {knob: record.to_plain(cfg.model[knob]) for knob in knobs}
    shapes = weights.shapes(model, 8, 10, "generator")
    ema = jax.tree.map(lambda s: np.full(s.shape, 0.5, s.dtype), shapes)
    held = weights.Weights(ema, ema)
    source = {"family": "a test", "files": {"generator": "G.pth"}}
    weights.write_weights(
        cfg.base.path, held, model=model, resolution=8, num_classes=10, source=source
    )
    (tmp_path / "run" / "samples").mkdir(parents=True)
    record.write_json(tmp_path / "run" / "config.json", record.to_plain(cfg))
    found = open_input(f"{tmp_path}/run?run=base", "fake", 6)
    assert isinstance(found.images, runs.Generated)
    assert (found.size, len(found.images.class_names or ())) == (6, 10)
    leaves = jax.tree.leaves(found.images._net.params)
    assert leaves
    assert all((np.asarray(leaf) == 0.5).all() for leaf in leaves)
    assert f"of the weights in {cfg.base.path}, without truncation" in found.notes.lines()[-1]
    # A sweep of them can be asked for; that of data, or of a run without a checkpoint, cannot.
    runs.check_generator(tmp_path / "run", {"run": "base"}, "it")
    np.savez(tmp_path / "run" / "samples" / "lam_5-seed0.npz", points=np.zeros((3, 2)))
    with pytest.raises(CheckpointError, match="no checkpoint of lam_5-seed0"):
        runs.check_generator(tmp_path / "run", {"lam": "5"}, "it")


def test_runs_that_are_not_there(points, tmp_path):
    workdir, cfg, *_ = points
    cases = [
        ("", ConfigError, r"say which samples .*lam_5-seed0, lam_5-seed1"),
        ("?lam=4", ConfigError, "Did you mean 'lam_5-seed0'"),
        ("?lam=5&seed=2", ConfigError, "Did you mean 'lam_5-seed"),
        ("?lam=five", ConfigError, "are numbers"),
        ("?lamb=5", ConfigError, "Did you mean 'lam'"),
        ("?run=base", CheckpointError, "is not in"),
    ]
    for query, kind, message in cases:
        with pytest.raises(kind, match=message):
            open_input(f"{workdir}{query}", "fake")
    broken = tmp_path / "unfinished"
    broken.mkdir()
    made(broken, cfg, [Job("lam_5", 5.0, 0)], steps=1)
    with pytest.raises(CheckpointError, match="holds step 1 of 2: that run was interrupted"):
        open_input(f"{broken}?lam=5", "fake")
    stored = json.loads((workdir / "config.json").read_text())
    stored["model"]["generator_ch"] = 8
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError):
        open_input(f"{workdir}?lam=5", "fake")


@pytest.mark.slow
def test_images_of_a_run_are_made_in_batches(tmp_path):
    cfg = config.defaults()
    cfg.lams, cfg.data.name, cfg.model.name, cfg.score.batch = (5.0,), "digits", "biggan", 16
    cfg.model.generator_ch = cfg.model.critic_ch = 4
    cfg.model.dim_z, cfg.model.shared_dim = 4, 4
    parts, states = made(tmp_path, cfg, [Job("lam_5", 5.0, 0)])
    found = open_input(f"{tmp_path}?lam=5", "fake", 40)
    assert found.images is not None
    system, state = states["lam_5-seed0"]
    labels = drawn_labels(parts.test.labels, 40)
    x = sampling.sample(system, state.ema, labels, latents_key(0), batch=16)
    expected = score.to_stored(x)["images"]
    assert len(np.unique(expected.reshape(40, -1), axis=0)) == 40
    rows = np.array([3, 39, 20])
    read = found.images.read(rows)
    assert (np.stack([image for image, _ in read]) == expected[rows]).all()
    assert [label for _, label in read] == labels[rows].tolist()
    real = open_input(f"{tmp_path}?real", "real")
    assert real.images is not None
    assert real.images.read(np.arange(1))[0][0].shape == (8, 8, 1)
    result = evaluate(f"{tmp_path}?real", f"{tmp_path}?lam=5", PR, encoder="pixels")
    assert result.n_fake == parts.test.size


def test_the_table_of_trained_and_measured_lambdas(points):
    workdir, cfg, _, _ = points
    cfg.lams, cfg.seeds = (0.2, 5.0, 9.0), (0,)
    made(workdir, cfg, [Job("lam_0.2", 0.2, 0), Job("lam_5", 5.0, 0)])
    found = lambda_table(str(workdir), estimator="knn")
    real = open_input(f"{workdir}?real", "real").needed
    runs = {
        lam: (real, open_input(f"{workdir}?lam={lam}", "fake", real.n).needed) for lam in (0.2, 5.0)
    }
    assert found.table == trained_measured.table(runs, None, "knn")  # 9 was not trained yet
    assert (found.n_real, found.n_fake, found.encoder, found.seed) == (real.n, real.n, "pixels", 0)
    plain = found.to_json()
    assert [row["lam"] for row in plain["rows"]] == [0.2, 5.0]
    json.dumps(plain, allow_nan=False)
    assert "frontier by the knn estimator" in found.to_text()
    few = lambda_table(str(workdir), estimator="knn", n_fake=50)
    assert few.n_fake == 50
    said = "\n".join(few.warnings)
    assert "the frontier at λ=0.1 is read from about 5 of the fake samples" in said
    assert f"{real.n} real and 50 fake samples are fewer than 10000" in said
    assert "note: the frontier at λ=0.1" in few.to_text()


def test_only_one_run_of_a_table_is_in_memory(points, monkeypatch):
    workdir, cfg, *_ = points
    cfg.lams, cfg.seeds = (0.2, 5.0), (0,)
    made(workdir, cfg, [Job("lam_0.2", 0.2, 0), Job("lam_5", 5.0, 0)])
    held, opened = [], lambda_module.open_input

    def seen(name, side, *rest):
        assert not [one for one in held if one() is not None]
        found = opened(name, side, *rest)
        if side == "fake":
            held.append(weakref.ref(found.needed))
        return found

    monkeypatch.setattr(lambda_module, "open_input", seen)
    lambda_table(str(workdir), estimator="knn")
    assert len(held) == 2


def test_a_table_needs_runs(points, tmp_path):
    workdir = str(points[0])
    with pytest.raises(ConfigError, match="no run of seed 7 at a λ"):
        lambda_table(workdir, seed=7)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        lambda_table(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="Did you mean 'knn'"):
        lambda_table(workdir, estimator="kn")
    # What the arguments alone decide comes before any work, and before the workdir is looked at.
    with pytest.raises(ConfigError, match=r"level=95\.0"):
        lambda_table(str(tmp_path / "none"), level=95.0)
    with pytest.raises(ConfigError, match="n_fake=-3 must"):
        lambda_table(str(tmp_path / "none"), n_fake=-3)
