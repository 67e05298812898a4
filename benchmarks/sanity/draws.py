"""What the synthetic checks draw: cases of pairs of samples, after sanity_checks/ of 2505.22450.

Notation: real (N, D) and fake (M, D) samples, N = M = plan.n where nothing else is said; `at` is
the point of the sweep. Functions of a plan give a check's cases.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Draw = Callable[[np.random.Generator, float], np.ndarray]
OVERLAP = 0.2  # share of each cube's volume that the other one has too
LATE = 47 / 49  # the paper's 0.95 quantile of its 50 shares of dropped modes


class Plan(NamedTuple):
    """How large: `n` samples, `points` of a sweep (odd); sweeps of N go from n/10 to 10n."""

    n: int = 1000
    points: int = 11


PAPER = Plan(1000, 51)
FULL = Plan(1000, 11)
SMOKE = Plan(200, 5)


class Case(NamedTuple):
    """One sweep: real(rng, at) and fake(rng, at) for each of `sweep`; `fresh`: real anew each."""

    name: str
    sweep: np.ndarray
    real: Draw
    fake: Draw
    fresh: bool = False


def _normal(rng: np.random.Generator, n: int, d: int, mean: float = 0, std: float = 1):
    return mean + std * rng.standard_normal((n, d))


def _mixture(rng: np.random.Generator, means: np.ndarray, std: float, p: np.ndarray, n: int):
    at = rng.choice(len(means), size=n, p=p / p.sum())
    return means[at] + std * rng.standard_normal((n, means.shape[1]))


def _shifts(p: Plan) -> list[tuple[int, np.ndarray]]:
    return [(d, np.linspace(-far, far, p.points)) for d, far in ((1, 6), (8, 3), (64, 1))]


def mean(p: Plan) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"D={d}",
            sweep,
            lambda rng, _, d=d: _normal(rng, p.n, d),
            lambda rng, at, d=d: _normal(rng, p.n, d, at),
        )
        for d, sweep in _shifts(p)
    )


def outlier(p: Plan) -> tuple[Case, ...]:
    def add(x: np.ndarray, at: float) -> np.ndarray:
        return np.concatenate([x, np.full((1, x.shape[1]), at)])

    out = []
    for case, (_, sweep) in zip(mean(p), _shifts(p), strict=True):
        far = float(sweep[-1])
        out += [
            case._replace(
                name=f"outlier in real, {case.name}",
                real=lambda rng, at, c=case, far=far: add(c.real(rng, at), far),
            ),
            case._replace(
                name=f"outlier in fake, {case.name}",
                fake=lambda rng, at, c=case, far=far: add(c.fake(rng, at), far),
            ),
        ]
    return tuple(out)


def std(p: Plan) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"D={d}",
            np.logspace(-decades, decades, p.points),
            lambda rng, _, d=d: _normal(rng, p.n, d),
            lambda rng, at, d=d: _normal(rng, p.n, d, 0, at),
        )
        for d, decades in ((1, 3), (8, 1), (64, 0.5))
    )


def _dropping(sweep: np.ndarray, weights: Callable[[float], np.ndarray], p: Plan):
    """Ten modes on a diagonal; weights(at) of the fakes' modes."""
    return tuple(
        Case(
            f"D={d}",
            sweep,
            lambda rng, _, m=means, s=width: _mixture(rng, m, s, np.ones(10), p.n),
            lambda rng, at, m=means, s=width: _mixture(rng, m, s, weights(at), p.n),
        )
        for d, width in ((1, 1 / 6), (8, 1 / 3), (64, 1))
        for means in [np.repeat(np.linspace(0, 10, 10)[:, None], d, axis=1)]
    )


def simultaneous(p: Plan) -> tuple[Case, ...]:
    sweep = np.union1d(np.linspace(0, 1, p.points), LATE)
    return _dropping(sweep, lambda at: np.r_[1, np.full(9, 1 - at)], p)


def sequential(p: Plan) -> tuple[Case, ...]:
    return _dropping(np.arange(10.0), lambda at: (np.arange(10) < 10 - at).astype(float), p)


def invention(p: Plan) -> tuple[Case, ...]:
    turn = np.arange(10) * 7 % 10  # so that real and invented modes are mixed, near and far
    angle, radius = 2.4 * turn, 6 * np.sqrt(turn + 1)
    means = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def draw(rng: np.random.Generator, modes: float) -> np.ndarray:
        return _mixture(rng, means[: int(modes)], 0.25, np.ones(int(modes)), p.n)

    return (Case("D=2", np.arange(1.0, 11), lambda rng, _: draw(rng, 5), draw),)


def sphere(p: Plan) -> tuple[Case, ...]:
    def draw(rng: np.random.Generator, radius: float, d: int) -> np.ndarray:
        x = rng.standard_normal((p.n, d))
        return radius * x / np.linalg.norm(x, axis=1, keepdims=True)

    return tuple(
        Case(
            f"D={d}",
            np.linspace(0.1, 1.9, p.points),
            lambda rng, _, d=d: draw(rng, 1, d),
            lambda rng, at, d=d: draw(rng, at, d),
        )
        for d in (2, 16, 128)
    )


def _sizes(p: Plan) -> np.ndarray:
    return np.rint(np.geomspace(p.n / 10, 10 * p.n, min(2 * (p.points // 3) + 1, 19)))


def _cubes(p: Plan, real: Callable[[float], int], fresh: bool) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"D={d}",
            _sizes(p),
            lambda rng, at, d=d: rng.random((real(at), d)),
            lambda rng, at, d=d: rng.random((int(at), d)) + 1 - OVERLAP ** (1 / d),
            fresh,
        )
        for d in (1, 8, 64)
    )


def cube_size(p: Plan) -> tuple[Case, ...]:
    return _cubes(p, int, True)


def cube_fakes(p: Plan) -> tuple[Case, ...]:
    return _cubes(p, lambda _: p.n, False)


def torus(p: Plan) -> tuple[Case, ...]:
    """A ball of radius 0.8 in the hole of a ring of radius 1 and thickness 0.2."""

    def ball(rng: np.random.Generator, n: int, d: int, radius: float) -> np.ndarray:
        x = rng.standard_normal((n, d))
        return radius * x * (rng.random((n, 1)) ** (1 / d) / np.linalg.norm(x, axis=1)[:, None])

    def ring(rng: np.random.Generator, n: int) -> np.ndarray:
        cut, turn = ball(rng, n, 2, 0.1), rng.uniform(0, 2 * np.pi, n)
        away = 1 + cut[:, 0]
        return np.stack([away * np.cos(turn), away * np.sin(turn), cut[:, 1]], axis=1)

    return (
        Case(
            "real sphere",
            _sizes(p),
            lambda rng, _: ball(rng, p.n, 3, 0.8),
            lambda rng, at: ring(rng, int(at)),
        ),
        Case(
            "real torus",
            _sizes(p),
            lambda rng, _: ring(rng, p.n),
            lambda rng, at: ball(rng, int(at), 3, 0.8),
        ),
    )


def collapse(p: Plan) -> tuple[Case, ...]:
    """Two modes at ±μ/2, and one Gaussian of a width that grows with μ."""
    return tuple(
        Case(
            f"D={d}",
            np.linspace(0, 5, p.points),
            lambda rng, mu, d=d: _normal(rng, p.n, d) + mu * (rng.integers(0, 2, (p.n, 1)) - 0.5),
            lambda rng, mu, d=d: _normal(rng, p.n, d, 0, np.sqrt(1 + mu**2)),
            True,
        )
        for d in (1, 8, 64)
    )


def scaling(p: Plan) -> tuple[Case, ...]:
    """Disjoint in the first column; the second is alike, in units of 1/at."""
    return (
        Case(
            "D=2",
            np.logspace(-3, 3, p.points),
            lambda rng, at: _normal(rng, p.n, 2) * [1, at],
            lambda rng, at: (_normal(rng, p.n, 2) + np.array([6, 0])) * [1, at],
            True,
        ),
    )


def pareto(p: Plan) -> tuple[Case, ...]:
    def draw(rng: np.random.Generator, mean: float) -> np.ndarray:
        return np.stack([mean + rng.standard_normal(p.n), 1 + rng.pareto(1.01, p.n)], axis=1)

    return (Case("D=2", _shifts(p)[0][1], lambda rng, _: draw(rng, 0), draw),)


def disjoint(p: Plan) -> tuple[Case, ...]:
    def draw(rng: np.random.Generator, extra: float, mean: float) -> np.ndarray:
        return _normal(rng, p.n, int(extra) + 1) + np.r_[mean, np.zeros(int(extra))]

    return (
        Case(
            "N(0, 1) and N(6, 1)",
            np.unique(np.logspace(0, 3, p.points).astype(int)),
            lambda rng, at: draw(rng, at, 0),
            lambda rng, at: draw(rng, at, 6),
            True,
        ),
    )


def discrete(p: Plan) -> tuple[Case, ...]:
    def smooth(rng: np.random.Generator, at: float) -> np.ndarray:
        return at * _normal(rng, p.n, 1)

    def whole(rng: np.random.Generator, at: float) -> np.ndarray:
        return np.round(smooth(rng, at))

    sweep = np.logspace(0, 3, p.points)
    return (
        Case("discrete", sweep, whole, smooth, True),
        Case("continuous", sweep, smooth, whole, True),
    )
