"""A step of maximum likelihood and a batch of samples of flows: this code against torch's.

    python benchmarks/flows.py [--cases realnvp-2-128,glow-8] [--rounds 7] [--tuned]

Every side has the same couplings: the same masks, networks, actnorm, linear maps and scales, as
many parameters, the same batch, float32. That is checked, not assumed: before a case is timed,
random weights are copied from ours into the peer's, and log q of a batch must agree to 1e-4
nats an entry, and so must the samples of one latent (`difference`). The peers' flows are built
from their own parts with these networks, since their ready-made ones have other networks:

  nflows     0.14, its ActNorm, Permutation, AffineCouplingTransform with the scale exp(tanh s), and
             PiecewiseRationalQuadraticCouplingTransform; slopes of splines by softplus, as there
             (for the check by our map of slopes)
  normflows  1.7.3, its ActNorm, AffineCouplingBlock with that scale, Invertible1x1Conv, Squeeze,
             Merge, Logit and MultiscaleFlow

Ours is the step of a run as `prpr.trainer` takes it: noise between the data's values, gradient,
Adam, and further its moving average, the gradient's norm and the check that all is finite. The
peers' is noise, `log_prob`, gradient and Adam, eager as their users run them; `--tuned` adds
torch.compile and the fused Adam. Sampling is everything from random numbers to a batch of items.

All sides run in one process, in turn. Printed: the median time of each, the ratio of the peer's
to ours (above 1: ours is faster) as the median over the rounds, its range, and the number of
parameters. The aim: at least 2 everywhere. Where 3 x 3 convolutions of many pixels take most of
the time (glow-32) XLA's and oneDNN's rates are much alike, and the ratio is nearer to 1.

Needs PyTorch and both peers: pip install 'prpr[torch]' nflows normflows.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[], None]
TOLERANCE = 1e-4
BINS, BOUND, ALPHA = 32, 5.0, 0.05  # of splines along points' axes, and of the logit: our defaults


class Case(NamedTuple):
    """A flow and a batch.

    Attributes:
      flow: our name of it.
      shape: of an item.
      batch, depth, width, hidden: hidden layers of a coupling's network, or its residual blocks.
      scales: glow's squeezes.  levels: of images, 0 for points.
      classes: that the flow is told, 1 for none.  context: entries of a class's embedding.
      peers: that have such a flow.
    """

    flow: str
    shape: tuple[int, ...]
    batch: int
    depth: int
    width: int
    hidden: int = 2
    scales: int = 0
    levels: int = 0
    classes: int = 1
    context: int = 16
    peers: tuple[str, ...] = ("nflows",)


_BOTH, _GLOW = ("nflows", "normflows"), ("normflows",)
CASES = {
    "realnvp-2-128": Case("realnvp", (2,), 128, 8, 64, peers=_BOTH),
    "realnvp-2-1024": Case("realnvp", (2,), 1024, 8, 64, peers=_BOTH),
    "spline-2-128": Case("spline", (2,), 128, 4, 64),
    "spline-2-1024": Case("spline", (2,), 1024, 4, 64),
    "spline-16-256": Case("spline", (16,), 256, 4, 64),
    "glow-8": Case("glow", (8, 8, 1), 64, 4, 32, scales=2, levels=17, peers=_GLOW),
    "glow-32": Case("glow", (32, 32, 3), 16, 4, 32, scales=3, levels=256, peers=_GLOW),
}


class Side(NamedTuple):
    """What is timed, and how many numbers are trained."""

    train: Call
    sample: Call
    parameters: int


# ---- ours -----------------------------------------------------------------------------


def configured(case: Case) -> Any:
    """The configuration of a case."""
    from prpr import config

    cfg = config.defaults()
    cfg.objective, cfg.model.name = "likelihood", case.flow
    cfg.model.depth, cfg.model.generator_ch = case.depth, case.width
    cfg.model.layers, cfg.model.scales = case.hidden, case.scales
    cfg.model.critic_ch, cfg.model.shared_dim = 4, case.context  # no critic is trained
    cfg.critic.steps, cfg.train.batch, cfg.generator.lr = 1, case.batch, 1e-4
    cfg.generator.b1, cfg.generator.b2 = 0.9, 0.999
    return cfg


def items(case: Case, n: int, seed: int = 0) -> np.ndarray:
    """(n, ...) float32: Gaussian points, or images of random levels on [−1, 1]."""
    rng = np.random.default_rng(seed)
    if not case.levels:
        return rng.standard_normal((n, *case.shape)).astype(np.float32)
    grid = rng.integers(0, case.levels, (n, *case.shape))
    return (grid / np.float32(case.levels - 1) * 2 - 1).astype(np.float32)


def model(case: Case) -> Any:
    """Our flow, a Flax module."""
    from prpr import models

    return models.build(configured(case), case.shape, case.classes, levels=case.levels)[0]


def ours(case: Case) -> Side:
    import jax
    import jax.numpy as jnp

    from prpr import build, data, train

    cfg, images = configured(case), items(case, case.batch)
    labels = np.zeros(case.batch, np.int32)
    dataset = data.Dataset(images, labels, 1, "random", levels=case.levels)
    system = build.system(cfg, dataset)
    state = jax.jit(
        lambda key: train.init(system, key, jnp.asarray(images), build.dials(cfg, None))
    )
    held = {"state": state(jax.random.key(0)), "key": jax.random.key(1)}
    batch = jax.device_put({"image": images, "label": labels})
    step = jax.jit(build.generator_step(system, case.batch), donate_argnums=0)

    @jax.jit
    def draw(net: train.Net, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, now = jax.random.split(key)
        z = jax.random.normal(now, (case.batch, system.dim_z))
        return train.apply_frozen(system.generator, net, z, batch["label"]), key

    def train_step() -> None:
        held["state"], scalars = step(held["state"], batch)
        jax.block_until_ready((held["state"], scalars))

    def sample() -> None:
        x, held["key"] = draw(held["state"].generator, held["key"])
        x.block_until_ready()

    count = sum(leaf.size for leaf in jax.tree.leaves(held["state"].generator.params))
    return Side(train_step, sample, count)


# ---- the peers ------------------------------------------------------------------------


def embedding(case: Case) -> Any:
    """Of classes, with our start (which no peer prescribes); None where there is one class."""
    from torch import nn

    if case.classes == 1:
        return None
    table = nn.Embedding(case.classes, case.context)
    nn.init.normal_(table.weight, std=case.context**-0.5)
    return table


def network(case: Case, seen: int, out: int, told: dict[str, Any] | None = None) -> Any:
    """The torch network of a coupling: `prpr.models.flows.conditioners`, zero at the end.

    Its other layers start as torch starts them. Of points it is called (x, context), as nflows
    calls it; of images (x), as normflows does, and the context is what `told` holds then.
    """
    from torch import nn

    silu, w = nn.functional.silu, case.width

    def last(module: Any) -> Any:
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        return module

    def contexts(count: int) -> Any:
        layers = [nn.Linear(case.context, w, bias=False) for _ in range(count)]
        return nn.ModuleList(layers if case.classes > 1 else [])

    class Dense(nn.Module):
        hidden_features = 1  # nflows divides bins by its root

        def __init__(self) -> None:
            super().__init__()
            sizes = [seen] + [w] * case.hidden
            self.layers = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))
            self.contexts = contexts(1)
            self.out = last(nn.Linear(w, out))

        def forward(self, x: Any, context: Any = None) -> Any:
            h = self.layers[0](x)
            if context is not None:
                h = h + self.contexts[0](context)
            for layer in self.layers[1:]:
                h = layer(silu(h))
            return self.out(silu(h))

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(seen, w, 3, padding=1)
            inner = [nn.Conv2d(w, w, 3, padding=1) for _ in range(2 * case.hidden)]
            self.inner = nn.ModuleList(inner)
            self.contexts = contexts(case.hidden)
            self.out = last(nn.Conv2d(w, out, 3, padding=1))

        def forward(self, x: Any) -> Any:
            h = self.first(x)
            for i in range(case.hidden):
                inner = self.inner[2 * i](silu(h))
                if told:
                    inner = inner + self.contexts[i](told["context"])[:, :, None, None]
                h = h + self.inner[2 * i + 1](silu(inner))
            return self.out(silu(h))

    return Convolutions() if len(case.shape) == 3 else Dense()


def order(case: Case, i: int) -> tuple[int, ...] | None:
    """Our permutation before coupling i of points; None where there is none."""
    from prpr.models.flows.multiscale import shuffled

    return None if case.shape[0] == 2 else shuffled(case.shape[0], i)


def nflows_flow(case: Case, *, slopes: bool = False) -> Any:
    """nflows' `Flow`; `slopes`: of splines are ours, of the same numbers."""
    import torch
    from nflows import distributions, flows, transforms  # pyright: ignore[reportMissingImports]

    class Bounded(transforms.AffineCouplingTransform):
        def _scale_and_shift(self, transform_params: Any) -> tuple[Any, Any]:
            shift, raw = transform_params.chunk(2, dim=1)
            return torch.exp(torch.tanh(raw)), shift

    class Slopes(torch.nn.Module):
        hidden_features = 1

        def __init__(self, net: Any):
            super().__init__()
            self.net = net

        def forward(self, x: Any, context: Any = None) -> Any:
            raw = self.net(x, context)
            raw = raw.reshape(len(x), -1, 3 * BINS - 1)
            bound = float(np.log(1e3))
            slope = torch.exp(bound * torch.tanh(raw[..., 2 * BINS :] / bound))
            # What nflows takes the softplus of.
            raw = torch.cat([raw[..., : 2 * BINS], slope + torch.log(-torch.expm1(-slope))], -1)
            return raw.flatten(1)

    d, layers = case.shape[0], []
    for i in range(case.depth):
        layers.append(transforms.ActNorm(d))
        if (places := order(case, i)) is not None:
            layers.append(transforms.Permutation(torch.tensor(places)))
        second = np.arange(d) >= d // 2
        mask = torch.tensor(np.where(second != bool(i % 2), 1, -1))

        def net(seen: int, out: int) -> Any:
            one = network(case, seen, out)
            return Slopes(one) if slopes and case.flow == "spline" else one

        if case.flow == "spline":
            coupling = transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask,
                net,
                BINS,
                "linear",
                BOUND,
                min_derivative=0.0 if slopes else 1e-3,
            )
        else:
            coupling = Bounded(mask, net)
        layers.append(coupling)
    base = distributions.StandardNormal([d])
    return flows.Flow(transforms.CompositeTransform(layers), base, embedding(case))


def normflows_coupling(
    case: Case, channels: int, mode: str = "channel", told: dict[str, Any] | None = None
) -> Any:
    """y_b = x_b·exp(tanh s) + t from data to latent, as ours."""
    import normflows  # pyright: ignore[reportMissingImports]
    import torch

    class Bounded(normflows.flows.AffineCoupling):
        """With our scale; its forward goes from latent to data."""

        def _scale_and_shift(self, x: Any) -> tuple[Any, Any]:
            raw = self.param_map(x)  # pyright: ignore[reportCallIssue]
            return raw[:, 0::2], torch.tanh(raw[:, 1::2])

        def forward(self, z: Any) -> Any:
            kept, changed = z
            shift, log_scale = self._scale_and_shift(kept)
            log_det = -log_scale.flatten(1).sum(1)
            return [kept, (changed - shift) * torch.exp(-log_scale)], log_det

        def inverse(self, z: Any) -> Any:
            kept, changed = z
            shift, log_scale = self._scale_and_shift(kept)
            return [kept, changed * torch.exp(log_scale) + shift], log_scale.flatten(1).sum(1)

    net = network(case, channels // 2, 2 * (channels // 2), told)
    block = normflows.flows.AffineCouplingBlock(net, split_mode=mode)
    block.flows[1] = Bounded(net)
    return block


def normflows_flow(case: Case) -> Any:
    """normflows' `NormalizingFlow` or, for images, `MultiscaleFlow`; its order is latent to data.

    It has no couplings that are told a class: of images `log_prob` puts the embedding where the
    networks find it.
    """
    import normflows  # pyright: ignore[reportMissingImports]

    parts = normflows.flows
    if len(case.shape) == 1:
        (d,), layers = case.shape, []
        for i in range(case.depth):
            mode = "channel_inv" if i % 2 else "channel"
            layers += [parts.ActNorm((d,)), normflows_coupling(case, d, mode)]
        base = normflows.distributions.DiagGaussian(d, trainable=False)
        return normflows.NormalizingFlow(base, layers[::-1])
    side, _, channels = case.shape
    scales, bases, told = [], [], {}
    for i in range(case.scales):
        side, channels = side // 2, 4 * channels
        layers: list[Any] = [parts.Squeeze()]
        for _ in range(case.depth):
            actnorm = parts.ActNorm((channels, 1, 1))
            linear = parts.Invertible1x1Conv(channels, use_lu=True)
            layers += [actnorm, linear, normflows_coupling(case, channels, told=told)]
        if i < case.scales - 1:
            # The prior of what is factored out.
            layers.append(normflows_coupling(case, channels, told=told))
            channels //= 2
        scales.append(layers[::-1])
        item = (channels, side, side)
        bases.append(normflows.distributions.DiagGaussian(item, trainable=False))
    merges = [parts.Merge() for _ in scales[1:]]
    logit = normflows.transforms.Logit(ALPHA)
    # Its first scale is next to the latent.
    flow = normflows.MultiscaleFlow(
        bases[::-1], scales[::-1], merges, transform=logit, class_cond=False
    )
    flow.embedding, flow.told = embedding(case), told  # pyright: ignore[reportArgumentType]
    return flow


def unit(case: Case, x: Any, u: Any) -> Any:
    """Images (N, H, W, C) on their grid and noise u in (0, 1) -> (N, C, H, W) in (0, 1)."""
    return ((x + 1) * ((case.levels - 1) / 2) + u).permute(0, 3, 1, 2) / case.levels


def tell(flow: Any, y: Any) -> None:
    """Puts the classes' embedding where the networks of normflows' flow of images find it."""
    if flow.embedding is not None:
        flow.told["context"] = flow.embedding(y)


def peer_log_prob(case: Case, flow: Any, x: Any, u: Any, y: Any) -> Any:
    """log P(x) (N,), with points log q(x), as our `Flow.log_likelihood`; y (N,) classes."""
    if case.levels:
        tell(flow, y)
        found = flow.log_prob(unit(case, x, u), None)
        return found - float(np.prod(case.shape) * np.log(case.levels))
    return flow.log_prob(x, y) if case.classes > 1 else flow.log_prob(x)


def peer(case: Case, name: str, *, tuned: bool = False) -> Side:
    import torch

    torch.manual_seed(0)
    flow = nflows_flow(case) if name == "nflows" else normflows_flow(case)
    x = torch.from_numpy(items(case, case.batch))
    with torch.no_grad():
        peer_log_prob(case, flow, x, torch.full_like(x, 0.5), None)  # actnorm sees data
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=tuned)

    def loss(x: Any) -> Any:
        u = torch.rand_like(x) if case.levels else None
        return -peer_log_prob(case, flow, x, u, None).mean() / float(np.prod(case.shape))

    def drawn() -> Any:
        found = flow.sample(case.batch)
        return found if name == "nflows" else found[0]

    if tuned:
        loss, drawn = torch.compile(loss), torch.compile(drawn)

    def train_step() -> None:
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()

    @torch.no_grad()
    def sample() -> None:
        drawn()

    return Side(train_step, sample, sum(p.numel() for p in flow.parameters()))


# ---- that both are the same -----------------------------------------------------------


def maps_of(variables: Any) -> list[dict[str, Any]]:
    """The variables of each of our maps that has any, in their order from data to latent."""
    found: list[dict[str, Any]] = []

    def walk(params: Any, constants: Any) -> None:
        if {"net", "log_scale", "log_s"} & set(params):
            found.append({"params": params, "constants": constants})
            return
        for name in sorted(params, key=lambda one: int(one.rpartition("_")[2])):
            walk(params[name], constants.get(name, {}))

    constants = variables.get("constants", {})
    walk(variables["params"]["bijector"], constants.get("bijector", {}))
    return found


def copy_weights(case: Case, name: str, variables: Any, flow: Any) -> None:
    """Makes the peer's flow the one that these variables make of ours."""
    import jax.numpy as jnp
    import torch
    from scipy import linalg

    from prpr.models.flows.glow import InvertibleLinear

    def put(target: Any, value: Any) -> None:
        target.data = torch.tensor(np.array(value, np.float32)).reshape(target.shape)

    def put_layer(layer: Any, params: Any, rows: Any = slice(None)) -> None:
        kernel = np.asarray(params["kernel"])
        put(layer.weight, (kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1))[rows])
        put(layer.bias, np.asarray(params["bias"])[rows])

    def put_network(net: Any, params: Any, rows: Any) -> None:
        net = getattr(net, "net", net)
        if len(case.shape) == 1:
            for i, layer in enumerate(net.layers):
                put_layer(layer, params[f"layer{i}"])
        else:
            put_layer(net.first, params["first"])
            for i, layer in enumerate(net.inner):
                put_layer(layer, params[f"block{i // 2}_{'ab'[i % 2]}"])
        for i, layer in enumerate(net.contexts):
            key = "context" if len(case.shape) == 1 else f"block{i}_context"
            put(layer.weight, np.asarray(params[key]["kernel"]).T)
        put_layer(net.out, params["out"], rows)

    def put_linear(layer: Any, own: dict[str, Any], places: Any) -> None:
        channels = len(own["params"]["log_s"])
        # Rows of our matrix are channels that come in, rows of theirs channels that go out.
        one = jnp.eye(channels)
        found: Any = InvertibleLinear().apply(own, one, method="forward_and_log_det")
        matrix = np.asarray(found[0], np.float64)[places]
        factors: Any = linalg.lu(matrix.T)
        permutation, lower, upper = factors
        diagonal = np.diagonal(upper)
        layer.P.copy_(torch.tensor(permutation))
        layer.sign_S.copy_(torch.tensor(np.sign(diagonal)))
        for target, value in (
            (layer.L, lower),
            (layer.U, np.triu(upper, 1)),
            (layer.log_S, np.log(np.abs(diagonal))),
        ):
            put(target, value)

    if case.classes > 1:
        table = flow._embedding_net if name == "nflows" else flow.embedding
        put(table.weight, variables["params"]["class"]["embedding"])
    places: Any = slice(None)
    own = iter(maps_of(variables))
    for layer in layers_of(case, name, flow):
        kind = type(layer).__name__
        if kind == "Squeeze":
            # Theirs puts the four pixels of a channel side by side, ours a pixel's channels.
            places = None
        if kind in ("Squeeze", "Permutation"):
            continue
        variables_ = next(own)
        params = variables_["params"]
        if kind == "ActNorm":
            log_scale, shift = (np.asarray(params[key]) for key in ("log_scale", "shift"))
            if places is None:
                c = len(shift)
                places = np.arange(c).reshape(4, c // 4).T.reshape(-1)
            if name == "nflows":
                put(layer.log_scale, log_scale)
                put(layer.shift, shift * np.exp(log_scale))
                layer.initialized.fill_(True)
            else:
                put(layer.s, -log_scale[places])
                put(layer.t, -shift[places])
                layer.data_dep_init_done = torch.tensor(1.0)
        elif kind == "Invertible1x1Conv":
            put_linear(layer, variables_, places)
            places = slice(None)
        else:
            n = params["net"]["out"]["bias"].size
            affine = name == "nflows" and case.flow == "realnvp"
            # nflows has all shifts before all scales.
            rows = np.arange(n).reshape(-1, 2).T.reshape(-1) if affine else slice(None)
            net = layer.transform_net if name == "nflows" else layer.flows[1].param_map
            put_network(net, params["net"], rows)
    if next(own, None) is not None:
        sys.exit(f"{case}: {name}'s flow has fewer maps than ours")


def layers_of(case: Case, name: str, flow: Any) -> list[Any]:
    """The peer's layers in their order from data to latent."""
    if name == "nflows":
        return list(flow._transform._transforms)
    if len(case.shape) == 1:
        return list(flow.flows)[::-1]
    return [layer for scale in list(flow.flows)[::-1] for layer in list(scale)[::-1]]


def decoded(case: Case, name: str, flow: Any, z: Any, y: Any) -> Any:
    """The peer's items of our latents (N, D) and of classes (N,)."""
    if name == "nflows":
        context = flow._embedding_net(y) if case.classes > 1 else None
        return flow._transform.inverse(z, context)[0]
    if len(case.shape) == 1:
        return flow.forward(z)
    parts, at = [], 0
    (side, _, channels), n = case.shape, len(z)
    for i in range(case.scales):
        side, channels = side // 2, 4 * channels
        if i < case.scales - 1:
            channels //= 2
        size = side * side * channels
        part = z[:, at : at + size].reshape(n, side, side, channels)
        parts.append(part.permute(0, 3, 1, 2))
        at += size
    tell(flow, y)
    x = flow.forward_and_log_det(parts[::-1])[0].permute(0, 2, 3, 1)
    return (2 * case.levels * x - 1) / (case.levels - 1) - 1


def difference(case: Case, name: str, n: int = 64) -> tuple[float, float]:
    """Of log P an entry and of samples, with equal random weights: the largest over n items."""
    import jax
    import torch

    flow, x = model(case), items(case, n, seed=1)
    rng = np.random.default_rng(2)
    y = rng.integers(0, case.classes, n).astype(np.int32)
    u = rng.uniform(0.05, 0.95, x.shape).astype(np.float32)
    z = rng.standard_normal((n, int(np.prod(case.shape)))).astype(np.float32)
    variables = dict(flow.init(jax.random.key(0), x, y, u, method="log_likelihood"))

    def moved(leaf: Any) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape) / max(np.prod(leaf.shape[:-1]), 1) ** 0.5
        return np.asarray(leaf + 0.1 * noise, np.float32)

    variables["params"] = jax.tree.map(moved, variables["params"])
    mine = flow.apply(variables, x, y, u, method="log_likelihood")
    drawn = flow.apply(variables, z, y, train=False)
    theirs = nflows_flow(case, slopes=True) if name == "nflows" else normflows_flow(case)
    copy_weights(case, name, variables, theirs)
    with torch.no_grad():
        x, u, z, y = (torch.from_numpy(one) for one in (x, u, z, y))
        found = peer_log_prob(case, theirs, x, u, y).numpy()
        made = decoded(case, name, theirs, z, y).numpy()
    drawn = np.asarray(drawn)
    if case.levels:
        # Beyond the data's range our logit goes on along its tangent, unlike the peer's.
        drawn, made = drawn.clip(-1, 1), made.clip(-1, 1)
    entries = np.prod(case.shape)
    return (
        float(np.abs(np.asarray(mine) - found).max() / entries),
        float(np.abs(drawn - made).max()),
    )


# ---- the clock ------------------------------------------------------------------------


def clock(call: Call, times: int) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def repeats(call: Call, seconds: float) -> int:
    """Calls that take about so long, after two to warm up."""
    call()
    call()
    return max(1, round(seconds / clock(call, 3)))


def sides_of(case: Case, tuned: bool) -> dict[str, Side]:
    found = {"ours": ours(case)}
    for name in case.peers:
        found[name] = peer(case, name)
        if tuned:
            found[f"{name} tuned"] = peer(case, name, tuned=True)
    for name, side in found.items():
        if side.parameters != found["ours"].parameters:
            sys.exit(
                f"{case}: {name} has {side.parameters} parameters and ours has "
                f"{found['ours'].parameters}; the two are not of one size"
            )
    return found


def measure(name: str, case: Case, rounds: int, seconds: float, tuned: bool) -> None:
    """Checks a case, times it, prints a line a peer and task."""
    apart = {one: difference(case, one) for one in case.peers}
    for one, (of_log_p, of_samples) in apart.items():
        if not of_log_p < TOLERANCE or not of_samples < TOLERANCE:
            sys.exit(
                f"{name}: with equal weights ours and {one} are apart by {of_log_p:.1e} nats an "
                f"entry and {of_samples:.1e} in samples"
            )
    sides = sides_of(case, tuned)
    for task in ("train", "sample"):
        calls = {one: getattr(side, task) for one, side in sides.items()}
        times = {one: repeats(call, seconds) for one, call in calls.items()}
        took: dict[str, list[float]] = {one: [] for one in calls}
        for _ in range(rounds):
            for one, call in calls.items():
                took[one].append(clock(call, times[one]))
        for one in list(calls)[1:]:
            ratios = [p / o for p, o in zip(took[one], took["ours"], strict=True)]
            apart_ = max(apart[one.split()[0]])
            print(
                f"{name:16} {task:7} {one:16} {1e3 * statistics.median(took['ours']):9.3f} "
                f"{1e3 * statistics.median(took[one]):9.3f} {statistics.median(ratios):6.2f}  "
                f"{min(ratios):.2f} to {max(ratios):<6.2f} {sides[one].parameters:>9} {apart_:.0e}",
                flush=True,
            )


def require_peers() -> None:
    """Ends the program, with what to install, where a peer is missing."""
    for package in ("torch", "nflows", "normflows"):
        if importlib.util.find_spec(package) is None:
            sys.exit(f"{package} is not installed: pip install 'prpr[torch]' nflows normflows")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each side in a round")
    parser.add_argument("--tuned", action="store_true", help="also torch.compile, and fused Adam")
    arguments = parser.parse_args()
    names = arguments.cases.split(",")
    for name in names:
        if name not in CASES:
            parser.error(f"--cases: unknown {name!r}; one of {', '.join(CASES)}")
    require_peers()
    # Of torch.lu, which normflows calls when a linear map is made.
    warnings.filterwarnings("ignore", "torch.lu is deprecated")
    import jax
    import torch

    versions = (metadata.version(package) for package in ("jax", "torch", "nflows", "normflows"))
    print(
        "jax {}, torch {}, nflows {}, normflows {};".format(*versions),
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads of torch, "
        f"{jax.devices()[0].platform}, float32, {arguments.rounds} rounds, load "
        f"{os.getloadavg()[0]:.1f}",
    )
    print(
        f"{'case':16} {'task':7} {'peer':16} {'ours ms':>9} {'peer ms':>9} {'ratio':>6}  "
        f"{'range':14} {'numbers':>9} apart"
    )
    for name in names:
        measure(name, CASES[name], arguments.rounds, arguments.seconds, arguments.tuned)


if __name__ == "__main__":
    main()
