"""Ours against the original BigGAN's own code, at realistic shapes, random weights and moments.

    PRPR_BIGGAN_PYTORCH=checkout/of/ajbrock/BigGAN-PyTorch \\
    PRPR_BIGGAN_HF=checkout/of/huggingface/pytorch-pretrained-BigGAN \\
    python -m pytest tests/peer/test_biggan_peer.py -m peer

Outputs, u, σ and running moments agree to 1e-4 of the largest of their tensor in float32, in
training and in evaluation. Gradients of the hinge losses are compared in float64, where they
agree to 1e-5 of the norm of each tensor: in float32 a relu that rounding switches can move the
gradient of everything before it, by .5 % at 128 with four images, so that float32 says little.
"""

import ast
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from fixtures import biggan_equality as equality
from fixtures import make_biggan_fixtures as originals

from prpr import convert, regularizers, weights

pytestmark = [pytest.mark.peer, pytest.mark.slow]

IMAGENET = {"G_shared": True, "hier": True, "SN_eps": 1e-6, "BN_eps": 1e-5, "n_classes": 20}
CASES = {
    # scripts/launch_cifar_ema.sh at an eighth of its width
    "32 as on CIFAR-10": {
        "resolution": 32, "G_shared": False, "hier": False, "n_classes": 10, "dim_z": 128,
        "G_ch": 8, "D_ch": 8, "G_attn": "0", "D_attn": "0", "SN_eps": 1e-8,
    },
    "32 shared, not hierarchical": {
        "resolution": 32, "G_shared": True, "hier": False, "n_classes": 10, "dim_z": 24,
        "shared_dim": 16, "G_ch": 4, "D_ch": 4, "G_attn": "0", "D_attn": "0",
    },
    "64": {
        **IMAGENET, "resolution": 64, "shared_dim": 32, "dim_z": 100,
        "G_ch": 8, "D_ch": 8, "G_attn": "32", "D_attn": "32",
    },
    # scripts/launch_BigGAN_bs256x8.sh at a twelfth of its width
    "128": {
        **IMAGENET, "resolution": 128, "shared_dim": 128, "dim_z": 120,
        "G_ch": 8, "D_ch": 8, "G_attn": "64", "D_attn": "64",
    },
    "128 with its own batch norm": {
        **IMAGENET, "resolution": 128, "shared_dim": 16, "dim_z": 24, "mybn": True,
        "G_ch": 4, "D_ch": 8, "G_attn": "64", "D_attn": "64",
    },
    "256": {
        **IMAGENET, "resolution": 256, "shared_dim": 16, "dim_z": 28,
        "G_ch": 4, "D_ch": 4, "G_attn": "64", "D_attn": "64",
    },
    "deep 64": {
        **IMAGENET, "deep": True, "resolution": 64, "shared_dim": 16, "dim_z": 16,
        "G_ch": 8, "D_ch": 8, "G_attn": "32", "D_attn": "32",
    },
    "deep 128": {
        **IMAGENET, "deep": True, "resolution": 128, "shared_dim": 16, "dim_z": 16,
        "G_ch": 4, "D_ch": 4, "G_attn": "64", "D_attn": "64",
    },
}  # fmt: skip
FULL = {"G_ch": 96, "D_ch": 96, "dim_z": 120, "shared_dim": 128, "n_classes": 1000}


def checkout(variable: str) -> Path:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set: it names a checkout of the original")
    pytest.importorskip("torch")
    return Path(path)


@pytest.fixture(scope="module")
def modules():
    with originals.original(checkout("PRPR_BIGGAN_PYTORCH")) as found:
        yield found


def by_the_same_rule(record: dict, case: dict) -> dict:
    """With --mybn the original keeps biased variances; ours are unbiased, as without it."""
    if not case.get("mybn"):
        return record
    start = originals.N * 4 * 4
    sizes = {4: start, **{4 * 2**i: start * 4**i for i in range(1, 8)}}
    out = dict(record)
    for key, value in record.items():
        if key.startswith("after/G/") and key.endswith("stored_var"):
            parts = key.split("/")[2].split(".")
            # bn1 of block i sees what block i − 1 made, bn2 and the last norm what is doubled.
            i = int(parts[1]) + (parts[3] == "bn2") if parts[0] == "blocks" else 5
            n = sizes[4 * 2**i]
            before = record[key.replace("after/", "")]
            out[key] = 0.9 * before + (value - 0.9 * before) * n / (n - 1)
    return out


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_original(modules, name):
    case = CASES[name]
    record = by_the_same_rule(originals.record(modules, case), case)
    converted = equality.converted(record)
    equality.assert_equal(equality.evaluate(converted, case), record, rtol=1e-4)
    single = equality.train(converted, case)
    learned = {key for key in single if key.startswith("grad/")}
    equality.assert_equal({k: v for k, v in single.items() if k not in learned}, record, rtol=1e-4)
    with jax.enable_x64(True):
        double = equality.train(converted, case, "float64")
    gradients = {key: double[key] for key in learned}
    equality.assert_equal(gradients, record, rtol=1e-4, grad_rtol=1e-5)


def test_the_original_loads_what_we_write_strictly(modules, tmp_path):
    import torch

    case = {**CASES["deep 64"], "mybn": True}
    G, D = originals.build(modules, case)
    for module, name in ((G, "G"), (D, "D")):
        torch.save(module.state_dict(), tmp_path / f"{name}.pth")
        loss = sum((p * p).sum() for p in module.parameters())
        loss.backward()
        module.optim.step()
        torch.save(module.optim.state_dict(), tmp_path / f"{name}_optim.pth")
    converted = convert.from_files(
        generator=tmp_path / "G.pth",
        critic=tmp_path / "D.pth",
        optimizers=[tmp_path / "D_optim.pth", tmp_path / "G_optim.pth"],
    )
    convert.write(tmp_path / "w", converted)
    convert.to_files(tmp_path / "w", tmp_path / "back")
    fresh = originals.build(modules, case)
    for module, name in zip(fresh, ("G", "D"), strict=True):
        written = tmp_path / "back" / f"{name}.pth"
        module.load_state_dict(torch.load(written, weights_only=True), strict=True)
        first = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        assert all(torch.equal(first[k], v) for k, v in module.state_dict().items())
        optim = torch.load(tmp_path / "back" / f"{name}_optim.pth", weights_only=True)
        module.optim.load_state_dict(optim)
        first = torch.load(tmp_path / f"{name}_optim.pth", weights_only=True)
        loaded = module.optim.state_dict()
        for i, entry in first["state"].items():
            for key, value in entry.items():
                assert torch.equal(value, loaded["state"][i][key])
        assert loaded["param_groups"] == first["param_groups"]


@pytest.mark.parametrize("resolution", [64, 128, 256])
@pytest.mark.parametrize("deep", [False, True])
def test_parameter_counts_at_full_width(modules, resolution, deep):
    """And names: a state dict of the original's names and shapes is one of ours, whole."""
    import torch

    case = {**IMAGENET, **FULL, "resolution": resolution, "G_attn": "64", "D_attn": "64"}
    if resolution == 64:
        case |= {"G_attn": "32", "D_attn": "32"}
    # "meta" tensors have shapes and no memory.
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "fill", lambda *_: None)
        made = originals.build(modules, {**case, "deep": deep})
    states = {
        name: {k: np.broadcast_to(np.float32(0), v.shape) for k, v in module.state_dict().items()}
        for name, module in zip(("generator", "critic"), made, strict=True)
    }
    found = [convert.infer.recognise(states[name], name) for name in states]
    model, side, classes = convert.infer.together(dict(zip(states, found, strict=True)))
    for name, module in zip(states, made, strict=True):
        leaves = convert.leaf_shapes(weights.shapes(model, side, classes, name))
        table = convert.names.plan(leaves, stage=convert.stage(name, model))
        theirs = {line.theirs: line.their_shape(leaves[line.ours]) for line in table}
        assert theirs == {k: tuple(v.shape) for k, v in module.state_dict().items()}
        ours = sum(int(np.prod(s)) for path, s in leaves.items() if path.startswith("params/"))
        assert ours == sum(p.numel() for p in module.parameters())
        learned = [line.theirs for line in table if line.learned]
        assert learned == [k for k, _ in module.named_parameters()]


def original_ortho() -> Any:
    """utils.ortho alone: utils.py as a whole imports what only training needs."""
    import torch

    tree = ast.parse((checkout("PRPR_BIGGAN_PYTORCH") / "utils.py").read_text())
    found = [node for node in tree.body if getattr(node, "name", "") == "ortho"]
    space = {"torch": torch}
    exec(compile(ast.Module(found, []), "utils.py", "exec"), space)
    return space["ortho"]


def test_orthogonal_regularisation_has_the_originals_gradient(modules):
    import torch

    G, D = originals.build(modules, CASES["32 shared, not hierarchical"])
    converted = convert.from_states({"generator": originals.state(G), "critic": originals.state(D)})
    for module, name in ((G, "generator"), (D, "critic")):
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        original_ortho()(module, 1.0, blacklist=list(G.shared.parameters()))
        net = getattr(converted.weights, name)
        gradient = convert.flat({"params": jax.grad(regularizers.orthogonal)(net["params"])})
        expected = {key: p.grad.numpy() for key, p in module.named_parameters()}
        lines = [line for line in convert.names.plan(convert.leaf_shapes(net)) if line.learned]
        assert len(lines) == len(expected)
        for line in lines:
            got = line.layout.to_theirs(np.asarray(gradient[line.ours]))
            want = expected[line.theirs]
            atol = 1e-5 * np.abs(want).max() + 1e-8
            np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=line.theirs)


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("truncation", [1.0, 0.7, 0.43])
def test_equal_to_huggingfaces(size, truncation):
    model = originals.huggingface(checkout("PRPR_BIGGAN_HF"))
    case = originals.huggingface_case(
        channel_width=8, z_dim=16, class_embed_dim=16, num_classes=20, n_stats=51
    )
    if size == 256:
        widths = [(16, 16), (16, 8), (8, 8), (8, 4), (4, 2), (2, 1)]
        layers = [(up, a, b if up else a) for a, b in widths for up in (False, True)]
        case |= {"layers": layers, "resolution": 256}
    record = originals.huggingface_record(model, case, (truncation,))
    converted = equality.converted(record, truncation=truncation)
    seen = {f"eval/{truncation}": equality.evaluate(converted, case)["eval/G"]}
    equality.assert_equal(seen, record, rtol=1e-4, grad_rtol=0)
