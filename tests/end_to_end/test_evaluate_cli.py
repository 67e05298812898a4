"""experiments/evaluate.py and scripts/reference_stats as a user runs them."""

import json

import numpy as np
from PIL import Image

EVALUATE = "experiments/evaluate.py"


def test_folders_a_reference_and_json(call, tmp_path):
    rng = np.random.default_rng(0)
    for side in ("real", "fake"):
        for name in ("a", "b"):
            (tmp_path / side / name).mkdir(parents=True)
            for i in range(12):
                x = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(x).save(tmp_path / side / name / f"{i}.png")
    real, fake = f"--real={tmp_path}/real", f"--fake={tmp_path}/fake"
    names = "--metrics=precision,recall"
    code, out, err = call(EVALUATE, real, fake, "--encoder=pixels", names, "--json=-")
    assert code == 0, err
    found = json.loads(out)  # one object and nothing else
    assert (found["n_real"], found["n_fake"], found["encoder"]) == (24, 24, "pixels")
    code, out, err = call(
        *("scripts/reference_stats", f"--data={tmp_path}/real", "--encoder=pixels"),
        f"--out={tmp_path}/real.npz",
    )
    assert code == 0, err
    assert "24 samples, D = 192, pixels" in out
    out_file = tmp_path / "out.json"
    code, out, err = call(
        *(EVALUATE, f"--real={tmp_path}/real.npz", fake, names, "--per_class"),
        f"--json={out_file}",
    )
    assert code == 0, err
    again = json.loads(out_file.read_text())
    assert again["metrics"] == found["metrics"]
    assert list(again["per_class"]["classes"]) == ["a", "b"]
    assert "95 % interval" in out


def test_what_cannot_be_used_is_one_line(call, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = call(EVALUATE, f"--real={tmp_path}/empty", f"--fake={tmp_path}", "--json=-")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: no image in {tmp_path}/empty")
    assert len(err.splitlines()) == 1
    code, _, err = call(EVALUATE, "--metrics=fid")
    assert code == 2
    assert "--real and --fake are needed" in err
