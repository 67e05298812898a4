"""Conversion of encoders' weights: every tensor by name, nothing half-written, damage found."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import encoder_tools as tools
import numpy as np
import pytest
from fixtures import make_encoder_fixtures as originals

from prpr import encoders as all_encoders
from prpr.convert import encoders as convert
from prpr.encoders import compiled, networks, weights
from prpr.errors import CheckpointError, ConfigError, DataError, WorkdirError

SCRIPT = Path(__file__).resolve().parents[1] / "scripts/convert_encoder"
NAMES = ("inception", "vgg16", "dinov2")
ABOUT = {"encoder": "vgg16", "file": "vgg16-397923af.pth", "sha256": "397923af00"}


@pytest.fixture(scope="module", params=NAMES)
def given(request):
    """(name, state dict of the fixture)."""
    return request.param, originals.recorded_state(originals.load(request.param))


@pytest.fixture(scope="module")
def vgg16():
    return originals.recorded_state(originals.load("vgg16"))


def take(name, state):
    return convert.from_state(name, state, "FILE", tools.spec_of(name))


# --- names -----------------------------------------------------------------------------


def test_every_tensor_has_one_place(given):
    name, state = given
    done = take(name, state)
    table = convert.plan(compiled.shapes(tools.spec_of(name)))
    theirs = [line.theirs for line in table]
    assert len(set(theirs)) == len(theirs) == len(done.arrays)
    assert set(theirs) | set(done.unused) == set(state)
    assert not set(theirs) & set(done.unused)
    for line in table:
        np.testing.assert_array_equal(
            line.layout.to_theirs(done.arrays[line.ours]), state[line.theirs]
        )
        assert done.arrays[line.ours].flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("inception", "fc.bias, 94 counters of batches"),
        ("vgg16", "classifier.6.weight, classifier.6.bias"),
        ("dinov2", "mask_token"),
    ],
)
def test_what_is_not_used_is_told(name, unused):
    done = tools.converted(name)
    count = sum(a.size for p, a in done.arrays.items() if p.startswith("params"))
    first = f"{name}: {count:,} parameters in {len(done.arrays)} arrays"
    assert done.lines == [first, f"not used: {unused}"]


def test_what_is_not_used_may_be_absent(given):
    name, state = given
    done = take(name, state)
    less = {key: value for key, value in state.items() if key not in done.unused}
    assert take(name, less).lines == done.lines[:1]


def test_all_that_is_wrong_is_listed(given):
    name, state = given
    first, second, third, fourth = [
        key for key in state if not key.endswith("tracked") and key != "mask_token"
    ][:4]
    wrong = {key: value for key, value in state.items() if key != first}
    wrong[second] = np.zeros((*state[second].shape, 1), np.float32)
    wrong[third] = state[third].astype(np.float64)
    wrong[fourth] = np.full_like(state[fourth], np.nan)
    wrong["head.weight"] = np.zeros(3, np.float32)
    with pytest.raises(DataError) as error:
        take(name, wrong)
    text = str(error.value)
    for part in (
        f"FILE does not fit the encoder {name!r}, so nothing is written; 5 tensors differ: ",
        f"{first}: missing",
        f"{second}: shape {wrong[second].shape} instead of {state[second].shape}",
        f"{third}: float64 instead of float32",
        f"{fourth}: has NaN or infinity",
        "head.weight: not in this network",
        f"Give {networks.NETWORKS[name].file} unmodified",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "signs", "message"),
    [
        ("inception", ["features.28.weight"], "weights of 'vgg16', not of 'inception'.*--name vgg"),
        ("vgg16", ["Mixed_7c.branch_pool.conv.weight"], "--name inception, or vgg16-397923af.pth"),
        ("dinov2", ["blocks.11.attn.qkv.weight"], "weights of 'dinov2_vitb14', not of 'dinov2'"),
        (
            "dinov2_vitb14",
            ["blocks.11.attn.qkv.weight", "blocks.23.attn.qkv.weight"],
            "weights of 'dinov2', not of 'dinov2_vitb14'",
        ),
        (
            "dinov2_vitb14",
            ["blocks.11.attn.qkv.weight", "register_tokens"],
            r"DINOv2 with registers.*give dinov2_vitb14_pretrain\.pth",
        ),
    ],
)
def test_another_networks_file_is_recognised(name, signs, message):
    with pytest.raises(DataError, match=message):
        convert.from_state(name, dict.fromkeys(signs, np.zeros(1, np.float32)), "FILE")


def test_stylegans_names_of_vgg_are_torchvisions(vgg16):
    names = list(vgg16)
    convolutions = [key for key in names if key.startswith("features") and "weight" in key]
    renamed = {}
    for key, value in vgg16.items():
        module, _, leaf = key.rpartition(".")
        if module.startswith("features"):
            module = f"layers.conv{convolutions.index(f'{module}.weight') + 1}"
        else:
            module = f"layers.fc{int(module[-1]) // 3 + 1}"
        renamed[f"{module}.{leaf}"] = value
    renamed |= {f"lpips{i}": np.zeros(3, np.float32) for i in range(5)}
    plain, got = take("vgg16", vgg16), take("vgg16", renamed)
    assert list(got.arrays) == list(plain.arrays)
    for path, value in plain.arrays.items():
        np.testing.assert_array_equal(got.arrays[path], value)
    assert set(got.unused) == {*plain.unused, *(f"lpips{i}" for i in range(5))}


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"weights 'pixels'.*Known: dinov2, dinov2_vitb14, incep"):
        convert.from_state("pixels", {}, "FILE")


# --- the file --------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "deep" / "vgg16.npz"
    weights.write(path, tools.converted("vgg16").arrays, ABOUT)
    return path


def read(path, name="vgg16"):
    return weights.read(name, "vgg16-397923af.pth", "https://somewhere", path)


def test_what_is_written_is_read(file):
    arrays, about = read(file)
    assert about == {**ABOUT, "format": 1}
    for path, value in tools.converted("vgg16").arrays.items():
        np.testing.assert_array_equal(arrays[path], value)
        assert arrays[path].dtype == np.float32
    assert [p.name for p in file.parent.iterdir()] == ["vgg16.npz"]


@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_a_truncated_file_is_found(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"vgg16\.npz is damaged.*convert vgg16-397923af"):
        read(file)


def test_a_flipped_bit_is_found(file):
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    for at in (200, largest.file_size // 2, largest.file_size - 1):
        bad = whole.copy()
        # A member's data stand after its header of 30 bytes, its name, and what aligns them.
        bad[largest.header_offset + 30 + len(largest.filename) + at] ^= 1
        file.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"is damaged.*CRC"):
            read(file)


def test_no_damage_goes_unseen(tmp_path):
    path, value = tmp_path / "a.npz", np.arange(60, dtype=np.float32).reshape(5, 12)
    weights.write(path, {"params/a/kernel": value}, ABOUT)
    whole = path.read_bytes()
    found = 0
    for at in range(len(whole)):
        for bit in (0, 4):
            bad = bytearray(whole)
            bad[at] ^= 1 << bit
            path.write_bytes(bad)
            try:
                arrays = read(path).arrays
                compiled.nested(arrays, {"params/a/kernel": (5, 12)}, "FILE")
            except CheckpointError:
                found += 1
            else:  # a byte that says nothing, such as a date
                np.testing.assert_array_equal(arrays["params/a/kernel"], value)
    assert found > len(whole)


def test_a_folder_that_cannot_be_made(file):
    with pytest.raises(WorkdirError, match="cannot write"):
        weights.write(file / "below.npz", {}, ABOUT)


def test_a_file_of_something_else(tmp_path, file):
    with pytest.raises(CheckpointError, match=r"holds 'vgg16' .*, not 'inception'"):
        read(file, "inception")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(CheckpointError, match="no file of scripts/convert_encoder"):
        read(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(CheckpointError, match="no file of scripts/convert_encoder"):
        read(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="no file of scripts/convert_encoder"):
        read(tmp_path / "array.npy")
    with pytest.raises(CheckpointError, match="does not exist"):
        read(tmp_path)


def test_arrays_that_do_not_fit_are_listed():
    expected = compiled.shapes(tools.spec_of("vgg16"))
    arrays = dict(tools.converted("vgg16").arrays)
    del arrays["params/features_0/bias"]
    arrays["params/features_2/bias"] = np.zeros(3, np.float32)
    arrays["params/features_5/bias"] = arrays["params/features_5/bias"].astype(np.float16)
    arrays["params/x"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError) as error:
        compiled.nested(arrays, expected, "FILE")
    for part in (
        "FILE does not hold this network; 4 arrays differ",
        "params/features_0/bias: missing",
        "params/features_2/bias: shape (3,) instead of (4,)",
        "params/features_5/bias: float16 instead of float32",
        "params/x: not in this network",
    ):
        assert part in str(error.value)


def test_a_full_disk_leaves_what_was_there(small_disk):
    path = small_disk / "vgg16.npz"
    path.write_bytes(b"older")
    with pytest.raises(WorkdirError, match=r"cannot write .*No space left.*another --out"):
        weights.write(path, {"x": np.zeros(10**6, np.float32)}, ABOUT)
    assert [p.name for p in small_disk.iterdir()] == ["vgg16.npz"]
    assert path.read_bytes() == b"older"


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights.write(tmp_path / "a.npz", {"x": np.zeros(3, np.float32)}, ABOUT)
    assert not list(tmp_path.iterdir())


# --- from .pth -------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch, tmp_path):
    """Published networks are those of the fixtures, and have their folder to themselves."""
    monkeypatch.setattr(networks, "spec_of", tools.spec_of)
    monkeypatch.setattr(convert, "_recognise", lambda *_: None)
    monkeypatch.setenv("PRPR_ENCODERS", str(tmp_path / "home"))


@pytest.fixture
def pth(tmp_path):
    """name, state -> a file that torch.save wrote."""
    torch = pytest.importorskip("torch")

    def make(state, file="mine.pth"):
        path = tmp_path / file
        torch.save({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, path)
        return path

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_pth_becomes_an_encoder(name, narrow, pth):
    record = originals.load(name)
    lines = convert.convert(name, pth(originals.recorded_state(record)))
    assert lines[-1] == f"written to {weights.path_of(name)}"
    encoder = all_encoders.load(name, batch=2)
    assert encoder.name.startswith(f"{name} (mine ")
    assert f"in tables: {encoder.name}".replace("clean", "RESIZE") in lines
    told = [line for line in lines if "not the published" in line]
    assert len(told) == (name != "dinov2")  # whose file has no checksum in its name
    size = originals.SIZES[name]
    features = encoder.encode(originals.images(size, size))
    scale = np.abs(record["features"]).max()
    np.testing.assert_allclose(features, record["features"], atol=1e-5 * scale)


def test_what_is_there_is_kept(narrow, pth, vgg16, tmp_path):
    source, out = pth(vgg16), tmp_path / "out.npz"
    convert.convert("vgg16", source, out)
    before = out.read_bytes()
    with pytest.raises(WorkdirError, match=r"out\.npz exists: choose another --out, or give --ov"):
        convert.convert("vgg16", source, out)
    less = {key: value for key, value in vgg16.items() if key != "features.0.bias"}
    with pytest.raises(DataError, match=r"features\.0\.bias: missing"):
        convert.convert("vgg16", pth(less), out, overwrite=True)
    assert out.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"mine.pth", "out.npz"}


def test_a_damaged_pth_is_named(narrow, pth, vgg16, tmp_path):
    source = pth(vgg16)
    source.write_bytes(source.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"mine\.pth is no whole PyTorch file"):
        convert.convert("vgg16", source)
    with pytest.raises(DataError, match=r"nowhere\.pth does not exist"):
        convert.convert("vgg16", tmp_path / "nowhere.pth")
    assert not (tmp_path / "home").exists()


def test_a_checkpoint_that_holds_more_is_refused(narrow, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"'epoch', which is no tensor.*\(vgg16-397923af\.pth\)"):
        convert.convert("vgg16", tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_not_run(narrow, tmp_path):
    torch = pytest.importorskip("torch")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "vgg16.pt")
    with pytest.raises(DataError, match=r"TorchScript archive, which holds code.*torch\.jit\.load"):
        convert.convert("vgg16", tmp_path / "vgg16.pt")


# --- the command -----------------------------------------------------------------------


def call(*arguments, **env):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def command():
    loader = importlib.machinery.SourceFileLoader("convert_encoder", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_command_names_files_and_pages():
    text = command()._parser().format_help()
    for network in networks.NETWORKS.values():
        assert network.file in text
        assert network.page in text


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    code, out, err = call("--name", "incept", "--from", tmp_path / "a.pth")
    assert (code, out) == (2, "")
    assert "Did you mean 'inception'" in err
    assert len(err.splitlines()) == 1
    code, out, err = call("--name", "vgg16", "--from", tmp_path, "--out", SCRIPT)
    assert (code, out) == (1, "")
    assert "exists: choose another --out" in err


def test_the_command_converts(narrow, pth, vgg16, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.npz"
    arguments = ["--name", "vgg16", "--from", str(pth(vgg16)), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["convert_encoder", *arguments])
    assert command().main() == 0
    assert capsys.readouterr().out.endswith(f"written to {out}\n")
    assert all_encoders.load("vgg16", weights=out).encode(
        originals.images(9, 9)
    ).shape == (2, 256)  # fmt: skip
