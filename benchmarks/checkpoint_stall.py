"""How long a training step waits for a checkpoint: `checkpoint.Saver` against `checkpoint.save`.

    python benchmarks/checkpoint_stall.py [--megabytes 200] [--leaves 200] [--rounds 3]

Both write the same state in turns, so that they meet the same disk and the same neighbours; each
time a training step is under way, as in a training loop. For `save` the stall is the whole call.
For `Saver.save` it is the call; "copy to host" is the other way of being safe against donation,
which has to wait for the step. One line a round, then the medians and their ratios; the
first round, which compiles the copy, is shown and left out.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prpr import checkpoint


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--leaves", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()

    size = flags.megabytes * 10**6 // 4 // flags.leaves
    keys = jax.random.split(jax.random.key(0), flags.leaves)
    state = {f"leaf{i}": jax.random.normal(key, (size,)) for i, key in enumerate(keys)}
    matrix = jnp.eye(2048)

    def update(s: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """A step of a few matrix products that every leaf has to wait for."""
        one = (matrix @ (matrix @ (matrix @ (matrix + s["leaf0"][0] * 0))))[0, 0]
        return jax.tree.map(lambda x: x + one, s)

    step = jax.jit(update, donate_argnums=0)
    state = jax.block_until_ready(step(state))

    rows = []
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        checkpoint.Saver(Path(folder, "async"), keep=1) as saver,
    ):
        for i in range(1, flags.rounds + 2):
            state = step(state)
            sync = seconds(partial(checkpoint.save, Path(folder, "sync"), i, state, {}, keep=1))
            state = step(state)
            host = seconds(partial(jax.tree.map, np.array, state))
            state = step(state)
            call = seconds(partial(saver.save, i, state, {}))
            state = step(state)
            written = seconds(saver.wait)
            rows.append((sync, call, host))
            print(
                f"round {i}: save {sync:.3f} s, Saver.save {call:.4f} s "
                f"(written {written:.3f} s later), copy to host {host:.3f} s",
                flush=True,
            )
    sync, call, host = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    print(
        f"{jax.default_backend()}, {flags.megabytes} MB in {flags.leaves} leaves: "
        f"Saver.save / save {call / sync:.4f}, copy to host / save {host / sync:.4f}"
    )


if __name__ == "__main__":
    main()
