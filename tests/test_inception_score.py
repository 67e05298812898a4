"""Inception Score against its definition by loops, closed forms and torch-fidelity."""

import numpy as np
import pytest

from prpr import errors
from prpr.metrics import Options, compare, inception_score, measure, statistics
from prpr.metrics import replicates as all_replicates
from prpr.metrics.groups import FAKE, split


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def draw(n, classes=7, seed=0, sharp=2.0):
    return softmax(sharp * np.random.default_rng(seed).normal(size=(n, classes)))


def stats_of(p):
    return statistics(np.zeros((len(p), 2)), probabilities=p)


def score(p, seed=0):
    return inception_score.inception_score(stats_of(p), seed)


def divergence(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def brute(p, seed=0, groups=20, without=None):
    """The mean over splits, by loops over samples."""
    cut = split(len(p), groups, seed, FAKE)
    labels, dealt = cut.labels(), inception_score.splits(cut)
    scores = []
    for s in range(inception_score.SPLITS):
        part = [row for row, g, t in zip(p, labels, dealt, strict=True) if t == s and g != without]
        mean = np.mean(part, axis=0)
        kl = [
            sum(a * np.log(a / b) for a, b in zip(row, mean, strict=True) if a > 0) for row in part
        ]
        scores.append(np.exp(np.mean(kl)))
    return np.mean(scores)


def test_equals_the_definition():
    p = draw(203)
    assert score(p, 3) == pytest.approx(brute(p, 3), rel=1e-12)


def test_without_groups_is_exact():
    p = draw(120)
    found = all_replicates(("is",), stats_of(p[:9]), stats_of(p), Options(groups=6, seed=2))["is"]
    want = [brute(p, 2, 6), *(brute(p, 2, 6, g) for g in range(6))]
    assert found.theta.shape == (7, 7)
    assert found.theta == pytest.approx(np.tile(want, (7, 1)), rel=1e-10)


@pytest.mark.parametrize("n", [20, 21, 39, 205, 999])
def test_groups_are_spread_over_splits(n):
    for groups in (2, 7, 20):
        cut = split(n, groups, 0, FAKE)
        dealt = inception_score.splits(cut)
        sizes = np.bincount(dealt)
        assert sizes.max() - sizes.min() <= 1
        for g in range(len(cut.cut) - 1):
            inside = np.bincount(dealt[cut.labels() == g], minlength=inception_score.SPLITS)
            assert inside.max() - inside.min() <= 1
            assert (sizes - inside > 0).all()


def test_closed_forms():
    # Sure of its class, and every class as often in each split: IS = C.
    p = np.tile(np.eye(4), (100, 1))
    found = score(p)
    assert 3.5 < found <= 4
    cut = split(400, 20, 0, FAKE)
    even = np.empty_like(p)
    even[cut.order] = np.eye(4)[(np.arange(400) // 10) % 4]
    assert score(even) == pytest.approx(4, rel=1e-12)
    # Always the same prediction: 1.
    assert score(np.tile(draw(1), (50, 1))) == pytest.approx(1, abs=1e-12)


def test_order_does_not_matter():
    # Sorted by class, splits in the order of samples would have one class each and a score of 1.
    p = np.repeat(np.eye(10), 200, axis=0)
    assert score(p) > 9.5


def test_half_floats_and_blocks(monkeypatch):
    p = draw(200).astype(np.float16)
    want = score(p.astype(np.float64))
    assert score(p) == pytest.approx(want, rel=1e-12)
    monkeypatch.setattr(inception_score, "ROWS", 7)
    assert score(p) == pytest.approx(want, rel=1e-12)


def test_equals_torch_fidelity():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 2 * np.random.default_rng(0).normal(size=(403, 7))
    dealt = inception_score.splits(split(403, 3, 0, FAKE))
    # Theirs cuts in order, into splits of the same sizes in another order.
    size = np.bincount(dealt)
    want = np.diff([403 * i // 10 for i in range(11)])
    assert sorted(size) == sorted(want)
    by_size = np.argsort(size, kind="stable")[np.argsort(np.argsort(want, kind="stable"))]
    order = np.concatenate([np.flatnonzero(dealt == s) for s in by_size])
    found = theirs.isc_features_to_metric(torch.from_numpy(logits[order]), 10, False)
    mine = all_replicates(("is",), *[stats_of(softmax(logits))] * 2, Options(groups=3))["is"]
    assert mine.theta[0, 0] == pytest.approx(found["inception_score_mean"], rel=1e-10)


def test_errors_and_notes():
    bare = statistics(np.zeros((50, 2)))
    with pytest.raises(errors.DataError, match=r"is needs the class probabilities.*softmax"):
        measure(("is",), bare, bare)
    with pytest.raises(errors.DataError, match="10 splits of at least 2 samples, got 19"):
        score(draw(19))
    assert np.isfinite(score(draw(20)))
    (note,) = measure(("is",), bare, stats_of(draw(50))).warnings
    assert note.startswith("is: 50 samples in 10 splits; published scores have 50000")


def test_intervals_cover():
    # 250 runs: a standard error of 1.4 %. Of 1000 runs 95 % to 96 % covered.
    found = []
    for run in range(250):
        p = draw(400, seed=run)
        found.append(
            measure(("is",), stats_of(p[:3]), stats_of(p), Options(seed=run)).metrics["is"]
        )
    value, low, high = np.array([one[:3] for one in found]).T
    assert 0.91 <= np.mean((low <= value.mean()) & (value.mean() <= high)) <= 0.99


def test_models_are_compared():
    real = stats_of(draw(30))
    sharp, dull = stats_of(draw(400, seed=1, sharp=3)), stats_of(draw(400, seed=2, sharp=1))
    found = compare(("is",), real, sharp, dull).metrics["is"]
    assert found.low > 0
    assert found.p < 1e-6
