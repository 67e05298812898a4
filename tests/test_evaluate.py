"""From samples to a result: sizes, conventions, seeds, comparison, warnings, and the JSON."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from prpr import evaluate as package
from prpr.encoders import Encoded, Encoder
from prpr.errors import CheckpointError, ConfigError, DataError
from prpr.evaluate import choose, conventions, evaluate, seeds, table
from prpr.evaluate.encode import encode
from prpr.evaluate.images import Array
from prpr.evaluate.notes import Notes
from prpr.metrics import Options, compare, measure, registry, statistics

PR = ("precision", "recall")


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def folder(path, x):
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(x):
        Image.fromarray(image).save(path / f"{i:04d}.png")
    return str(path)


# ---- values -----------------------------------------------------------------------------------


def test_features_are_measured_as_the_metrics_do(rng):
    real, fake = rng.normal(size=(50, 5)), rng.normal(0.3, 1, (50, 5))
    found = evaluate(real, fake, ("recall", "precision"), k=4, level=0.9, seed=7)
    options = Options(k=4, level=0.9, seed=7)
    expected = measure(("recall", "precision"), statistics(real), statistics(fake), options)
    assert found.metrics == expected.metrics
    assert list(found.metrics) == ["recall", "precision"]


def test_a_set_against_itself_and_swapped_sides(rng):
    real = rng.normal(size=(40, 3))
    fake = np.concatenate([real[:20] + 0.01, rng.normal(9, 1, (20, 3))])
    assert evaluate(real, real, PR).metrics["precision"].value == 1
    one, other = evaluate(real, fake, PR).metrics, evaluate(fake, real, PR).metrics
    assert one["precision"].value == other["recall"].value != one["recall"].value


def test_a_folder_an_array_and_a_file_of_the_same_images_agree(tmp_path, rng):
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    real, fake = (folder(tmp_path / name, part) for name, part in zip("rf", x, strict=True))
    np.savez(tmp_path / "r.npz", arr_0=x[0])
    np.save(tmp_path / "f.npy", x[1])
    expected = evaluate(*x, PR, encoder="pixels").metrics
    assert evaluate(real, fake, PR, encoder="pixels").metrics == expected
    files = (str(tmp_path / "r.npz"), str(tmp_path / "f.npy"))
    assert evaluate(*files, PR, encoder="pixels", workers=1, batch=7).metrics == expected
    flat = x.reshape(2, 30, -1) / 127.5 - 1
    assert evaluate(*flat, PR).metrics["recall"].value == expected["recall"].value


def test_grey_images_beside_rgb_ones_are_repeated(tmp_path, rng):
    x = rng.integers(0, 256, (20, 6, 6), np.uint8)
    found = evaluate(x, folder(tmp_path, x), PR, encoder="pixels")
    assert found.metrics["precision"].value == 1


def test_fitted_encoders_need_training_images_and_are_told_apart(rng):
    x = rng.integers(0, 256, (3, 30, 6, 6, 3), np.uint8)
    for name in ("pca", "classifier"):
        with pytest.raises(ConfigError, match="never on what it scores: name them with --train"):
            evaluate(x[0], x[1], PR, encoder=name)
    found = evaluate(x[0], x[1], PR, encoder="pca", train=x[2])
    assert "pca" in found.encoder
    assert found.encoder != evaluate(x[0], x[1], PR, encoder="pca", train=x[1]).encoder


def test_fitted_encoders_see_a_seeded_part_of_large_training_data(rng, monkeypatch):
    x = rng.integers(0, 256, (3, 40, 6, 6, 3), np.uint8)
    x[2, :20] //= 9  # sorted by class: the first ones are no sample of all
    seen = []
    fit = choose.encoders.fit

    def watched(name, images, labels, seed):
        seen.append((images, labels))
        return fit(name, images, labels, seed)

    monkeypatch.setattr(choose.encoders, "fit", watched)
    monkeypatch.setattr(choose, "_FITTED", 20)
    train = Array(x[2], Notes("train"), np.repeat([0, 1], 20))
    found = evaluate(x[0], x[1], PR, encoder="pca", train=train, workers=3)
    ((images, labels),) = seen
    assert images.shape == (20, 6, 6, 3)
    assert 4 < labels.sum() < 16
    rows = [int(np.flatnonzero((x[2] == one).all((1, 2, 3)))[0]) for one in images]
    assert (np.diff(rows) > 0).all()
    assert (labels == (np.array(rows) >= 20)).all()
    assert any("pca was fitted to 20 of its 40 images, by a seeded" in w for w in found.warnings)
    monkeypatch.setattr(choose, "_VALUES", 6 * 6 * 3 * 10)
    evaluate(x[0], x[1], PR, encoder="pca", train=x[2], seed=1)
    assert len(seen[1][0]) == 10


def test_a_function_of_the_users(tmp_path, rng):
    (tmp_path / "my.py").write_text("def mean(x):\n    return x.mean((1, 2))\n")
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    found = evaluate(*x, PR, encoder=f"{tmp_path}/my.py:mean")
    expected = evaluate(*x.mean((2, 3)).astype(np.float32), PR)
    assert found.metrics == expected.metrics
    assert found.resize is None


# ---- sizes and conventions ----------------------------------------------------------------------


def test_equal_sizes_by_a_seeded_shuffle(rng):
    # Sorted by class: the first 40 are one class only.
    real = np.concatenate([rng.normal(0, 1, (40, 3)), rng.normal(50, 1, (40, 3))])
    fake = real[::2] + rng.normal(0, 0.1, (40, 3))
    found = evaluate(real, fake, PR, n_real=40)
    assert (found.n_real, found.n_fake) == (40, 40)
    assert found.metrics["recall"].value > 0.8
    assert found.metrics["precision"].value > 0.8  # first 40: about a half
    assert any("40 of 80 samples of the real array were taken" in w for w in found.warnings)
    again = [evaluate(real, fake, PR, n_real=40, seed=s).metrics["precision"] for s in (0, 0, 1)]
    assert again[0] == again[1] != again[2]
    rows = conventions.shuffled(40, 80, 0, 0)
    assert 8 < (rows < 40).sum() < 32
    assert (rows != conventions.shuffled(40, 80, 1, 0)).any()


def test_all_that_is_given_is_used_and_unequal_sizes_are_said(rng):
    real, fake = rng.normal(size=(80, 3)), rng.normal(size=(60, 3))
    found = evaluate(real, fake, PR)
    assert (found.n_real, found.n_fake) == (80, 60)
    assert any("--n_real=60 --n_fake=60 would make them so" in w for w in found.warnings)
    assert not any("equal terms" in w for w in evaluate(fake, fake, PR).warnings)


def test_asked_sizes_win_and_are_said(rng):
    real, fake = rng.normal(size=(80, 3)), rng.normal(size=(60, 3))
    found = evaluate(real, fake, PR, n_real=70)
    assert (found.n_real, found.n_fake) == (70, 60)
    assert any("70 real and 60 fake samples" in w for w in found.warnings)
    assert evaluate(real, fake, PR, n_fake=30).n_real == 80
    assert evaluate(real, fake, PR, n_fake=30, convention="studiogan").n_real == 30
    with pytest.raises(ConfigError, match="--n_fake=61: the fake array holds 60 samples"):
        evaluate(real, fake, PR, n_fake=61)


def test_a_convention_sets_what_is_not_given_and_says_what_differs(rng):
    real, fake = rng.normal(size=(80, 3)), rng.normal(size=(60, 3))
    found = evaluate(real, fake, PR, convention="studiogan")
    assert (found.k, found.k_coverage) == (5, 5)
    assert found.metrics["precision"].k == 5
    found = evaluate(real, fake, PR, convention="adm", k=4)
    said = "\n".join(found.warnings)
    assert (found.k, found.n_real, found.n_fake) == (4, 80, 60)
    assert "k=4 and not 3, as the convention 'adm' has it" in said
    assert "n_real is 80 and not 10000" in said
    assert "n_fake is 60 and not 50000" in said
    assert "the encoder 'inception' was not used" in said
    assert conventions.choose("stylegan")[:4] == (3, 5, "vgg16", "legacy_tf")
    assert conventions.choose("adm")[:4] == (3, 5, "inception", "legacy_tf")
    assert conventions.choose("studiogan")[:4] == (5, 5, "inception", "legacy_pytorch")
    assert conventions.choose("adm", encoder="pixels").resize is None
    said = evaluate(real, fake, PR, convention="studiogan").warnings
    assert "the convention 'studiogan' takes all real samples and as many fake ones" in said


def test_a_convention_met_says_nothing_of_it(rng, monkeypatch):
    own = conventions.CONVENTIONS["adm"]._replace(n_real=20, n_fake=30, encoder=None, resize=None)
    monkeypatch.setitem(conventions.CONVENTIONS, "adm", own)
    found = evaluate(rng.normal(size=(20, 3)), rng.normal(size=(30, 3)), PR, convention="adm")
    assert not [w for w in found.warnings if "convention" in w]


def test_few_samples_are_warned_of(rng, monkeypatch):
    real, fake = rng.normal(size=(2, 30, 3))
    assert any("fewer than 10000" in w for w in evaluate(real, fake, PR).warnings)
    monkeypatch.setattr(conventions, "FEW", 30)
    assert not evaluate(real, fake, PR).warnings


def test_too_few_for_k_names_the_side(rng):
    with pytest.raises(
        DataError, match=r"the fake array gives 6 samples, and recall with k=5 .* 7"
    ):
        evaluate(rng.normal(size=(30, 3)), rng.normal(size=(6, 3)), PR, k=5)
    # Of 21 samples in 20 groups one group has two.
    with pytest.raises(DataError, match=r"the fake array gives 21 samples, .* needs at least 22"):
        evaluate(rng.normal(size=(30, 3)), rng.normal(size=(21, 3)), PR, k=19)
    assert conventions.needed(3, 20) == 5
    assert evaluate(*rng.normal(size=(2, 22, 3)), PR, k=19).n_fake == 22


def test_only_what_metrics_ask_of_a_side_is_asked_of_it(rng):
    real, fake = rng.normal(size=(30, 2)), rng.normal(size=(6, 2))
    few = rng.normal(size=(4, 2))
    assert np.isfinite(evaluate(few, few + 1, ("fd",)).metrics["fd"].value)
    with pytest.raises(DataError, match="the fake array gives 1 sample, and every metric needs at"):
        evaluate(real, fake[:1], ("fd",))
    # Of few fakes no neighbours are asked in precision, and 5 of 30 real ones in coverage.
    options = Options()
    sets = [package.open_input(x, side) for x, side in ((real, "real"), (fake, "fake"))]
    for name, k in (("precision", 3), ("coverage", 5), ("p_precision", 4), ("fd", 0)):
        conventions.check_enough([name], sets, options, [k + 2, 2])
    for name, sizes in (
        ("precision", [4, 6]),
        ("recall", [30, 4]),
        ("coverage", [6, 6]),
        ("clipped_density", [6, 6]),
        ("recall_symmetric", [30, 6]),
        ("p_recall", [30, 5]),
    ):
        with pytest.raises(DataError, match=f"and {name} with k="):
            conventions.check_enough(["fd", name], sets, options, sizes)


# ---- what is refused at once --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": -3}, "batch=-3 must be a whole number >= 0"),
        ({"workers": -3}, "workers=-3"),
        ({"n_real": -1}, "n_real=-1"),
        ({"k": 0}, "k=0"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"compare": []}, r"compare=\[\] names no samples"),
        ({"truncation": (0.5, -1.0)}, r"--truncation=-1\.0 must be a number above 0"),
        ({"truncation": (0.5,)}, "the fake set is no run of prpr: truncation needs a generator"),
    ],
)
def test_settings_that_cannot_be_used(rng, settings, said):
    x = rng.normal(size=(30, 2))
    with pytest.raises(ConfigError, match=said):
        evaluate(x, x, PR, **settings)


def test_samples_that_are_none(rng, tmp_path):
    x = rng.normal(size=(30, 2))
    with pytest.raises(ConfigError, match=r"fake=\[\] names no samples"):
        evaluate(x, [], PR)
    with pytest.raises(DataError, match="the real samples are a list and no array"):
        evaluate([[1.0, 2.0], [3.0]], x, PR)
    for settings, said in (({"n": -2}, "n=-2"), ({"workers": -1}, "workers=-1")):
        with pytest.raises(ConfigError, match=said):
            package.reference(x, **settings)


def test_what_settings_decide_costs_no_image(rng, tmp_path, monkeypatch):
    """Also weights of the second metric's encoder, and classes that are not there."""
    monkeypatch.setenv("PRPR_ENCODERS", str(tmp_path))
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    done = []

    def told(what, at, total):
        done.append(what)

    for settings, kind, said in (
        ({"metrics": ("precision", "fd_dinov2")}, CheckpointError, "the encoder 'dinov2' needs"),
        ({"per_class": True}, DataError, "the real array has no classes, which --per_class needs"),
        ({"truncation": (0.5,)}, ConfigError, "truncation needs a generator"),
    ):
        with pytest.raises(kind, match=said):
            evaluate(*x, **{"metrics": PR, "encoder": "pixels", "progress": told, **settings})
    assert not done


# ---- seeds and comparison -----------------------------------------------------------------------


def test_seeds_give_a_mean_and_a_spread(rng):
    real = rng.normal(size=(60, 3))
    fakes = [rng.normal(shift, 1, (60, 3)) for shift in (0.0, 0.4, 0.8)]
    found = evaluate(real, fakes, PR)
    each = [evaluate(real, fake, PR).metrics["precision"].value for fake in fakes]
    assert found.metrics["precision"].value == pytest.approx(np.mean(each), abs=1e-12)
    assert found.seeds is not None
    assert found.seeds.values["precision"] == pytest.approx(each)
    assert found.seeds.sd["precision"] == pytest.approx(np.std(each, ddof=1))
    assert found.to_json()["seeds"]["metrics"]["recall"]["sd"] == found.seeds.sd["recall"]


def test_the_variance_between_seeds_is_that_of_their_mean(rng):
    """θ over seeds, real groups without effect: the jackknife's variance is s²/S."""
    from prpr.metrics.intervals import jackknife_parts

    values = rng.uniform(0.2, 0.8, 4)
    options = Options()
    one = registry.replicates(
        ("precision",), *(statistics(rng.normal(size=(30, 2))) for _ in "ab"), options
    )["precision"]
    found = seeds.pooled([one._replace(theta=np.full((21, 21), v)) for v in values])
    real, fake, both = jackknife_parts(found.theta)
    assert (real, both) == pytest.approx((0, 0), abs=1e-15)
    assert fake == pytest.approx(np.var(values, ddof=1) / 4)
    assert seeds.pooled([one]) is one


def test_two_models_are_compared_paired(rng):
    real = rng.normal(size=(80, 3))
    a, b = rng.normal(0, 1, (80, 3)), rng.normal(0.8, 1, (80, 3))
    found = evaluate(real, a, PR, compare=b)
    expected = compare(PR, statistics(real), statistics(a), statistics(b))
    assert found.comparison == expected.metrics
    plain = found.to_json()["comparison"]["precision"]
    assert set(plain) == {"difference", "low", "high", "p", "level"}
    assert found.to_json()["compare"] == "the compare array"
    assert evaluate(real, a, PR, compare=a).to_json()["comparison"]["recall"]["difference"] == 0
    assert "less the compare array" in table.text(found)


# ---- encoders and metrics -----------------------------------------------------------------------


def test_missing_weights_say_how_to_get_them_and_what_works_without(rng, monkeypatch, tmp_path):
    monkeypatch.setenv("PRPR_ENCODERS", str(tmp_path))
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    with pytest.raises(CheckpointError, match=r"convert_encoder .*--encoder=pixels works without"):
        evaluate(*x)


def test_names_suggest_the_nearest(rng):
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    for settings, near in (
        ({"metrics": ("presision",)}, "precision"),
        ({"encoder": "inceptoin"}, "inception"),
        ({"convention": "styelgan"}, "stylegan"),
        ({"resize": "leagcy_tf"}, "legacy_tf"),
    ):
        with pytest.raises(ConfigError, match=f"Did you mean '{near}'"):
            evaluate(*x, **settings)
    with pytest.raises(ConfigError, match="'pixels' takes images as they are"):
        evaluate(*x, encoder="pixels", resize="clean")


@pytest.fixture
def network(monkeypatch):
    """A stand-in for the networks: name -> mean colour of halves; records what was asked for."""
    asked = []

    def load(name, resize="clean", weights_path=None, *, batch=64):
        asked.append((name, resize))
        scale = 2.0 if name == "dinov2" else 1.0

        def forward(x):
            features = scale * x.reshape(len(x), 2, -1, 3).mean(2).reshape(len(x), 6)
            p = np.full((len(x), 4), 0.25, np.float32)
            return Encoded(features.astype(np.float32), p)

        return Encoder(f"{name} (stand-in, {resize})", lambda x: x, forward, batch=8)

    from prpr import encoders

    monkeypatch.setattr(encoders, "load", load)
    return asked


def test_the_default_encoder_is_inception_and_dinov2_is_added(rng, network):
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    found = evaluate(*x)
    assert network == [("inception", "clean")]
    assert list(found.metrics)[:4] == ["precision", "recall", "density", "coverage"]
    assert found.encoder == "inception (stand-in, clean)"
    assert found.resize == "clean"
    assert list(found.metrics)[4:] == ["fid"]
    found = evaluate(*x, ("precision", "fid", "fd_dinov2"))
    assert found.encoders == {"fd_dinov2": "dinov2 (stand-in, clean)"}
    assert found.metrics["fd_dinov2"].value == pytest.approx(4 * found.metrics["fid"].value)
    assert evaluate(*x, ("fd_dinov2",)).encoder == "dinov2 (stand-in, clean)"
    said = "\n".join(evaluate(*x, ("fid", "kid", "is"), encoder="vgg16").warnings)
    assert "kid: the features come from 'vgg16 (stand-in, clean)', and published" in said
    assert "fid: the features come from 'vgg16 (stand-in, clean)', and this name means" in said
    said = "\n".join(evaluate(*rng.normal(size=(2, 30, 3)), ("fid",)).warnings)
    assert "fid on given features: to be compared with published numbers only if incept" in said


def test_a_reference_is_encoded_once_and_used_again(tmp_path, rng, network):
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    expected = evaluate(*x, PR, resize="legacy_tf")
    package.save(tmp_path / "r.npz", package.reference(x[0], resize="legacy_tf"))
    network.clear()
    found = evaluate(str(tmp_path / "r.npz"), x[1], PR)
    assert network == [("inception", "legacy_tf")]
    assert found.metrics == expected.metrics
    package.save(tmp_path / "f.npz", package.reference(x[1], encoder="vgg16"))
    with pytest.raises(DataError, match="cannot be compared; encode both with one"):
        evaluate(str(tmp_path / "r.npz"), str(tmp_path / "f.npz"), PR)
    np.savez(tmp_path / "plain.npz", features=rng.normal(size=(30, 6)))
    with pytest.raises(ConfigError, match="say with --encoder what made the features"):
        evaluate(str(tmp_path / "plain.npz"), x[1], PR)
    found = evaluate(str(tmp_path / "r.npz"), str(tmp_path / "plain.npz"), PR)
    assert any("is not known: taken to be 'inception" in w for w in found.warnings)
    assert found.encoder.startswith("inception")


def test_what_a_reference_met_is_told_again_with_what_it_depends_on(tmp_path, rng, network):
    x = rng.integers(0, 256, (2, 30, 6, 6, 4), np.uint8)  # some pixels are transparent
    made = package.reference(x[0], convention="adm", n=20, seed=3)
    assert {key: made.about[key] for key in ("convention", "seed", "of", "resize")} == {
        "convention": "adm",
        "seed": 3,
        "of": 30,
        "resize": "legacy_tf",
    }
    package.save(tmp_path / "r.npz", made)
    for given in (tmp_path / "r.npz", made):
        said = "\n".join(evaluate(given, x[1], PR).warnings)
        assert "told when they were made: the real array: images with transparent pixels" in said
        assert "20 of the 30 samples of the real array, by a shuffle of seed 3" in said
    given = statistics(rng.normal(size=(9, 2)), about={"source": "mine"})
    again = package.reference(given)
    assert given.about == {"source": "mine"}
    assert again.about["source"] == "mine"


def test_features_of_another_resize_than_the_conventions_are_said(rng, network):
    x = rng.integers(0, 256, (2, 30, 6, 6, 3), np.uint8)
    clean = [package.reference(one, encoder="inception") for one in x]
    for settings, count in (({"convention": "adm"}, 2), ({"resize": "clean"}, 0), ({}, 0)):
        said = evaluate(*clean, PR, **settings).to_json()["warnings"]
        found = [line for line in said if "resized as 'clean', and 'legacy_tf' is asked" in line]
        assert len(found) == count


@pytest.mark.parametrize(
    ("name", "made_by", "said"),
    [
        ("fid", "inception (pt_inception-2015-12-05, clean)", ""),
        ("fid", "inception (mine 01234567, clean)", "not known to be pt_inception-2015-12-05"),
        ("fid", "my_inception.py:f (crc 01234567)", "this name means inception"),
        ("kid", "my_inception.py:f (crc 01234567)", "published numbers from inception"),
        ("fd_dinov2", "dinov2 (dinov2_vitl14_pretrain 01234567, clean)", ""),
        ("fd_dinov2", "dinov2_vitb14 (dinov2_vitb14_pretrain 01234567, clean)", "means dinov2"),
        ("fd", "my_inception.py:f (crc 01234567)", ""),
    ],
)
def test_names_that_stand_for_one_encoder(rng, name, made_by, said):
    sets = [statistics(rng.normal(size=(40, 2)), encoder=made_by) for _ in "ab"]
    found = [w for w in evaluate(*sets, (name,)).warnings if made_by in w]
    assert len(found) == bool(said)
    assert all(said in line for line in found)


def test_encode_images_gives_the_features(rng, network):
    x = rng.integers(0, 256, (20, 6, 6, 3), np.uint8)
    found = package.encode_images(x, "vgg16")
    assert found.dtype == np.float32
    assert found == pytest.approx(x.reshape(20, 2, -1, 3).mean(2).reshape(20, 6), rel=1e-6)


def test_authenticity_is_against_training_samples(rng):
    train, real = rng.normal(size=(2, 60, 3))
    found = evaluate(real, train, ("authenticity", "precision"), train=train)
    assert found.metrics["authenticity"].value == 0
    found = evaluate(real, train, ("authenticity",))
    assert found.metrics["authenticity"].value > 0.2
    assert any("name them with --train" in w for w in found.warnings)


# ---- streaming ----------------------------------------------------------------------------------


class Noise(Array):
    """Images that are made when they are read: 12 KiB each."""

    def __init__(self, size):
        super().__init__(np.zeros((1, 64, 64, 3), np.uint8), Notes("noise"))
        self.size = size

    def read(self, rows):
        rng = np.random.default_rng(int(rows[0]))
        x = rng.integers(0, 256, (len(rows), 64, 64, 3), np.uint8)
        x[:, 0, 0, 0] = rows % 251
        return [(image, -1) for image in x]


def test_images_stream_in_order_and_are_never_all_in_memory():
    size = 6000  # 74 MB of pixels
    encoder = Encoder("first", lambda x: x, lambda x: Encoded(x[:, 0, 0, :1] * np.float32(1)))
    encode(Noise(100), encoder, workers=4)
    tracemalloc.start()
    found = encode(Noise(size), encoder._replace(batch=32), workers=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.needed("given")[:, 0] == np.arange(size) % 251).all()
    assert peak < 8e6


def test_progress_goes_from_nothing_to_all(rng):
    seen = []
    x = rng.integers(0, 256, (2, 40, 6, 6, 3), np.uint8)
    evaluate(*x, PR, encoder="pixels", batch=16, progress=lambda *at: seen.append(at))
    steps = [(done, total) for what, done, total in seen if what == "encode real"]
    assert steps == [(0, 40), (16, 40), (32, 40), (40, 40)]


def test_an_error_in_a_thread_ends_the_work(rng):
    class Broken(Noise):
        def read(self, rows):
            raise DataError(f"cannot read {rows[0]}")

    encoder = Encoder("x", lambda x: x, lambda x: Encoded(x[:, 0, 0]))
    with pytest.raises(DataError, match="cannot read 0"):
        encode(Broken(1000), encoder, workers=2)


# ---- moments ------------------------------------------------------------------------------------


def test_published_moments_are_a_reference(tmp_path, rng, network):
    x = rng.integers(0, 256, (2, 40, 6, 6, 3), np.uint8)
    features = package.encode_images(x[0])
    np.savez(tmp_path / "m.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    expected = evaluate(*x, ("fid",)).metrics["fid"].value
    with pytest.raises(ConfigError, match="say with --encoder what made the features"):
        evaluate(tmp_path / "m.npz", x[1])
    found = evaluate(tmp_path / "m.npz", x[1], encoder="inception")
    assert list(found.metrics) == ["fid"]
    assert found.metrics["fid"].value == pytest.approx(expected)
    assert found.encoder == "inception (stand-in, clean)"
    assert (found.to_json()["n_real"], found.n_fake) == (None, 40)
    assert "(n = unknown)" in table.text(found)
    with pytest.raises(DataError, match=r"mu and sigma alone, .*scripts/reference_stats"):
        evaluate(tmp_path / "m.npz", x[1], PR, encoder="inception")


def test_adms_batches_hold_images_and_moments_of_the_whole_data(tmp_path, rng, monkeypatch):
    """Its Fréchet distance is against mu and sigma, its precision and recall against arr_0."""
    x = rng.integers(0, 256, (2, 40, 6, 6, 3), np.uint8)
    from prpr import encoders

    def load(name, resize="clean", weights_path=None, *, batch=64):
        wide = rng.normal(size=(108, 2048)).astype(np.float32)
        return Encoder(
            f"{name} (stand-in, {resize})",
            lambda x: x,
            lambda x: Encoded(x.reshape(len(x), -1).astype(np.float32) @ wide),
            batch=8,
        )

    monkeypatch.setattr(encoders, "load", load)
    mu, sigma = np.full(2048, 1e4), np.eye(2048)
    path = tmp_path / "VIRTUAL.npz"
    np.savez(path, arr_0=x[0], mu=mu, sigma=sigma, mu_s=np.zeros(2), sigma_s=np.eye(2))
    found = evaluate(path, x[1], ("precision", "fid"), convention="adm")
    plain = evaluate(path, x[1], ("precision", "fid"))
    assert found.metrics["fid"].value > 2048 * 0.9e8
    assert plain.metrics["fid"].value < 2048 * 0.9e8
    assert any("the Fréchet distance is against them" in w for w in found.warnings)
    assert any("they were not used" in w for w in plain.warnings)
    clean = evaluate(path, x[1], ("fid",), convention="adm", resize="clean")
    assert clean.metrics["fid"].value < 2048 * 0.9e8  # they are of another resize
    assert any("they were not used" in w for w in clean.warnings)


def test_a_set_of_unknown_number_does_not_cut_the_others(tmp_path, rng):
    x = rng.normal(size=(60, 3))
    np.savez(tmp_path / "m.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    found = evaluate(x, tmp_path / "m.npz", ("fd",), compare=x[:50])
    assert found.metrics["fd"].value == pytest.approx(0, abs=1e-9)
    assert (found.n_real, found.to_json()["n_fake"]) == (60, None)
    assert found.comparison is not None
    assert found.comparison["fd"].difference < 0
    assert evaluate(x, tmp_path / "m.npz", ("fd",), convention="studiogan").n_real == 60
    with pytest.raises(DataError, match="the compare array gives 1 sample, and every metric"):
        evaluate(x, tmp_path / "m.npz", ("fd",), compare=x[:1])
