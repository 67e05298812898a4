"""One critic step and one generator step of BigGAN: this code against the original PyTorch code.

    PRPR_BIGGAN_PYTORCH=CHECKOUT python benchmarks/biggan_step.py [--size 32|128|full] [--rounds 5]

Both sides run on the same device in one process, interleaved, at the same batch, width and
losses (hinge), Adam and moving average included, after a warm-up. `--size full` takes the largest
batch at which both fit, halving from 256, unless --batch names one; each try is a process of its
own, since neither side gives memory back. Printed: the median time of a
step on each side, their ratio (above 1: this code is faster) with its range over the rounds, and
this code's share of the device's peak, measured as one large matrix product of the same type.

Needs PyTorch (pip install 'prpr[torch]') and a checkout of ajbrock/BigGAN-PyTorch; without a
checkout only this code is timed.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# The launch settings of the original: CIFAR-10, and ImageNet at 128x128. The batch of "full" is
# where the search begins.
SIZES = {
    "32": {"resolution": 32, "ch": 64, "batch": 32, "classes": 10, "attention": ()},
    "128": {"resolution": 128, "ch": 32, "batch": 4, "classes": 1000, "attention": (64,)},
    "full": {"resolution": 128, "ch": 96, "batch": 256, "classes": 1000, "attention": (64,)},
}
_FULL = 3  # exit code of a try that does not fit


def ours(size: dict[str, Any], dtype: str, fused: bool) -> tuple[dict[str, Callable], dict]:
    """{"critic": step, "generator": step} of this code, and what each needs in FLOPs."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from prpr import build as building
    from prpr import config, data, parallel, train
    from prpr.planner import flops

    cfg = config.defaults()
    hier = size["resolution"] > 32
    cfg.objective = cfg.critic.loss = "hinge"
    cfg.model.generator_ch = cfg.model.critic_ch = size["ch"]
    cfg.model.attention_at, cfg.model.dtype = size["attention"], dtype
    cfg.model.hierarchical = cfg.model.shared_embedding = hier
    cfg.model.dim_z = 120 if hier else 128
    cfg.train.batch, cfg.train.layout = size["batch"], "data"
    cfg.generator.ema = 0.9999
    rng = np.random.default_rng(0)
    shape = (size["batch"], size["resolution"], size["resolution"], 3)
    images = rng.standard_normal(shape).astype(np.float32).clip(-1, 1)
    labels = rng.integers(0, size["classes"], size["batch"]).astype(np.int32)
    dataset = data.Dataset(images, labels, size["classes"], "random")
    team = parallel.Team(1)
    system = building.system(cfg, dataset, team.axis_name)
    alone = building.system(cfg, dataset)
    if not fused:
        system, alone = naive(system), naive(alone)
    example = jnp.asarray(images[:2])
    state = jax.jit(lambda key: train.init(alone, key, example, building.dials(cfg, None)))(
        jax.random.key(0)
    )
    batch = {"image": images, "label": labels, "index": np.int32(0), "advance": np.int32(0)}
    placed = {"state": team.place([state]), "batch": team.batch([batch])}
    critic = team.map(lambda s, b: train.critic_update(system, s, b), donate=True)
    generator = team.map(lambda s: train.generator_update(system, s, size["batch"]), donate=True)

    def critic_step() -> None:
        placed["state"], scalars = critic(placed["state"], placed["batch"])
        jax.block_until_ready((placed["state"], scalars))

    def generator_step() -> None:
        placed["state"], scalars = generator(placed["state"])
        jax.block_until_ready((placed["state"], scalars))

    shapes = jax.eval_shape(lambda: state)
    counted = {
        "critic": flops.count(lambda s, b: train.critic_update(alone, s, b), shapes, batch),
        "generator": flops.count(lambda s: train.generator_update(alone, s, size["batch"]), shapes),
    }
    return {"critic": critic_step, "generator": generator_step}, counted


def naive(system: Any) -> Any:
    """The same system with plain resampling."""
    import dataclasses

    def plain(net: Any) -> Any:
        return net.clone(style=dataclasses.replace(net.style, fused=False))

    return system._replace(generator=plain(system.generator), critic=plain(system.critic))


def original(size: dict[str, Any], checkout: str, dtype: str) -> dict[str, Callable]:
    """The same two steps of the original, as its train_fns.py takes them."""
    import torch

    sys.path.insert(0, checkout)
    import BigGAN  # pyright: ignore[reportMissingImports]
    import losses  # pyright: ignore[reportMissingImports]

    hier = size["resolution"] > 32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    attention = "_".join(map(str, size["attention"])) or "0"
    common = {
        "resolution": size["resolution"],
        "n_classes": size["classes"],
        "G_attn": attention,
        "D_attn": attention,
    }
    latent = {"hier": True, "dim_z": 120, "shared_dim": 128} if hier else {"dim_z": 128}
    with contextlib.redirect_stdout(io.StringIO()):
        net = {**common, **latent, "G_ch": size["ch"], "G_shared": hier}
        G = BigGAN.Generator(**net).to(device).train()
        G_ema = BigGAN.Generator(**net, no_optim=True, skip_init=True).to(device)
        D = BigGAN.Discriminator(**common, D_ch=size["ch"]).to(device).train()
    GD = BigGAN.G_D(G, D)
    n, r = size["batch"], size["resolution"]
    x = torch.randn(n, 3, r, r, device=device).clamp(-1, 1)
    y = torch.randint(0, size["classes"], (n,), device=device)
    cast = contextlib.nullcontext
    if dtype == "bfloat16":
        cast = lambda: torch.autocast(device, torch.bfloat16)  # noqa: E731

    def end() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def learn(module: Any, on: bool) -> None:
        for parameter in module.parameters():
            parameter.requires_grad_(on)

    def average() -> None:
        # utils.py needs torchvision; this is its moving average, over parameters and buffers.
        source, target = G.state_dict(), G_ema.state_dict()
        with torch.no_grad():
            for key in source:
                target[key].copy_(target[key] * 0.9999 + source[key] * (1 - 0.9999))

    def draw() -> tuple[Any, Any]:
        z = torch.randn(n, G.dim_z, device=device)
        return z, torch.randint(0, size["classes"], (n,), device=device)

    def critic_step() -> None:
        learn(D, True)
        learn(G, False)
        D.optim.zero_grad()
        with cast():
            fake, real = GD(*draw(), x, y, train_G=False, split_D=False)
            on_real, on_fake = losses.discriminator_loss(fake.float(), real.float())
            loss = on_real + on_fake
        loss.backward()
        D.optim.step()
        end()

    def generator_step() -> None:
        learn(D, False)
        learn(G, True)
        G.optim.zero_grad()
        with cast():
            loss = losses.generator_loss(GD(*draw(), train_G=True, split_D=False).float())
        loss.backward()
        G.optim.step()
        average()
        end()

    return {"critic": critic_step, "generator": generator_step}


def warm(size: dict[str, Any], dtype: str, *, fused: bool) -> tuple[dict[str, dict], dict]:
    """Both sides' steps, compiled and taken twice, and what ours need in FLOPs."""
    mine, counted = ours(size, dtype, fused)
    sides = {"prpr": mine}
    if checkout := os.environ.get("PRPR_BIGGAN_PYTORCH"):
        import torch

        # TF32 on both sides, as JAX has it by default on a GPU.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        # The original's train.py lets cuDNN choose by trying, as XLA does.
        torch.backends.cudnn.benchmark = torch.cuda.is_available()
        sides["original"] = original(size, checkout, dtype)
    for steps in sides.values():
        for step in steps.values():
            step()
            step()
    return sides, counted


def peak(dtype: str) -> float:
    """FLOP/s of one large matrix product, the best of five."""
    import jax
    import jax.numpy as jnp

    n = 2048 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((n, n), dtype)
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    return 2 * n**3 / min(clock(lambda: product(x).block_until_ready()) for _ in range(5))


def clock(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def largest_batch(first: int, fits: Callable[[int], bool]) -> int:
    """The first of `first`, half of it, a quarter ... that fits; ends the program where none does.

    Args:
      first: the batch to begin with.
      fits: batch -> whether both sides fit.
    """
    batch = first
    while batch and not fits(batch):
        batch //= 2
    if not batch:
        sys.exit("not even a batch of 1 fits on this device: take another --size")
    return batch


def _fits(batch: int) -> bool:
    """Whether this command's sides fit at a batch: its warm-up, in a process of its own."""
    command = [sys.executable, *sys.argv, "--rounds", "0", "--batch", str(batch)]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code not in (0, _FULL):
        sys.exit(f"the try at a batch of {batch} ended with exit code {code}: see above")
    print(f"batch {batch}: {'does not fit' if code else 'fits'}", flush=True)
    return not code


def _out_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "out of memory"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="32")
    parser.add_argument(
        "--batch", type=int, default=0, help="images; 0: the size's own, or the search"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--naive", action="store_true", help="plain resampling on our side")
    arguments = parser.parse_args()
    size = dict(SIZES[arguments.size])
    # JAX would take three quarters of a GPU at once, and leave the other side the rest.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    import jax

    if arguments.size == "full" and not arguments.batch:
        if jax.default_backend() == "cpu":
            parser.error(
                "--size full needs --batch on a CPU, whose memory has no end to search for"
            )
        arguments.batch = largest_batch(size["batch"], _fits)
    size["batch"] = arguments.batch or size["batch"]
    try:
        sides, counted = warm(size, arguments.dtype, fused=not arguments.naive)
        top = peak(arguments.dtype)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        print(f"batch {size['batch']} does not fit: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(_FULL)
    if not arguments.rounds:
        return
    times = {side: {name: [] for name in steps} for side, steps in sides.items()}
    for _ in range(arguments.rounds):
        for name in ("critic", "generator"):
            for side, steps in sides.items():
                times[side][name].append(clock(steps[name]))
    device = jax.devices()[0]
    print(
        f"{size['resolution']}x{size['resolution']}, ch {size['ch']}, batch {size['batch']}, "
        f"{arguments.dtype}, {arguments.rounds} rounds, {device.platform} {device.device_kind}; "
        f"measured peak {top:.3g} FLOP/s"
    )
    for name in ("critic", "generator"):
        own = statistics.median(times["prpr"][name])
        share = sum(counted[name].contractions.values()) / own / top
        line = f"{name:>9}: prpr {own:.3f} s ({share:.0%} of peak)"
        if "original" in sides:
            peer = times["original"][name]
            ratios = [p / o for p, o in zip(peer, times["prpr"][name], strict=True)]
            line += (
                f", original {statistics.median(peer):.3f} s: ratio "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(line)


if __name__ == "__main__":
    main()
