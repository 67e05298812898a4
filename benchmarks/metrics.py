"""Precision, recall, density, coverage: time and memory against other exact implementations.

    python benchmarks/metrics.py [--n 20000] [--d 2048] [--rounds 3] [--sides ours,products,faiss]

Every side runs on the same features, in a process of its own that does nothing else, all sides in
turn, `--rounds` times. Printed for each: the least wall and CPU time over the rounds, the time
in units of the bare products and of this code, the peak of memory beyond imports and features, and
the values at k. The CPU time is all cores' and suffers less from other work on the machine.

  products        the three products real·real, fake·fake, real·fake in float32, by numpy: what
                  a method needs that computes all distances and uses no symmetry
  ours            prdc.prdc: the four metrics (k = 3 and 5)
  ours-intervals  prdc.prdc_with_intervals: also the jackknife, and the nearest across
  ours-jax        ours with backend="jax"
  torch-fidelity  its precision and recall from features (no density, no coverage); in parts, with
                  a fourth product, where N² distances do not fit
  prdc            the prdc package (k = 5 for all four); N² memory
  faiss           radii by IndexFlatL2, the pairs by faiss.pairwise_distances; precision and recall

Sides whose package is absent, or that need more memory than there is, are left out and named.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDES = ("products", "ours", "ours-intervals", "torch-fidelity", "prdc", "faiss")
Pair = tuple[np.ndarray, np.ndarray]


def features(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) float32 like those of a network: not negative, of a lower dimension, with noise."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(64, d)).astype(np.float32) / 8
    out = np.empty((n, d), np.float32)
    for start in range(0, n, 1024):
        rows = min(1024, n - start)
        z = rng.standard_normal((rows, 64), np.float32) + np.float32(0.05 * (seed - 1))
        noise = np.abs(rng.standard_normal((rows, d), np.float32))
        out[start : start + rows] = np.maximum(z @ mixing - 0.3, 0) + 0.05 * noise
    return out


def products(pair: Pair, rows: int = 1024) -> dict[str, float]:
    x, y = pair
    out = np.empty((rows, max(len(x), len(y))), np.float32)
    for a, b in ((x, x), (y, y), (x, y)):
        for start in range(0, len(a), rows):
            part = a[start : start + rows]
            np.matmul(part, b.T, out=out[: len(part), : len(b)])
    return {}


def ours(pair: Pair, backend: str = "numpy") -> dict[str, float]:
    from prpr.metrics import prdc

    return prdc.prdc(*pair, backend=backend).values()


def ours_intervals(pair: Pair) -> dict[str, float]:
    from prpr.metrics import prdc

    found = prdc.prdc_with_intervals(*pair, backend="numpy")
    return {name: one.value for name, one in found.items()}


def torch_fidelity(pair: Pair) -> dict[str, float]:
    import torch
    from torch_fidelity import metric_prc

    whole = 20 * len(pair[0]) ** 2 < _available()
    found = metric_prc.prc_features_to_metric(
        torch.from_numpy(pair[1]),
        torch.from_numpy(pair[0]),
        prc_neighborhood=3,
        prc_batch_size=10_000,
        save_cpu_ram=not whole,
        verbose=False,
    )
    return {name: found[name] for name in ("precision", "recall")}


def prdc_package(pair: Pair) -> dict[str, float]:
    import prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return {name: float(x) for name, x in prdc.compute_prdc(*pair, nearest_k=5).items()}


def faiss_exact(pair: Pair, k: int = 3, rows: int = 1024) -> dict[str, float]:
    import faiss

    radii = []
    for x in pair:
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x)  # pyright: ignore[reportCallIssue]
        radii.append(index.search(x, k + 1)[0][:, k])  # pyright: ignore[reportCallIssue]
        del index
    real, fake = pair
    precise, recalled = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for start in range(0, len(real), rows):
        some = slice(start, start + rows)
        squared = faiss.pairwise_distances(real[some], fake)
        precise |= (squared <= radii[0][some, None]).any(axis=0)
        recalled[some] = (squared <= radii[1]).any(axis=1)
    return {"precision": float(precise.mean()), "recall": float(recalled.mean())}


RUN: dict[str, Callable[[Pair], dict[str, float]]] = {
    "products": products,
    "ours": ours,
    "ours-intervals": ours_intervals,
    "ours-jax": lambda pair: ours(pair, "jax"),
    "torch-fidelity": torch_fidelity,
    "prdc": prdc_package,
    "faiss": faiss_exact,
}
# Imported before the clock and the memory's: what a side's package takes is not its method's.
NEEDS = {
    "ours": "prpr.metrics.prdc",
    "ours-intervals": "prpr.metrics.prdc",
    "ours-jax": "prpr.metrics.accelerated",
    "torch-fidelity": "torch_fidelity.metric_prc",
    "prdc": "prdc",
    "faiss": "faiss",
}


def _available() -> int:
    """Bytes of memory that are free or can be."""
    with open("/proc/meminfo") as file:
        line = next(line for line in file if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def _memory(name: str) -> int:
    """VmRSS (now) or VmHWM (its peak) of this process in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) * 1024


def child(side: str, folder: str) -> None:
    """Runs a side once; prints a JSON line."""
    if side in NEEDS:
        __import__(NEEDS[side])
    pair = np.load(f"{folder}/real.npy"), np.load(f"{folder}/fake.npy")
    before, cpu, wall = _memory("VmRSS"), _cpu(), time.perf_counter()
    values = RUN[side](pair)
    took = time.perf_counter() - wall, _cpu() - cpu
    beyond = _memory("VmHWM") - before
    print(json.dumps({"wall": took[0], "cpu": took[1], "memory": beyond, "values": values}))


def _cpu() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def absent(side: str, n: int) -> str | None:
    """Why a side cannot run, or None."""
    if side == "prdc" and 24 * n * n > _available():
        return f"needs about {24 * n * n / 2**30:.0f} GiB"
    if side in NEEDS:
        found = subprocess.run(
            [sys.executable, "-c", f"import {NEEDS[side]}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode:
            return found.stderr.strip().splitlines()[-1]
    return None


def blas() -> str:
    """numpy's BLAS and its threads."""
    try:
        import threadpoolctl
    except ImportError:
        return "BLAS unknown (pip install threadpoolctl)"
    one = next((x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"), None)
    if one is None:
        return "BLAS unknown to threadpoolctl"
    return (
        f"{one['internal_api']} {one['version']} ({one.get('architecture')}), "
        f"{one['num_threads']} threads"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=20_000, help="samples of each set")
    parser.add_argument("--d", type=int, default=2048, help="features of a sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {', '.join(RUN)}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder)
        return
    sides = args.sides.split(",")
    for side in sides:
        if side not in RUN:
            parser.error(f"--sides: unknown {side!r}; one of {', '.join(RUN)}")
    for side in list(sides):
        why = absent(side, args.n)
        if why:
            print(f"{side} left out: {why}")
            sides.remove(side)
    print(
        f"N = M = {args.n}, D = {args.d}; numpy {np.__version__}, {blas()}; {os.cpu_count()} cores"
    )
    results: dict[str, list[dict]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in ((1, "real"), (2, "fake")):
            np.save(Path(folder, name), features(args.n, args.d, seed))
        for number in range(args.rounds):
            for side in sides:
                command = [sys.executable, __file__, "--child", side, "--folder", folder]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results[side].append(json.loads(out.splitlines()[-1]))
                one = results[side][-1]
                print(f"  round {number + 1} {side}: {one['wall']:.1f} s", file=sys.stderr)
    table(results)


def table(results: dict[str, list[dict]]) -> None:
    """Prints a row a side."""
    least = {
        side: [min(run[key] for run in runs) for key in ("wall", "cpu")]
        for side, runs in results.items()
    }
    print(
        f"{'side':15} {'wall s':>8} {'cpu s':>8} {'/products':>10} {'cpu':>6} {'/ours':>7} "
        f"{'cpu':>6} {'MiB':>7}  values"
    )
    for side, runs in results.items():
        ratios = []
        for other in ("products", "ours"):
            for at in (0, 1):
                known = other in least
                ratios.append(f"{least[side][at] / least[other][at]:.2f}" if known else "-")
        memory = max(run["memory"] for run in runs) / 2**20
        values = " ".join(f"{name} {value:.4f}" for name, value in runs[0]["values"].items())
        print(
            f"{side:15} {least[side][0]:8.2f} {least[side][1]:8.2f} {ratios[0]:>10} {ratios[1]:>6} "
            f"{ratios[2]:>7} {ratios[3]:>6} {memory:7.0f}  {values}"
        )


if __name__ == "__main__":
    main()
