"""The theory's figures: whole files, valid, not blank, repeatable; and what they claim holds."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prpr import plotting, theory_figures
from prpr.errors import WorkdirError

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_figures"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "new" / "folder"
    return theory_figures.write_all(folder)


def test_every_figure_is_written_as_png_and_pdf(written):
    names = {path.name for path in written}
    assert names == {f"{n}.{k}" for n in theory_figures.FIGURES for k in ("png", "pdf")}
    # Drafts are gone.
    assert {path.name for path in written[0].parent.iterdir()} == names
    for path in written:
        if path.suffix == ".pdf":
            data = path.read_bytes()
            assert data.startswith(b"%PDF-")
            assert b"%%EOF" in data[-32:]
            assert b"CreationDate" not in data
            continue
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        # Whole ink, some colour, and nothing that touches the border (a label cut off).
        dark = (pixels.min(2) < 128).mean()
        assert 0.005 < dark < 0.5
        assert (np.ptp(pixels.astype(int), axis=2) > 60).mean() > 0.002
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert (edge == 255).all(), path


def test_a_figure_is_the_same_bytes_again(written, tmp_path):
    again = plotting.save(theory_figures.pr_divergences(), tmp_path / "pr_divergences")
    for path in again:
        first = next(old for old in written if old.name == path.name)
        assert path.read_bytes() == first.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) & 0o044


def test_frontier_dots_lie_on_their_rays_and_curves():
    plane = theory_figures.frontiers().axes[0]
    assert plane.get_xlabel() == plotting.RECALL
    assert plane.get_ylabel() == plotting.PRECISION
    dots = [line.get_xydata()[0] for line in plane.lines if line.get_marker() == "o"]
    assert len(dots) == len(theory_figures.LAMS) * len(theory_figures.MODELS)
    slopes = np.sort([alpha / beta for beta, alpha in dots])
    np.testing.assert_allclose(slopes, np.repeat(theory_figures.LAMS, 4), rtol=1e-5)
    curves = [line.get_xydata() for line in plane.lines if len(line.get_xydata()) > 100]
    assert len(curves) == len(theory_figures.MODELS)
    for curve in curves:
        assert (np.diff(curve[:, 0]) <= 1e-5).all()
        assert (np.diff(curve[:, 1]) >= -1e-5).all()


def test_weights_are_even_exactly_for_the_symmetric_divergences():
    skewed, even = theory_figures.mixture_weights().axes
    for ax, symmetric in ((skewed, False), (even, True)):
        curves = [line.get_ydata() for line in ax.lines if len(line.get_xydata()) > 100]
        assert len(curves) == 4
        for y in curves:
            assert y[len(y) // 2] == pytest.approx(1)
            assert np.allclose(y, y[::-1], rtol=1e-4) == symmetric
    # KL reads recall (flat below λ = 1, 1/λ above), reverse KL precision: each other's mirror.
    kl, reverse_kl = (line.get_ydata() for line in skewed.lines[:2])
    np.testing.assert_allclose(kl, reverse_kl[::-1], rtol=1e-4)
    assert kl[0] > kl[-1]


def test_lam_colours_are_ordered_in_lightness_and_clipped():
    lams = np.geomspace(0.05, 20, 20)
    light = [np.dot(plotting.lam_color(lam), (0.2126, 0.7152, 0.0722)) for lam in lams]
    assert (np.diff(light) > 0).all()
    assert plotting.lam_color(1e9) == plotting.lam_color(20)


def test_save_leaves_no_draft_and_keeps_the_old_file_when_it_fails(tmp_path):
    plotting.save(plotting.subplots()[0], tmp_path / "a", formats=["png"])
    before = (tmp_path / "a.png").read_bytes()

    class Broken:
        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(WorkdirError, match="No space left"):
        plotting.save(Broken(), tmp_path / "a", formats=["png"])  # pyright: ignore
    assert (tmp_path / "a.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_unusable_folder_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "below"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("make_figures: cannot write the figure")
    assert str(out) in done.stderr


def test_the_script_is_executable_and_has_help():
    assert os.access(SCRIPT, os.X_OK)
    assert SCRIPT.read_text().startswith("#!/usr/bin/env python3\n")
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "figures/theory" in done.stdout
