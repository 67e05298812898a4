"""Held-out likelihood of our maximum-likelihood start against torch's, on the same architecture.

    python benchmarks/flow_likelihood.py [--data digits,ring8] [--steps 600] [--seeds 0,1,2]

  digits  bits an entry of the test split of scikit-learn's digits: glow, against normflows 1.7.3
  ring8   nats a point of the mixture in the plane: realnvp, against nflows 0.14; without classes

Ours is the base run of configs/digits.py:flow with 600 steps (of configs/toy_2d.py:flow for
ring8): its split, batches, `build.system` and update. The peer's flow is made of its own layers
as in benchmarks/flows.py, and with equal weights both give one log q (printed: how far apart).
So the architecture is the same: scales, actnorms, 1 x 1 convolutions by P L U, couplings with the
scale exp(tanh s) (normflows' own are exp and the sigmoid of s + 2, nflows' is the latter),
residual networks that end with zeros (normflows' own have no residual, and 1 x 1 in the middle),
learned priors of what is factored out (normflows' own do not see what is kept), logit with
α = 0.05, standard normal latent, and the class's embedding in every block. Both see the same
batches in the same order, uniform noise in the data's steps, Adam with the same rate and β, and
the same moving average of the parameters. Tested, on the same noise, is the average that was
likeliest on the validation split, which is looked at every 50 steps, as a run's best checkpoint is
chosen: the digits are few, and both sides overfit them before 600 steps are over.

What differs, as each side has it: where the networks' inner layers start (ours: LeCun's normal
kernels, zero biases; torch: its uniform ones); what actnorm is set up by (ours: 256 training items
at the middle of their steps; the peers: the first batch with its noise); the random rotations and
the noise in training. With --same_start the peer also begins at our initial parameters, and only
the noise in training differs.

Printed: test bits (nats) as mean ± deviation over the seeds of each side, how far ours is from the
peer's (below zero: ours is likelier), and for ring8 what the mixture's own density has on the same
points. Aim: within 2 % of the bits.

Needs PyTorch and the peers: pip install 'prpr[torch]' nflows normflows.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flows
import numpy as np

_DRAWS = {"valid": 2, "test": 8}  # of the noise, for each item of a split
_EVERY = 50  # steps from one look at the validation split to the next


class Task(NamedTuple):
    """A configuration, and the data it is trained and tested on."""

    cfg: Any
    parts: Any
    case: flows.Case
    peer: str


def task_of(name: str, steps: int) -> Task:
    """The task of this name; `steps` of training, 0 for its own number."""
    from prpr import build, config
    from prpr.planar.grid import unconditional

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from configs import digits, toy_2d

    if name == "digits":
        cfg, peer = digits.get_config("flow"), "normflows"
        cfg.base.steps, scales = 600, 2
    else:
        cfg, peer, scales = toy_2d.get_config("flow"), "nflows", 0
    cfg.base.steps = steps or cfg.base.steps
    cfg = config.base_of(cfg)
    parts = build.check(cfg)
    if name == "ring8":
        parts = build.Splits(*(unconditional(part) for part in parts))  # pyright: ignore
    m, data = cfg.model, parts.train
    case = flows.Case(
        m.name,
        data.shape,
        cfg.train.batch,
        m.depth,
        m.generator_ch,
        m.layers,
        scales,
        data.levels,
        data.num_classes,
        m.shared_dim,
        (peer,),
    )
    return Task(cfg, parts, case, peer)


def noise(task: Task, split: str) -> np.ndarray:
    """(draws, N, ...) in (0, 1), the same for both sides; one draw, unread, for points."""
    part = getattr(task.parts, split)
    draws = _DRAWS[split] if part.levels else 1
    return np.random.default_rng(len(split)).random((draws, part.size, *part.shape), np.float32)


def score(task: Task, log_p: np.ndarray) -> float:
    """Bits an entry of images, nats of a point."""
    return -float(log_p.mean()) / (np.prod(task.case.shape) * np.log(2) if task.case.levels else 1)


class Best:
    """The parameters that are likeliest on the validation split.

    Args:
      scored: (split, parameters) -> what `score` gives.
      steps: of training.
    """

    def __init__(self, scored: Callable[[str, Any], float], steps: int):
        self._scored, self._steps = scored, steps
        self.step, self._valid, self._parameters = 0, np.inf, None

    def look(self, step: int, parameters: Callable[[], Any]) -> None:
        """Of the parameters after this many steps, where it is time to."""
        if step % _EVERY and step < self._steps:
            return
        now = parameters()
        if (valid := self._scored("valid", now)) < self._valid:
            self.step, self._valid, self._parameters = step, valid, now

    def test(self) -> float:
        return self._scored("test", self._parameters)


def ours(task: Task, seed: int) -> tuple[Best, Any]:
    """What a base run at this seed found, and the variables that it began with."""
    import jax

    from prpr import build, train

    cfg, parts = task.cfg, task.parts
    system = build.system(cfg, parts.train)
    example, dials = build.example(system, parts.train), build.dials(cfg, None)
    state = jax.jit(lambda key: train.init(system, key, example, dials))(jax.random.key(seed))
    first = jax.device_get(state.generator.variables)
    step = jax.jit(build.generator_step(system, cfg.train.batch), donate_argnums=0)
    log_p = jax.jit(lambda net, x, y, u: train.log_likelihood(system, net, x, y, u))

    def scored(split: str, net: Any) -> float:
        part = getattr(parts, split)
        draws = [log_p(net, part.images, part.labels, u) for u in noise(task, split)]
        return score(task, np.stack(draws))

    best, batches = Best(scored, cfg.train.steps), build.batches(cfg, parts.train, seed)
    for update in range(cfg.train.steps):
        state, _ = step(state, batches.batch(update))
        best.look(update + 1, lambda now=state: jax.device_get(now.ema))
    return best, first


def peer(task: Task, seed: int, first: Any = None) -> Best:
    """The same of the peer, from its own initial parameters or from our variables `first`."""
    import torch

    from prpr import build

    torch.manual_seed(seed)
    cfg, case = task.cfg, task.case
    flow = flows.nflows_flow(case) if task.peer == "nflows" else flows.normflows_flow(case)
    if first is not None:
        flows.copy_weights(case, task.peer, first, flow)
    weights, opt = list(flow.parameters()), cfg.generator
    optimiser = torch.optim.Adam(weights, lr=opt.lr, betas=(opt.b1, opt.b2), eps=opt.eps)
    batches = build.batches(cfg, task.parts.train, seed)

    def log_p(x: np.ndarray, label: np.ndarray, u: Any) -> Any:
        y = torch.from_numpy(label.astype(np.int64))
        return flows.peer_log_prob(case, flow, torch.from_numpy(x), u, y)

    def copied() -> list[Any]:
        return [one.detach().clone() for one in weights]

    def put(values: list[Any]) -> None:
        for one, value in zip(weights, values, strict=True):
            one.copy_(value)

    @torch.no_grad()
    def scored(split: str, values: list[Any]) -> float:
        part, now = getattr(task.parts, split), copied()
        put(values)
        draws = [log_p(part.images, part.labels, torch.from_numpy(u)) for u in noise(task, split)]
        put(now)
        return score(task, torch.stack(draws).numpy())

    best, average = Best(scored, cfg.train.steps), list[Any]()
    for update in range(cfg.train.steps):
        batch = batches.batch(update)
        u = torch.rand(batch["image"].shape)
        optimiser.zero_grad()
        loss = -log_p(batch["image"], batch["label"], u).mean() / float(np.prod(case.shape))
        loss.backward()
        if not average:  # after the first batch, which sets up actnorm
            average.extend(copied())
        optimiser.step()
        for mean, one in zip(average, copied(), strict=True):
            mean.lerp_(one, 1.0 - opt.ema)
        best.look(update + 1, lambda: [mean.clone() for mean in average])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits,ring8")
    parser.add_argument("--steps", type=int, default=0, help="of training; 0: 600, ring8 2000")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--same_start", action="store_true", help="also from our own parameters")
    arguments = parser.parse_args()
    names, seeds = arguments.data.split(","), [int(seed) for seed in arguments.seeds.split(",")]
    for name in names:
        if name not in ("digits", "ring8"):
            parser.error(f"--data: unknown {name!r}; one of digits, ring8")
    flows.require_peers()
    warnings.filterwarnings("ignore", "torch.lu is deprecated")
    for name in names:
        task = task_of(name, arguments.steps)
        case, unit = task.case, "bits" if task.case.levels else "nats"
        print(
            f"{name}: {case.flow}, depth {case.depth}, width {case.width}, {task.cfg.train.steps} "
            f"steps of {case.batch}, rate {task.cfg.generator.lr:g}, {task.parts.test.size} test "
            f"items; log q apart by {flows.difference(case, task.peer)[0]:.0e} with equal weights",
            flush=True,
        )
        found: dict[str, list[float]] = {}
        for seed in seeds:
            start = time.perf_counter()
            own, first = ours(task, seed)
            both = {"prpr": own, task.peer: peer(task, seed)}
            if arguments.same_start:
                both[f"{task.peer} from our start"] = peer(task, seed, first)
            tested = {side: best.test() for side, best in both.items()}
            for side, value in tested.items():
                found.setdefault(side, []).append(value)
            each = ", ".join(
                f"{side} {value:.4f} at step {both[side].step}" for side, value in tested.items()
            )
            print(f"  seed {seed}: {each} ({time.perf_counter() - start:.0f} s)", flush=True)
        mine = np.mean(found["prpr"])
        for side, values in found.items():
            spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
            line = f"  {side:28} {np.mean(values):.4f} ± {spread:.4f} {unit}"
            if side != "prpr":
                apart = mine - np.mean(values)
                relative = f" ({apart / np.mean(values):+.2%})" if case.levels else ""
                line += f"; ours {apart:+.4f} {unit}{relative}"
            print(line)
        if name == "ring8":
            print(f"  {'the density itself':28} {entropy(task):.4f} nats on the same points")


def entropy(task: Task) -> float:
    """Of the mixture, by the test points."""
    from prpr import data

    x = task.parts.test.images
    return -float(np.mean(data.law("ring8").log_density(x)))


if __name__ == "__main__":
    main()
