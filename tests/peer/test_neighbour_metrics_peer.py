"""The metrics on neighbours against their authors' own code, on the same features.

PRPR_METRIC_PEERS is a folder with checkouts, by the names of their repositories:
Probablistic_precision_recall (kdst-team), ClippedDensityCoverage (nicolassalvy),
emergent_asymmetry_pr (mahyarkoy), TopPR (LAIT-CVLab), dgm-eval (layer6ai-labs).
"""

import importlib.util
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from prpr.metrics import measure, statistics, topological
from prpr.metrics.family import Options

PEERS = os.environ.get("PRPR_METRIC_PEERS", "")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not PEERS, reason="PRPR_METRIC_PEERS names no folder"),
]
CASES = ("near", "narrow", "modes")


def _load(path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    file = Path(PEERS) / path
    if not file.exists():
        pytest.skip(f"no {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=CASES)
def pair(request):
    rng = np.random.default_rng(CASES.index(request.param))
    real, fake = rng.normal(size=(600, 10)), rng.normal(size=(500, 10))
    if request.param == "near":
        return real, fake + 0.3
    if request.param == "narrow":
        return real, 0.7 * fake
    return real + 30 * (np.arange(600) % 5)[:, None], fake + 30 * (np.arange(500) % 3)[:, None]


def _ours(pair, *names, **options):
    found = measure(names, statistics(pair[0]), statistics(pair[1]), Options(**options)).metrics
    return [found[name].value for name in names]


def test_p_precision_and_p_recall(pair):
    theirs = _load("Probablistic_precision_recall/metric/pp_pr.py")
    want = theirs.compute_pprecision_precall(*pair)
    # scikit-learn's distances are products in float64, ours differences.
    assert _ours(pair, "p_precision", "p_recall") == pytest.approx(want, abs=1e-9)


def test_clipped_density_and_coverage(pair):
    theirs = _load(
        "ClippedDensityCoverage/ClippedDensityCoverage/metrics/Clipped_Density_Coverage.py"
    )
    peer = theirs.ClippedDensityCoverage(pair[0], K=5, n_jobs=1)
    density, coverage = _ours(pair, "clipped_density", "clipped_coverage")
    assert density == pytest.approx(peer.ClippedDensity(pair[1]), abs=1e-12)
    assert coverage == pytest.approx(peer.ClippedCoverage(pair[1]), abs=6 / 500)


def test_symmetric_precision_and_recall(pair):
    pytest.importorskip("torchvision")
    theirs = _load("emergent_asymmetry_pr/manifmetric/manifmetric.py")
    peer = theirs.ManifoldMetric(ref_data=pair[0], gen_data=pair[1], k=5)
    want = (
        peer.sym_precision()["sym_precision"],
        peer.sym_recall()["sym_recall"],
        peer.comp_precision(),
    )
    names = "precision_symmetric", "recall_symmetric", "precision_complement"
    assert _ours(pair, *names) == pytest.approx(want, abs=1e-12)


def test_authenticity(pair):
    theirs = _load("dgm-eval/dgm_eval/metrics/authpct.py")
    # Theirs is in float32.
    want = theirs.compute_authpct(*(x.astype(np.float32) for x in pair)) / 100
    assert _ours(pair, "authenticity") == pytest.approx([want], abs=2 / 500)


def test_bandwidth_is_the_packages(monkeypatch):
    """Whether the number of distances that h is the median of is even or odd."""
    monkeypatch.setitem(sys.modules, "gudhi", types.ModuleType("gudhi"))
    theirs = _load("TopPR/top_pr/top_pr.py")
    band, used = theirs.confband_est, []
    monkeypatch.setattr(
        theirs, "confband_est", lambda data, h, **rest: used.append(h) or band(data, h, **rest)
    )
    rng = np.random.default_rng(8)
    sets = [rng.normal(size=(n, 5)).astype(np.float32) for n in (120, 121)]
    theirs.compute_top_pr(real_features=sets[0], fake_features=sets[1])
    want = [topological.bandwidth(x.astype(np.float64), 25) for x in sets]
    assert used == pytest.approx(want, rel=1e-12)


def test_topp_and_topr_agree_over_seeds(pair, monkeypatch):
    """Order and bootstrap are random on both sides: the means of ten agree to their error."""
    monkeypatch.setitem(sys.modules, "gudhi", types.ModuleType("gudhi"))
    theirs = _load("TopPR/top_pr/top_pr.py")
    rng = np.random.default_rng(9)
    np.random.seed(0)  # noqa: NPY002 - the peer's generator
    want, got = [], []
    for seed in range(10):
        shuffled = [x[rng.permutation(len(x))] for x in pair]
        one = theirs.compute_top_pr(real_features=shuffled[0], fake_features=shuffled[1])
        want.append([one["fidelity"], one["diversity"]])
        got.append(_ours(pair, "topp", "topr", seed=seed))
    want, got = np.array(want), np.array(got)
    error = np.sqrt((want.var(axis=0) + got.var(axis=0)) / 9)
    assert np.all(np.abs(want.mean(axis=0) - got.mean(axis=0)) <= 4 * error + 1e-12)
