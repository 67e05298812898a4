"""FID from statistics against scipy's matrix square root, and what its interval costs.

    python benchmarks/metrics_frechet.py [--width 2048] [--samples 10000] [--rounds 3] [--no-root]
        [--cpu]

Two sets of float32 features whose covariances have a power law's spectrum. Printed, all of one
process on one machine:

- d² from the statistics of both sets, means and covariances known: this code and
  tr (Σ_r Σ_f)^½ by scipy.linalg.sqrtm, the ratio of their times (above 1: this code is faster) and
  the relative difference of the values;
- the time of d² with its interval as a multiple of d² alone, from statistics and from features
  (means and covariances are computed then).

On a machine that others use too: OMP_NUM_THREADS=1 and --cpu.
"""

import argparse
import dataclasses
import statistics as middle
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg

from prpr.metrics import Options, Statistics, frechet, registry, statistics


def features(seed: int, samples: int, width: int, grow: float) -> np.ndarray:
    """(samples, width) float32: a power law's spectrum in random directions, positive means."""
    rng = np.random.default_rng(seed)
    spread = grow * np.arange(1, width + 1) ** -0.75
    # The same directions for both sets, as an encoder's features have.
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    x = (rng.standard_normal((samples, width)) * spread) @ turn
    return (x + 0.4 + 0.02 * grow).astype(np.float32)


def clock(step: Callable[[], Any], now: Callable[[], float]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = now()
    found = step()
    return now() - start, found


def by_root(real: tuple[np.ndarray, np.ndarray], fake: tuple[np.ndarray, np.ndarray]) -> float:
    """d² as pytorch-fid and clean-fid compute it."""
    root = linalg.sqrtm(real[1] @ fake[1])
    away = real[0] - fake[0]
    return float(away @ away + np.trace(real[1]) + np.trace(fake[1]) - 2 * np.trace(root).real)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-root", action="store_true", help="leave scipy's square root out")
    parser.add_argument(
        "--cpu", action="store_true", help="the process's own time instead of the clock's"
    )
    arguments = parser.parse_args()
    now = time.process_time if arguments.cpu else time.perf_counter
    x, y = (features(i, arguments.samples, arguments.width, 1 + 0.2 * i) for i in (0, 1))
    real, fake = statistics(x), statistics(y)
    moments = real.moments, fake.moments  # kept by the statistics

    def sets(known: bool) -> tuple[Statistics, Statistics]:
        # A replaced object has lost what was kept.
        return (real, fake) if known else (dataclasses.replace(real), dataclasses.replace(fake))

    def alone(known: bool) -> float:
        return frechet.distance(*sets(known))

    def with_interval(known: bool) -> float:
        return registry.measure(("fid",), *sets(known), Options()).metrics["fid"].value

    alone(True)  # warms the threads of both libraries
    times: dict[str, list[float]] = {}
    values: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, step in (
            ("from statistics", lambda: alone(True)),
            ("and its interval", lambda: with_interval(True)),
            ("from features", lambda: alone(False)),
            ("with interval", lambda: with_interval(False)),
            *(() if arguments.no_root else (("scipy sqrtm", lambda: by_root(*moments)),)),
        ):
            seconds, values[name] = clock(step, now)
            times.setdefault(name, []).append(seconds)
    took = {name: middle.median(found) for name, found in times.items()}
    print(f"D={arguments.width}, N=M={arguments.samples}, {arguments.rounds} rounds, medians")
    for name, seconds in took.items():
        print(f"{name:>22}: {seconds:7.2f} s   d² = {values[name]:.10g}")
    if "scipy sqrtm" in took:
        ratios = [
            b / a for a, b in zip(times["from statistics"], times["scipy sqrtm"], strict=True)
        ]
        apart = abs(values["from statistics"] / values["scipy sqrtm"] - 1)
        print(
            f"scipy sqrtm / from statistics: {middle.median(ratios):.1f} "
            f"({min(ratios):.1f} to {max(ratios):.1f}); relative difference {apart:.1e}"
        )
    for one, other in (
        ("and its interval", "from statistics"),
        ("with interval", "from features"),
    ):
        print(f"{one} / {other}: {took[one] / took[other]:.1f}")


if __name__ == "__main__":
    main()
