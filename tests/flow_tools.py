"""The registry of bijectors that all of tests/test_flows.py's properties are asked of.

`CASES` holds (name, build, shape): build() -> a Bijector of items of that shape. A flow that is
appended is tested like the others, with and without a context.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prpr.models.flows.bijector import Bijector, Chain
from prpr.models.flows.couplings import AffineCoupling, SplineCoupling
from prpr.models.flows.elementwise import Logit
from prpr.models.flows.glow import ActNorm, InvertibleLinear, glow, realnvp, spline
from prpr.models.flows.multiscale import Permute, Reverse, Squeeze
from prpr.models.flows.residual import Residual, residual

CONTEXT = 3  # entries of the context
ITEMS = 7


class Case(NamedTuple):
    """A row of the registry; `contexts`: whether it is tested with one, without, or both."""

    name: str
    build: Callable[[], Bijector]
    shape: tuple[int, ...]
    contexts: tuple[bool, ...] = (False, True)


# A compilation for each direction and each of these takes most of the tests' time, so that not
# every case has both.
_BOTH, _PLAIN, _CONTEXT = (False, True), (False,), (True,)


def _small(flow: Callable[..., Bijector], shape: tuple[int, ...], **sizes: Any) -> Case:
    name = f"{flow.__name__}-{'x'.join(map(str, shape))}"
    sizes = {"depth": 2, "width": 8, "hidden": 1, **sizes}
    return Case(name, lambda: flow(shape, **sizes), shape, _CONTEXT)


def _coupling(
    kind: type, shape: tuple[int, ...], *rest: Any, contexts: tuple[bool, ...], **sizes: Any
) -> Case:
    name = "-".join([kind.__name__, "x".join(map(str, shape)), *map(str, rest)])
    return Case(name, lambda: kind(shape, *rest, width=8, depth=1, **sizes), shape, contexts)


CASES: list[Case] = [
    Case("Logit", lambda: Logit(17), (4, 4, 1), _PLAIN),
    Case("ActNorm-5", ActNorm, (5,), _PLAIN),
    Case("ActNorm-4x4x3", ActNorm, (4, 4, 3), _PLAIN),
    Case("InvertibleLinear-5", InvertibleLinear, (5,), _PLAIN),
    Case("InvertibleLinear-4x4x3", InvertibleLinear, (4, 4, 3), _PLAIN),
    Case("Permute", lambda: Permute((2, 0, 4, 1, 3)), (5,), _PLAIN),
    Case("Reverse", Reverse, (4, 4, 3), _PLAIN),
    Case("Squeeze", lambda: Squeeze((4, 4, 3)), (4, 4, 3), _PLAIN),
    Case("Chain", lambda: Chain([Squeeze((4, 4, 1)), ActNorm(), Reverse()]), (4, 4, 1), _PLAIN),
    _coupling(AffineCoupling, (2,), contexts=_BOTH),
    _coupling(AffineCoupling, (5,), "halves", True, contexts=_CONTEXT),
    _coupling(AffineCoupling, (2, 2, 4), contexts=_PLAIN),
    _coupling(AffineCoupling, (4, 4, 3), "checkerboard", contexts=_CONTEXT),
    _coupling(SplineCoupling, (2,), contexts=_BOTH, bins=4),
    _coupling(SplineCoupling, (5,), "halves", True, contexts=_PLAIN, bins=4),
    _coupling(SplineCoupling, (4, 4, 1), "checkerboard", True, contexts=_CONTEXT, bins=4),
    Case("Residual-2", lambda: Residual((2,), width=8), (2,)),
    Case("Residual-4x4x1", lambda: Residual((4, 4, 1), width=8, depth=1), (4, 4, 1), _CONTEXT),
    _small(realnvp, (5,)),
    _small(realnvp, (8, 8, 1), levels=17, scales=1),
    _small(glow, (2,)),
    _small(glow, (4, 4, 3), depth=1),
    _small(glow, (8, 8, 1), levels=17, depth=1),
    _small(spline, (2,), bins=4),
    _small(spline, (4, 4, 1), bins=4, depth=1),
    _small(residual, (5,)),
    _small(residual, (4, 4, 3), depth=1, exact_dim=48),
]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def items(case: Case, seed: int) -> np.ndarray:
    """ITEMS of them, images within [−1, 1]."""
    x = normal(seed, ITEMS, *case.shape)
    return np.tanh(x) if len(case.shape) == 3 else x


def contexts(with_context: bool) -> np.ndarray | None:
    return normal(99, ITEMS, CONTEXT) if with_context else None


def latents(case: Case, seed: int) -> np.ndarray:
    """ITEMS of them, in the shape that the bijector's z has."""
    return normal(seed, ITEMS, *(case.build().latent_shape or case.shape))


def perturbed(variables: Any, scale: float = 0.3, seed: int = 5) -> Any:
    """Parameters away from where they start; kernels by noise whose products keep their size."""
    rng = np.random.default_rng(seed)

    def move(leaf: Any) -> np.ndarray:
        noise = scale * rng.standard_normal(leaf.shape)
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        return np.asarray(leaf + noise / np.sqrt(fan_in), np.float32)

    return {**variables, "params": jax.tree.map(move, variables.get("params", {}))}


def random_variables(
    model: nn.Module, *inputs: Any, scale: float = 0.3, method: str = "forward_and_log_det"
) -> Any:
    """Variables far from the identity, without computing the model's own (which takes longer)."""
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(lambda k: model.init(k, *inputs, method=method), jax.random.key(0))

    def constant(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key == "permutation":
            return np.eye(len(leaf), dtype=np.float32)[rng.permutation(len(leaf))]
        return rng.choice(np.float32([-1, 1]), leaf.shape)  # signs

    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.get("params", {}))
    constants = jax.tree_util.tree_map_with_path(constant, shapes.get("constants", {}))
    return perturbed({"params": params, "constants": constants}, scale)


def wide(tree: Any) -> Any:
    """In float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def quickly(fn: Callable[..., Any]) -> Callable[..., Any]:
    """jit for programs that run once: what optimising them takes is never earned back."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})


def started(model: nn.Module, *inputs: Any, method: str = "forward_and_log_det") -> Any:
    """What `init` gives at these inputs, and the variables that it makes."""
    init = quickly(lambda k, *inputs: model.init_with_output(k, *inputs, method=method))
    return init(jax.random.key(3), *inputs)


def applying(model: nn.Module, method: str = "forward_and_log_det") -> Callable[..., Any]:
    """(variables, *inputs) -> `apply`, compiled once."""
    run = quickly(lambda v, inputs: model.apply(v, *inputs, method=method))
    return lambda v, *inputs: run(v, inputs)


class Found(NamedTuple):
    """What a direction gives for a batch: loss's gradients, out (N, ...) and log_det (N,)."""

    gradients: Any
    out: np.ndarray
    log_det: np.ndarray


class Programs:
    """The compiled directions of a case: `forward(x)`, `inverse(z)`, `single(x, z)`."""

    def __init__(self, case: Case, with_context: bool):
        self.case, self.model = case, case.build()
        self.x, self.z = items(case, 1), latents(case, 2)
        self.context = contexts(with_context)
        self.variables = random_variables(self.model, self.x, self.context)
        self._compiled = {
            method: quickly(jax.value_and_grad(functools.partial(self._loss, method), (0, 1), True))
            for method in METHODS
        }
        self._single = quickly(self._one)

    def apply(self, method: str, variables: Any, x: Any, context: Any) -> Any:
        return self.model.apply(variables, x, context, method=method)

    def _loss(self, method: str, params: Any, x: Any, context: Any) -> Any:
        variables = {**self.variables, "params": params}
        out, log_det = self.apply(method, variables, x, context)
        return jnp.abs(out).mean() + log_det.mean(), (out, log_det)

    def _run(self, method: str, x: Any) -> Found:
        result = self._compiled[method](self.variables["params"], x, self.context)
        (_, (out, log_det)), gradients = result
        return Found(gradients, np.asarray(out), np.asarray(log_det))

    def forward(self, x: Any) -> Found:
        return self._run(METHODS[0], x)

    def inverse(self, z: Any) -> Found:
        return self._run(METHODS[1], z)

    def _one(self, x: Any, z: Any, context: Any) -> Any:
        def flat(a: Any) -> Any:
            z, log_det = self.apply(METHODS[0], self.variables, a.reshape(x.shape), context)
            return z.reshape(-1), (z, log_det)

        jacobian, (out, log_det) = jax.jacfwd(flat, has_aux=True)(x.reshape(-1))
        back, _ = self.apply(METHODS[1], self.variables, z, context)
        return out, log_det, jnp.linalg.slogdet(jacobian)[1], back

    def single(self) -> Any:
        """Of the first item alone: z, log_det, autodiff's log |det|, and x of its latent."""
        context = None if self.context is None else self.context[:1]
        return self._single(self.x[:1], self.z[:1], context)


METHODS = ("forward_and_log_det", "inverse_and_log_det")
