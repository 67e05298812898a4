"""The measured frontier against closed forms, exact discrete frontiers and slow recounts."""

import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from prpr import errors, frontier
from prpr.metrics import (
    Options,
    Statistics,
    classifiers,
    curves,
    error_rates,
    intervals,
    statistics,
)
from prpr.metrics.classifiers import Scores
from prpr.metrics.groups import FAKE, REAL, split

LAM = np.array([0.1, 0.5, 1.0, 3.0, 10.0])


def gaussians(shift, lam):
    """α(λ) of N(0, I) against N(μ, I), |μ| = shift: log r is N(±shift²/2, shift²)."""
    half, c = shift / 2, np.log(lam) / shift
    return lam * norm.cdf(-c - half) + norm.cdf(c - half)


def draw(n, shift=0.0, seed=0, width=1):
    """n real and n fake samples whose distributions are `shift` apart."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=(n, width)) + shift / np.sqrt(width)


def folded(real, fake, seed=0):
    """Scores with folds as the estimators have them."""
    cut = [split(len(s), 10, seed, side).labels() for s, side in ((real, REAL), (fake, FAKE))]
    return Scores(np.asarray(real, float), np.asarray(fake, float), cut[0], cut[1])


def alphas(scores, lam: Any = LAM, options=None):
    return curves._alphas(error_rates.count(scores, options or Options()), np.asarray(lam), scores)


def test_gaussians_is_the_integral():
    x = np.linspace(-12, 14, 400_001)
    p, q = norm.pdf(x), norm.pdf(x, 1.5)
    for one in LAM:
        exact = np.minimum(one * p, q).sum() * (x[1] - x[0])
        assert gaussians(1.5, one) == pytest.approx(exact, abs=1e-8)


# --- from scores ------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.5])
def test_exact_ratios_give_the_closed_form(shift):
    x, y = draw(20_000, shift)
    # log r = shift²/2 − shift·x
    found = alphas(folded(shift**2 / 2 - shift * x[:, 0], shift**2 / 2 - shift * y[:, 0]))
    for one, lam, want in zip(found, LAM, gaussians(shift, LAM), strict=True):
        got = intervals.estimate(one, 0.999)
        assert got.low <= want <= got.high
        assert got.value == pytest.approx(want, abs=0.03 * min(1, lam))


def test_discrete_distributions_have_their_exact_frontier():
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(12))
    p[:2], q[-2:] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    with np.errstate(divide="ignore"):
        log_r = np.clip(np.log(p) - np.log(q), -30, 30)
    scores = folded(log_r[rng.choice(12, 30_000, p=p)], log_r[rng.choice(12, 30_000, p=q)])
    want = np.minimum(LAM[:, None] * p, q).sum(axis=1)
    got = np.array([one.theta[0, 0] for one in alphas(scores)])
    assert got == pytest.approx(want, abs=0.012)
    assert error_rates.plug_in(scores.real, scores.fake, LAM) == pytest.approx(want, abs=0.012)


def test_plug_in_is_the_frontiers():
    scores = folded(*np.random.default_rng(2).normal(size=(2, 300)))
    got = error_rates.plug_in(scores.real, scores.fake[:200], LAM)
    want = frontier.curve(scores.real, scores.fake[:200], lam=LAM)
    assert got == pytest.approx(np.asarray(want.alpha), rel=1e-5)


def recount(scores, lam, out_real, out_fake, t):
    """best and chosen by loops, without some of the samples; t chosen on ALL other folds."""
    real, fake = scores.real[~out_real], scores.fake[~out_fake]
    best = min(lam * (real < one).mean() + (fake >= one).mean() for one in t)
    missed = passed = 0
    for k in range(10):
        rest = scores.real[scores.real_fold != k], scores.fake[scores.fake_fold != k]
        risk = np.array([lam * (rest[0] < one).mean() + (rest[1] >= one).mean() for one in t])
        at = t[error_rates.lowest(np.round(risk, 12), t)]
        missed += ((scores.real < at) & (scores.real_fold == k) & ~out_real).sum()
        passed += ((scores.fake >= at) & (scores.fake_fold == k) & ~out_fake).sum()
    return best, lam * missed / len(real) + passed / len(fake)


def test_replicates_are_recounts_without_groups():
    rng = np.random.default_rng(3)
    scores = folded(rng.normal(size=90) + 1, rng.normal(size=70).round(1))
    options = Options(groups=5)
    cut = [split(n, 5, 0, side).labels() for n, side in ((90, REAL), (70, FAKE))]
    t = error_rates.thresholds(scores.real, scores.fake)
    for lam in (0.3, 2.0):
        theta = alphas(scores, [lam], options)[0].theta
        for g, h in ((0, 0), (2, 0), (0, 4), (3, 5)):
            want = recount(scores, lam, cut[0] == g - 1, cut[1] == h - 1, t)
            assert theta[g, h] == pytest.approx(min(sum(want) / 2, min(1, lam)), abs=1e-12)


def test_best_is_below_chosen_and_the_frontier_of_error_rates_is_concave():
    x, y = draw(300, 1.0, seed=4)
    counts = error_rates.count(folded(-x[:, 0], -y[:, 0]), Options())
    lam = np.linspace(0.05, 5, 100)
    best = error_rates.least(*counts.rates(), lam)[:, 0, 0]
    p, q = error_rates.chosen(counts, lam)
    assert (best <= lam * p[:, 0] + q[:, 0] + 1e-12).all()
    assert (np.diff(best) >= -1e-12).all()
    assert (np.diff(best, 2) <= 1e-9).all()
    assert (best <= np.minimum(1, lam)).all()


def test_thresholds_of_many_samples_keep_the_minimum():
    x, y = draw(30_000, 1.0, seed=5)
    t = error_rates.thresholds(-x[:, 0], -y[:, 0])
    assert len(t) < 4000
    every = np.sort(np.concatenate([-x[:, 0], -y[:, 0]]))
    for lam in (0.02, 1.0, 50.0):
        risk = [
            lam * np.searchsorted(np.sort(-x[:, 0]), one) / 30_000
            + 1
            - np.searchsorted(np.sort(-y[:, 0]), one) / 30_000
            for one in (t, every)
        ]
        assert risk[0].min() == pytest.approx(risk[1].min(), abs=1e-4 * max(lam, 1))


def test_two_sets_told_apart_have_no_error_at_the_gap():
    found = alphas(folded(np.arange(100) + 50.0, -np.arange(80.0) - 50))
    for one, lam in zip(found, LAM, strict=True):
        got = intervals.estimate(one)
        assert got.value == got.low == 0
        # Nothing of 100 and 80: each share may be 3.7/100 and 3.7/80 at most.
        assert 0 < got.high <= 4 * (lam / 100 + 1 / 80) * 1.01


@pytest.mark.parametrize(("shift", "lam"), [(0.0, 1.0), (1.0, 0.3), (1.0, 1.0), (1.0, 3.0)])
def test_intervals_cover_the_truth_of_good_scores(shift, lam):
    # 150 draws: 95 % has a standard error of 1.8 %. P = Q needs the cap's own treatment.
    inside = 0
    for seed in range(150):
        x, y = draw(400, shift, seed=seed)
        got = intervals.estimate(alphas(folded(-x[:, 0], -y[:, 0]), [lam])[0])
        want = gaussians(shift, lam) if shift else min(1.0, lam)
        inside += got.low <= want <= got.high
    assert inside >= 0.89 * 150


def test_best_is_biased_downwards_and_the_value_less_so():
    rows = []
    for seed in range(150):
        x, y = draw(300, 1.0, seed=seed)
        counts = error_rates.count(folded(-x[:, 0], -y[:, 0]), Options())
        p, q = error_rates.chosen(counts, LAM[1:4])
        best = error_rates.least(*counts.rates(), LAM[1:4])[:, 0, 0]
        rows.append([best, LAM[1:4] * p[:, 0] + q[:, 0]])
    best, chosen = np.mean(rows, axis=0) - gaussians(1.0, LAM[1:4])
    # With s = log r, best lies lower by about three times what chosen lies higher.
    assert (best < -0.01).all()
    assert (chosen > -0.003).all()
    assert (np.abs(best + chosen) / 2 < 0.6 * -best).all()


def test_extreme_lam_is_noted():
    x, y = draw(100, 1.0)
    notes = [one.notes for one in alphas(folded(-x[:, 0], -y[:, 0]), [0.1, 0.3, 4, 50])]
    assert "λ=0.1 is read from about 10 of the fake samples" in notes[0][0]
    assert notes[1:3] == [(), ()]
    assert "about 2 of the real samples" in notes[3][0]


def test_upper_is_exceeded_seldom():
    over = 0
    for seed in range(150):
        x, y = draw(200, 1.0, seed=seed)
        counts = error_rates.count(folded(-x[:, 0], -y[:, 0]), Options())
        over += error_rates.upper_limit(counts, np.array([1.0]), 0.9)[0] < gaussians(1.0, 1.0)
    assert over <= 0.1 * 150


@pytest.fixture(scope="module")
def counted():
    """Counts and scores of pairs at distance 1, exact but for N = 200 samples."""
    found = []
    for seed in range(20):
        x, y = draw(200, 1.0, seed=seed)
        scores = folded(-x[:, 0], -y[:, 0])
        found.append((error_rates.count(scores, Options()), scores))
    return found


@pytest.mark.parametrize("b", [1.0, 8.0, 16.0, 0.125])
def test_f_is_the_closed_form(b, counted):
    # Not the largest of noise: where one sample weighs 1/20 of all, F_16 would be 1.02.
    lam = np.geomspace(1e-3, 1e3, 20_001)
    want = ((1 + b * b) * gaussians(1.0, lam) / (1 + b * b * lam)).max()
    found = [intervals.estimate(curves._f_score(c, b, scores)) for c, scores in counted]
    assert np.mean([one.value for one in found]) == pytest.approx(want, abs=0.03)
    assert np.mean([one.low <= want <= one.high for one in found]) > 0.85
    assert all(0 < one.value <= 1 for one in found)


def test_f_is_the_largest_of_capped_values():
    grid = error_rates.GRID[(error_rates.GRID >= 0.1) & (error_rates.GRID <= 10)]
    for seed in range(8):
        scores = folded(*np.random.default_rng(seed).normal(size=(2, 200)))
        counts = error_rates.count(scores, Options())
        alpha = [one.theta[0, 0] for one in curves._alphas(counts, grid, scores)]
        for b in (0.5, 2.0):
            want = ((1 + b * b) * np.array(alpha) / (1 + b * b * grid)).max()
            assert curves._f_score(counts, b, scores).theta[0, 0] == pytest.approx(want)


def test_f_of_few_samples_is_noted(counted):
    c, scores = counted[0]
    assert curves._f_score(c, 1, scores).notes == ()
    for b, words in ((50, r"λ less than 0\.1.*more fake"), (0.02, r"λ more than 10,.*more real")):
        (note,) = curves._f_score(c, b, scores).notes
        assert re.search(words, note)


# --- nearest neighbours -----------------------------------------------------------------


def test_knn_counts_are_those_of_the_definition():
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 9, size=(60, 2)), rng.integers(2, 11, size=(45, 2))  # many ties
    got = curves.knn(statistics(x), statistics(y), Options())
    k = curves.neighbours_used(60, 45)
    union, is_real = np.concatenate([x, y]), np.repeat([1.0, 0.0], [60, 45])
    for i, score in enumerate(np.concatenate([got.real, got.fake])):
        others = np.delete(np.arange(105), i)
        d = ((union[others] - union[i]) ** 2).sum(axis=1)
        last = np.sort(d)[k - 1]
        inside = is_real[others[d < last]]
        # Of the tied ones, those among the k nearest of their own set.
        tied = is_real[others[d == last]]
        reals = min(tied.sum(), k - inside.sum())
        fakes = min((1 - tied).sum(), k - (1 - inside).sum())
        a = inside.sum() + (k - len(inside)) * reals / (reals + fakes)
        assert score == pytest.approx(np.log((a + 0.5) / (k - a + 0.5)) - np.log(60 / 45))


def test_knn_of_one_distribution_does_not_tell_the_own_label():
    # A constant that counts a sample out of its own set (N − 1) would separate the two exactly.
    x, y = draw(400, width=3, seed=7)
    found = curves.curve(statistics(x), statistics(y), [0.3, 1.0, 4.0], estimator="knn")
    assert found.alpha == pytest.approx([0.3, 1, 1], rel=0.06)
    assert (found.high == np.minimum(1, found.lam)).all()
    # A sample's own label is in its neighbours' scores, and these choose its threshold.
    assert found.upper is None


def test_knn_of_a_small_set_and_a_large_one():
    x, y = draw(1700, width=2, seed=18)
    assert curves.neighbours_used(40, 1700) == 39
    found = curves.curve(statistics(x[:40]), statistics(y), [1.0], estimator="knn")
    assert found.alpha[0] > 0.8
    found = curves.curve(statistics(x), statistics(y[:40] + 9), [1.0], estimator="knn")
    assert found.alpha[0] < 0.05


def test_knn_swapped_sets_exchange_alpha_and_beta():
    x, y = draw(500, 1.2, width=2, seed=8)
    y *= 0.7
    lam = np.array([0.2, 0.7, 1.0, 2.5, 6.0])
    one = curves.curve(statistics(x), statistics(y), lam, estimator="knn")
    two = curves.curve(statistics(y), statistics(x), 1 / lam, estimator="knn")
    # Only the folds in which thresholds are chosen differ.
    assert one.beta == pytest.approx(two.alpha, abs=0.02)
    best = [
        error_rates.least(*error_rates.count(s, Options()).rates(), one)[:, 0, 0]
        for s, one in (
            (curves.knn(statistics(x), statistics(y), Options()), lam),
            (curves.knn(statistics(y), statistics(x), Options()), 1 / lam),
        )
    ]
    assert best[0] / lam == pytest.approx(best[1], abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_knn_measures_a_gaussian_shift(dtype):
    x, y = draw(2000, 1.0, width=2, seed=9)
    found = curves.curve(
        statistics(x.astype(dtype)), statistics(y.astype(dtype)), LAM, estimator="knn"
    )
    assert found.alpha / np.minimum(1, LAM) == pytest.approx(
        gaussians(1.0, LAM) / np.minimum(1, LAM), abs=0.06
    )


# --- held-out classifiers ---------------------------------------------------------------


def remembers(x, y, seed):
    """A classifier that knows the label of what it was fitted to, and nothing of the rest."""
    known = {row.tobytes(): label for row, label in zip(x, y, strict=True)}
    return lambda z: np.array([9 * known.get(row.tobytes(), 0.5) - 4.5 for row in z])


def test_no_sample_is_scored_by_what_it_was_fitted_to():
    x, y = draw(100, width=3, seed=10)
    found = classifiers.held_out(statistics(x), statistics(y), kinds=(remembers,), folds=5)
    assert found.real == pytest.approx(np.zeros(100), abs=1e-5)
    assert found.fake == pytest.approx(np.zeros(100), abs=1e-5)


def test_every_sample_is_scored_once_by_two_models_that_left_its_fold_out():
    seen = []

    def notes(x, y, seed):
        fitted = {row.tobytes() for row in x}
        seen.append((fitted, scored := []))
        return lambda z: scored.extend(row.tobytes() for row in z) or np.zeros(len(z))

    x, y = draw(60, width=3, seed=11)
    found = classifiers.held_out(statistics(x), statistics(y[:50]), kinds=(notes,), folds=4)
    assert len(seen) == 4
    assert all(not fitted & set(scored) for fitted, scored in seen)
    times = np.unique([row for _, scored in seen for row in scored], return_counts=True)[1]
    assert len(times) == 110
    assert (times == 2).all()
    assert (found.real.shape, found.fake.shape) == ((60,), (50,))


def test_weights_of_a_fold_do_not_see_its_labels():
    # Nothing to find: four classifiers on columns of their own find noise of their folds. R at
    # t = 0 has mean 1 (sd .09); weights fitted on scores of all other folds, whose models saw this
    # fold's labels, give .94, and weights fitted on the fold itself less.
    def columns(i):
        def fits(x, y, seed):
            way = x[y == 1, i : i + 3].mean(axis=0) - x[y == 0, i : i + 3].mean(axis=0)
            return lambda z: 20 * z[:, i : i + 3] @ way

        return fits

    kinds = tuple(columns(i) for i in (0, 3, 6, 9))
    risks = []
    for seed in range(60):
        x, y = draw(60, width=12, seed=seed)
        s = classifiers.held_out(statistics(x), statistics(y), kinds=kinds, folds=5)
        risks.append((s.real < 0).mean() + (s.fake >= 0).mean())
    error = np.std(risks) / np.sqrt(len(risks))
    assert error < 0.016
    assert np.mean(risks) > 1 - 2.5 * error


@pytest.mark.parametrize(
    ("kind", "n", "m", "width", "basis"),
    [
        (classifiers.linear, 60, 1000, 400, 4096),  # the centre of equal parts: .6
        (classifiers.kernel, 100, 800, 100, 200),  # equal numbers in the basis: .3
    ],
)
def test_components_do_not_look_at_labels(kind, n, m, width, basis, monkeypatch):
    # One distribution, few of one set and many of the other: nothing held out can tell them apart.
    monkeypatch.setattr(classifiers, "KINDS", (kind,))
    monkeypatch.setattr(classifiers, "BASIS", basis)
    x, y = draw(m, width=width, seed=20)
    for sides in ((x[:n], y), (x, y[:n])):
        real, fake = (statistics(side) for side in sides)
        found = curves.curve(real, fake, [1.0])
        assert found.alpha[0] > 0.9
        assert found.upper is not None
        assert found.upper[0] == 1


@pytest.fixture(scope="module")
def sets():
    """Real samples and several models of them, in 6 dimensions."""
    x, same = draw(160, width=6, seed=12)
    return {
        "real": statistics(x),
        "same": statistics(same),
        "near": statistics(draw(160, 1.0, seed=13, width=6)[1]),
        "far": statistics(same + 40),
        "narrow": statistics(same * 0.5),
    }


def test_one_distribution_reaches_the_top(sets):
    found = curves.curve(sets["real"], sets["same"], LAM)
    top = np.minimum(1, LAM)
    assert (found.low <= top).all()
    assert found.high == pytest.approx(top)
    assert found.alpha / top == pytest.approx(np.ones(5), abs=0.1)
    assert found.upper == pytest.approx(top, abs=0)


def test_sets_far_apart_have_nothing_in_common(sets):
    found = curves.curve(sets["real"], sets["far"], LAM)
    assert (found.alpha == 0).all()
    assert (found.beta == 0).all()


def test_a_set_against_itself_reaches_the_top(sets):
    for estimator in curves.ESTIMATORS:
        found = curves.curve(sets["real"], sets["real"], [0.2, 1.0, 5.0], None, estimator)
        assert found.alpha == pytest.approx([0.2, 1, 1], rel=0.03)


def test_names_are_the_curve_and_repeat(sets):
    names = ("alpha_0.5", "beta_2", "f_1", "alpha_knn_1e-1", "f_knn_8", "alpha_5e-1")
    found = curves.FAMILY.replicates(sets["real"], sets["near"], names, Options())
    assert tuple(found) == names
    value = {name: one.theta[0, 0] for name, one in found.items()}
    line = curves.curve(sets["real"], sets["near"], [0.5, 2.0])
    assert value["alpha_0.5"] == value["alpha_5e-1"] == line.alpha[0]
    assert value["beta_2"] == pytest.approx(line.beta[1])
    got = intervals.estimate(found["alpha_0.5"])
    assert (got.low, got.high) == (line.low[0], line.high[0])
    got = intervals.estimate(found["beta_2"])
    assert (got.low, got.high) == pytest.approx((line.low[1] / 2, line.high[1] / 2))
    grid = curves.curve(sets["real"], sets["near"], error_rates.GRID)
    assert value["f_1"] == pytest.approx((2 * grid.alpha / (1 + error_rates.GRID)).max())
    assert found["alpha_knn_1e-1"].k == found["f_knn_8"].k == int(np.sqrt(320))
    assert found["alpha_0.5"].k is None
    extreme = curves.FAMILY.replicates(
        sets["real"], sets["near"], ("f_1e300", "f_1e-300", "alpha_1e100"), Options()
    )
    assert all(np.isfinite(one.theta).all() for one in extreme.values())


def test_classifiers_measure_a_shift_and_what_a_line_cannot_see(sets):
    found = curves.curve(sets["real"], sets["near"], LAM)
    top = np.minimum(1, LAM)
    assert found.alpha / top == pytest.approx(gaussians(1.0, LAM) / top, abs=0.15)
    assert (found.low <= found.alpha).all()
    assert (found.alpha <= found.high).all()
    assert (found.beta == found.alpha / LAM).all()
    # N(0, I/4) against N(0, I) in 6 dimensions: α(1) = 0.257, by the chi-squared radii.
    assert curves.curve(sets["real"], sets["narrow"], [1.0]).alpha[0] == pytest.approx(
        0.257, abs=0.15
    )


def only_linear(x, y, seed=0):
    return classifiers.held_out(x, y, Options(seed=seed), (classifiers.linear,), 5)


def test_numbers_repeat(sets):
    kinds = classifiers.KINDS[2:]  # those that draw numbers
    first, *more = (
        classifiers.held_out(sets["real"].take(slice(80)), sets["near"], None, kinds, 3)
        for _ in range(2)
    )
    assert (first.real == more[0].real).all()
    assert (first.fake == more[0].fake).all()


def test_scale_and_offset_do_not_matter():
    x, y = draw(80, 1.0, width=4, seed=14)
    want = only_linear(statistics(x), statistics(y))
    for scale, offset in ((1.0, 1e6), (1e-6, 0.0), (2.0**80, 0.0)):
        got = only_linear(statistics(scale * x + offset), statistics(scale * y + offset))
        assert got.real == pytest.approx(want.real, abs=1e-3)


def test_odd_shapes_of_features():
    x, y = draw(60, 30.0, width=150, seed=15)  # D > N
    got = only_linear(statistics(x.astype(np.float16)), statistics(y))
    assert got.real.min() > got.fake.max()
    one = statistics(np.ones((50, 1)))  # D = 1, constant: nothing tells them apart
    got = classifiers.held_out(one, statistics(np.ones((45, 1))), folds=3)
    assert np.ptp(np.concatenate([got.real, got.fake])) < 1e-3
    found = curves.curve(one, statistics(np.ones((45, 1))), [0.5, 2.0], estimator="knn")
    assert found.alpha == pytest.approx([0.5, 1])


def test_components_keep_distances_up_to_a_factor(monkeypatch):
    x, y = draw(50, 1.0, width=7, seed=16)
    monkeypatch.setattr(classifiers, "TILE", 20)  # 2 rows at once
    a, b = classifiers._components(statistics(x), statistics(y), 0)
    assert a.shape == (50, 7)  # of the 100 // 10 that may be
    apart = [np.linalg.norm(u[:, None] - v[None], axis=2) for u, v in ((x, y), (a, b))]
    factor = apart[0] / apart[1]
    assert factor == pytest.approx(np.full((50, 50), factor[0, 0]), rel=1e-4)
    assert np.concatenate([a, b])[:, 0].std() == pytest.approx(1, rel=0.05)


def test_large_sets_are_subsampled_and_say_so(monkeypatch):
    monkeypatch.setattr(classifiers, "FITTED", 30)
    monkeypatch.setattr(classifiers, "COMPONENTS", 3)
    x, y = draw(80, width=5, seed=17)
    sizes = []

    def counts(x, y, seed):
        sizes.append((x.shape, y.sum()))
        return lambda z: np.zeros(len(z))

    found = classifiers.held_out(statistics(x), statistics(y), kinds=(counts,), folds=4)
    assert set(sizes) == {((60, 3), 30.0)}
    assert found.notes == (
        "classifiers see 3 principal components of 5 features",
        "each classifier is fitted to 30 of 40 real and 30 of 40 fake samples outside its folds",
    )
    found = classifiers.held_out(statistics(x[:45]), statistics(y), kinds=(counts,), folds=4)
    assert found.notes[1] == "each classifier is fitted to 30 of 40 fake samples outside its folds"


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["alpha_0", "alpha_x", "f_-1", "beta_", "alpha_nan", "beta_inf", "f_knn_0", "alpha_knn_-2"],
)
def test_names_that_cannot_be_read(name):
    with pytest.raises(errors.ConfigError, match=f"metric '{name}'.*positive finite number"):
        curves.FAMILY.owns(name)


@pytest.mark.parametrize("name", ["alpha_0.5", "alpha_1e-2", "alpha_5", "beta_knn_3", "f_0.125"])
def test_names_that_are_owned(name):
    assert curves.FAMILY.owns(name)


@pytest.mark.parametrize("name", ["precision", "fid", "fd_dinov2", "alphabet_1", "alpha", "f1"])
def test_names_of_others(name):
    assert not curves.FAMILY.owns(name)


@pytest.mark.parametrize("lam", [0, -1.0, np.nan, np.inf, [], [[1.0, 2.0]], [1.0, 0.0]])
def test_bad_lam(lam, sets):
    with pytest.raises(errors.ConfigError, match=r"lam=.* positive finite"):
        curves.curve(sets["real"], sets["same"], lam)


def test_bad_input(sets):
    few = statistics(np.zeros((39, 6)))
    for estimator in curves.ESTIMATORS:
        with pytest.raises(errors.DataError, match=r"at least 40 samples .* got 39 fake"):
            curves.curve(sets["real"], few, [1.0], None, estimator)
    known = Statistics(100, 6, "x", None, known_moments=(np.zeros(6), np.eye(6)))
    with pytest.raises(errors.DataError, match="mu and sigma alone"):
        curves.curve(known, sets["real"], [1.0])
    with pytest.raises(errors.ConfigError, match="unknown estimator 'kde'"):
        curves.curve(sets["real"], sets["same"], [1.0], None, "kde")
    with pytest.raises(errors.ConfigError, match=r"folds=2 .* at least 3"):
        classifiers.held_out(sets["real"], sets["same"], folds=2)
    with pytest.raises(errors.ConfigError, match="level=2"):
        curves.curve(sets["real"], sets["same"], [1.0], Options(level=2), "knn")
