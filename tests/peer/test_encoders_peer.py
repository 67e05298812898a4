"""Encoders at full size against the originals' own code, on made-up weights.

    PRPR_DINOV2=checkout/of/facebookresearch/dinov2 \\
    PRPR_CLEANFID=checkout/of/GaParmar/clean-fid \\
    PRPR_PYTORCH_FID=checkout/of/mseitzer/pytorch-fid \\
    python -m pytest tests/peer/test_encoders_peer.py -m peer

Needs PyTorch, torchvision and torch-fidelity. Features and probabilities agree to 1e-4 of the
largest, from the bytes of an image on, each original resizing and normalising in its own way.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from fixtures import make_encoder_fixtures as originals

from prpr import encoders
from prpr.convert import encoders as convert
from prpr.encoders import compiled, networks, resize

pytestmark = [pytest.mark.peer, pytest.mark.slow]
SHAPES = [(40, 52), (300, 411)]


def needs(variable):
    return pytest.mark.skipif(variable not in os.environ, reason=f"{variable} names no checkout")


def encoder(name, how, state):
    """Ours with a state dict of the original."""
    spec = networks.spec_of(name, how)
    arrays = convert.from_state(name, state, name).arrays
    variables = compiled.nested(arrays, compiled.shapes(spec), name)
    return compiled.build(spec, variables, name, "made up", how, 2)


def state_of(module, names=None):
    return originals.state(names or originals.names_of(module))


def assert_near(got, expected, most=1e-4):
    found = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"largest difference, of the largest: {found:.1e}")
    assert found < most


@pytest.fixture(scope="module")
def inception():
    pytest.importorskip("torch_fidelity")
    return originals.fill(originals.inception())


def test_inception_is_torch_fidelitys(inception):
    ours = encoder("inception", "legacy_tf", state_of(inception))
    for shape in SHAPES:
        x = originals.images(*shape)
        got, expected = ours.encode_all(x), originals.run_inception(inception, x)
        assert_near(got.features, expected["features"])
        assert_near(got.probabilities, expected["probabilities"])


@needs("PRPR_PYTORCH_FID")
@pytest.mark.filterwarnings("ignore")
def test_inception_is_pytorch_fids(inception, monkeypatch):
    import torch

    path = Path(os.environ["PRPR_PYTORCH_FID"]) / "src/pytorch_fid/inception.py"
    spec = importlib.util.spec_from_file_location("original_pytorch_fid", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = inception.state_dict()
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: given)
    theirs = module.InceptionV3([3]).eval()
    ours = encoder("inception", "legacy_pytorch", state_of(inception))
    for shape in SHAPES:
        x = originals.images(*shape)
        with torch.no_grad():
            (out,) = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).float() / 255)
        assert_near(ours.encode(x), out[:, :, 0, 0].numpy())


def test_vgg16_is_torchvisions_as_torch_fidelity_uses_it():
    pytest.importorskip("torch_fidelity")
    theirs = originals.vgg16()
    originals.fill(theirs.model)
    ours = encoder("vgg16", "legacy_tf", state_of(theirs, theirs.whole))
    for shape in SHAPES:
        x = originals.images(*shape)
        assert_near(ours.encode(x), originals.run_vgg16(theirs, x)["features"])


@needs("PRPR_DINOV2")
@pytest.mark.parametrize(("name", "arch"), [("dinov2_vitb14", "vit_base"), ("dinov2", "vit_large")])
def test_dinov2_is_the_originals(name, arch):
    pytest.importorskip("torch")
    theirs = originals.fill(originals.dinov2(arch))
    ours = encoder(name, "clean", state_of(theirs))
    x = originals.images(224, 224)
    assert_near(ours.encode(x), originals.run_dinov2(theirs, x)["features"])


@needs("PRPR_CLEANFID")
@pytest.mark.parametrize("shape", [*SHAPES, (299, 299), (1024, 700)])
def test_clean_is_clean_fids(shape):
    pytest.importorskip("torch")
    theirs = originals.clean_fid().build_resizer("clean")
    image = originals.images(*shape, 1)[0]
    np.testing.assert_allclose(resize.get("clean")(image, 299), theirs(image), atol=1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (299, 299), (1024, 700)])
def test_the_other_resizes_are_their_originals(shape):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    tensorflow = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    from PIL import Image

    image = originals.images(*shape, 1)[0]
    x = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    size = (224, 224)
    bicubic = torchvision.transforms.InterpolationMode.BICUBIC
    whole = torchvision.transforms.Resize(size, bicubic)(Image.fromarray(image))
    np.testing.assert_array_equal(resize.get("clean_bytes")(image, 224), np.asarray(whole))
    expected = {
        "legacy_tf": tensorflow.interpolate_bilinear_2d_like_tensorflow1x(
            x, size=size, align_corners=False
        ),
        "legacy_pytorch": torch.nn.functional.interpolate(
            x, size=size, mode="bilinear", align_corners=False
        ),
    }
    for name, out in expected.items():
        got = resize.get(name)(image, 224)
        np.testing.assert_allclose(got, out[0].numpy().transpose(1, 2, 0), atol=2e-2)


def test_the_command_converts_the_published_size(inception, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("PRPR_ENCODERS", str(tmp_path))
    torch.save(inception.state_dict(), tmp_path / "mine.pth")
    told = convert.convert("inception", tmp_path / "mine.pth")
    assert told[:2] == [
        "inception: 23,849,952 parameters in 471 arrays",
        "not used: fc.bias, 94 counters of batches",
    ]
    x = originals.images(299, 299)
    ours = encoders.load("inception", batch=2).encode_all(x)
    assert_near(ours.features, originals.run_inception(inception, x)["features"])
