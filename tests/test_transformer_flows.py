"""Jet and TarFlow: exact inverses and densities, and sampling with a cache at its stated cost."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_tools import normal

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Bijector
from prpr.models.flows.flow import Flow, standard_normal
from prpr.models.flows.jet import jet, orders
from prpr.models.flows.tarflow import Autoregressions, tarflow
from prpr.models.flows.transformer import Attention, LayerNorm, Transformer, patches, unpatch, write
from prpr.numerics import float64
from prpr.planner import flops, footprint

# Every program here runs once or twice, so what counts is how fast it is compiled.
_FAST = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
jit = functools.partial(jax.jit, compiler_options=_FAST)

BOTH = ("channels", "tokens")
BUILD: dict[str, tuple[tuple[int, ...], Callable[..., Bijector], dict[str, Any]]] = {
    "jet 4x4x1": ((4, 4, 1), jet, {"patch": 2, "couplings": 4, "kinds": BOTH}),
    "jet 4x4x3": ((4, 4, 3), jet, {"patch": 2, "couplings": 4, "kinds": BOTH}),
    "jet 3x3x2": ((3, 3, 2), jet, {"patch": 1, "couplings": 4, "kinds": ("tokens",)}),
    "jet 2x2x1": ((2, 2, 1), jet, {"patch": 1, "couplings": 3, "kinds": ("tokens",)}),
    "tarflow 4x4x1": ((4, 4, 1), tarflow, {"patch": 2, "blocks": 2}),
    "tarflow 4x4x3": ((4, 4, 3), tarflow, {"patch": 2, "blocks": 2}),
    "tarflow 2": ((2,), tarflow, {"blocks": 3}),
    "tarflow 1": ((1,), tarflow, {"blocks": 2}),
}
SMALL = {"width": 8, "heads": 2, "depth": 1, "unroll": 0}  # loops compile faster
CONTEXT = 3
N = 4

every = pytest.mark.parametrize("name", BUILD)
few = pytest.mark.parametrize("name", ["jet 4x4x1", "tarflow 4x4x1"])


def build(name: str, **more: Any) -> tuple[tuple[int, ...], Bijector]:
    shape, builder, settings = BUILD[name]
    return shape, builder(shape, **{**SMALL, **settings, **more})


def shapes(module: nn.Module, *inputs: Any, method: str = "forward_and_log_det") -> Any:
    init = functools.partial(module.init, method=method)
    return jax.eval_shape(init, jax.random.key(0), *inputs)


def away(module: nn.Module, *inputs: Any, method: str = "forward_and_log_det") -> Any:
    """Random parameters: zeros would hide much, and initial ones take longer than the tests."""
    rng = np.random.default_rng(3)

    def random(path: Any, leaf: Any) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape)
        kind = path[-1].key
        if kind == "kernel":
            wide = 0.5 if path[-2].key == "exit" else 1.0
            noise *= wide / np.sqrt(leaf.shape[-2])
        else:
            noise = float(kind == "scale") + 0.3 * noise
        return noise.astype(np.float32)

    return jax.tree_util.tree_map_with_path(random, shapes(module, *inputs, method=method))


class Case(NamedTuple):
    """A map away from the identity, and both its directions of one batch x (N, ...).

    Attributes:
      directions: (variables, x, context) -> out, log_det, jitted; forward and inverse.
      there: z and log_det of x; `back`: of z; `again`: z of x's inverse.
      jacobians: (N, D, D) in x of the forward map and of the inverse.
    """

    module: Bijector
    variables: Any
    x: np.ndarray
    context: np.ndarray
    directions: tuple[Callable[..., Any], Callable[..., Any]]
    there: Any
    back: Any
    away: Any
    jacobians: Any


METHODS = ("forward_and_log_det", "inverse_and_log_det")


@functools.cache
def case(name: str) -> Case:
    shape, module = build(name)
    x, context = normal(2, N, *shape), normal(1, N, CONTEXT)
    variables = away(module, x, context)

    def results(method, variables, x, context):
        """out, log_det, and the Jacobian of out, all from one program."""

        def alone(item, c):
            out, log_det = module.apply(variables, item[None], c[None], method=method)
            return out[0], (out[0], log_det[0])

        jacobian, found = jax.vmap(jax.jacfwd(alone, has_aux=True))(x, context)
        return *found, jacobian.reshape(N, x[0].size, x[0].size)

    forward, inverse = (jit(functools.partial(results, method)) for method in METHODS)
    z, log_det, jacobian = forward(variables, x, context)
    out, inverse_log_det, inverse_jacobian = inverse(variables, x, context)
    return Case(
        module,
        variables,
        x,
        context,
        (forward, inverse),
        (z, log_det),
        inverse(variables, z, context)[:2],
        (out, inverse_log_det),
        (jacobian, inverse_jacobian),
    )


def block(backwards: bool = False, tokens: int = 5, depth: int = 2) -> tuple[Any, Any]:
    """One block of TarFlow, and random variables in float64.

    Backwards it is the second of two, and the first does nothing.
    """
    module = Autoregressions(tokens, 2, 1 + backwards, **{**SMALL, "depth": depth})
    variables = away(module, normal(0, 1, tokens, 2), normal(0, 1, CONTEXT))
    if backwards:
        for leaf in jax.tree.leaves(variables["params"]["layers"]["exit"]):
            leaf[0] = 0.0
    return module, jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)


# --- invertible, with the density that it states --------------------------------------------------


@every
def test_round_trips(name):
    this = case(name)
    z, log_det = this.there
    assert z.shape == this.x.shape
    assert z.dtype == log_det.dtype == jnp.float32
    assert np.abs(z - this.x).max() > 0.1
    assert np.abs(log_det).max() > 0.1
    np.testing.assert_allclose(this.back[0], this.x, atol=1e-5)
    np.testing.assert_allclose(this.back[1], -log_det, atol=1e-5)
    again = this.directions[0](this.variables, this.away[0], this.context)[0]
    np.testing.assert_allclose(again, this.x, atol=1e-5)


@every
def test_log_det_is_that_of_the_jacobian(name):
    this = case(name)
    for (_, found), jacobian in zip((this.there, this.away), this.jacobians, strict=True):
        _, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@every
def test_context_matters(name):
    this = case(name)
    other = normal(9, N, CONTEXT)
    for direction, (one, _) in zip(this.directions, (this.there, this.away), strict=True):
        out = direction(this.variables, this.x, other)[0]
        assert np.abs(out - one).reshape(N, -1).max(axis=1).min() > 1e-2


@every
def test_both_directions_make_the_same_parameters(name):
    shape, module = build(name)
    inputs = normal(0, 1, *shape), normal(0, 1, CONTEXT)
    forward, inverse = (shapes(module, *inputs, method=method) for method in METHODS)
    assert forward == inverse


@few
def test_starts_as_the_identity(name):
    shape, module = build(name)
    flow = Flow(shape, module, num_classes=2, context_dim=CONTEXT)
    x, y = 3 * normal(4, N, *shape), np.array([0, 1, 1, 0])

    def start(key):
        variables = flow.init(key, x.reshape(N, -1), y, train=True)  # as a sampler's
        sampled = flow.apply(variables, x.reshape(N, -1), y, train=False)
        return sampled, flow.apply(variables, x, y, method="log_prob"), standard_normal(x)

    sampled, log_prob, expected = jit(start)(jax.random.key(0))
    np.testing.assert_array_equal(sampled, x)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


@few
def test_finite_at_large_inputs(name):
    this = case(name)
    x, context = 1e4 * np.sign(this.x), 1e4 * np.sign(this.context)

    def value(variables, x, context):
        both = [this.module.apply(variables, x, context, method=method) for method in METHODS]
        return sum((out * x).sum() / 1e4 + log_det.sum() for out, log_det in both)

    found = jit(jax.value_and_grad(value, (0, 1, 2)))(this.variables, x, context)
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all()
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found[1][0]))


@few
def test_items_do_not_see_each_other_and_jit_and_loops_change_nothing(name):
    this = case(name)  # whose results are found item by item, in loops over the layers
    module = build(name, unroll=4)[1]
    close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6)

    def both(variables, x, context, module=module):
        return [module.apply(variables, x, context, method=method) for method in METHODS]

    inputs = this.variables, this.x, this.context
    loops = jit(both).lower(*inputs).as_text().count("stablehlo.while")
    assert loops == name.startswith("tarflow")  # over the tokens, a function of all blocks
    together = jit(both)(*inputs)
    jax.tree.map(close, together, [this.there, this.away])
    alone = both(this.variables, this.x[2:3], this.context[2:3], this.module)
    jax.tree.map(lambda one, several: close(several[2:3], one), alone, together)


# --- TarFlow: the order of tokens, and the cache -------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
def test_a_token_moves_itself_and_later_ones(backwards):
    module, variables = block(backwards)
    later = np.triu if backwards else np.tril
    reached = later(np.ones((5, 5))) > 0
    with float64():
        x, context = jnp.asarray(normal(5, 5, 2), float), jnp.asarray(normal(6, 1, CONTEXT), float)

        def both(x):
            return [module.apply(variables, x[None], context, method=m)[0][0] for m in METHODS]

        for jacobian in jit(jax.jacfwd(both))(x):
            size = np.abs(jacobian).max(axis=(1, 3))  # [token of the result, token of x]
            assert (size[reached] > 1e-4).all()
            assert (size[~reached] == 0).all()
            for t in range(5):  # within a token, each entry by itself
                np.testing.assert_array_equal(jacobian[t, :, t] != 0, np.eye(2) != 0)


def slow(module: Autoregressions, variables: Any, z: Any, context: Any) -> tuple[Any, Any]:
    """x and log |det ∂x/∂z| by two forward passes for each token: z_t is affine in x_t."""

    def forward(x):
        return module.apply(variables, x, context, method="forward_and_log_det")[0]

    def solve(carry, t):
        x, log_det = carry
        at_zero, at_one = forward(x)[:, t], forward(x.at[:, t].set(1.0))[:, t]
        x = x.at[:, t].set((z[:, t] - at_zero) / (at_one - at_zero))
        return (x, log_det - jnp.log(at_one - at_zero).sum(axis=1)), None

    order = jnp.arange(module.tokens)
    start = jnp.zeros_like(z), jnp.zeros(z.shape[0], z.dtype)
    return jax.lax.scan(solve, start, order if module.blocks == 1 else order[::-1])[0]


def cached(module: Autoregressions, variables: Any, z: Any, context: Any) -> tuple[Any, Any]:
    return module.apply(variables, z, context, method="inverse_and_log_det")


def _value(inverse: Callable[..., Any], module: Any, variables: Any, z: Any, context: Any) -> Any:
    """A number that depends on both results, and x."""
    # Of two blocks the first does nothing; `slow` knows of no move of its parameters.
    held = jax.tree.map(lambda p: p.at[:-1].set(jax.lax.stop_gradient(p[:-1])), variables)
    x, log_det = inverse(module, held, z, context)
    return jnp.sin(x).sum() + (log_det.astype(z.dtype) * context[:, 0]).sum(), x


@pytest.mark.parametrize("backwards", [False, True])
def test_cached_sampling_is_that_of_the_whole_prefix(backwards):
    """Values, and gradients in parameters, z and context, in float64."""
    module, variables = block(backwards, tokens=4, depth=2 - backwards)
    with float64():
        inputs = variables, normal(7, 3, 4, 2), normal(8, 3, CONTEXT)
        inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), inputs)

        def gradient(inverse):
            value = functools.partial(_value, inverse, module)
            return jit(jax.grad(value, (0, 1, 2), has_aux=True))(*inputs)

        (found, x), (expected, slow_x) = gradient(cached), gradient(slow)
        np.testing.assert_allclose(x, slow_x, atol=1e-12)
        # log_det is summed in float32, and its derivative passes through it.
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, found, expected)


def test_second_derivatives_of_cached_sampling():
    module, variables = block(tokens=3, depth=1)
    with float64():
        inputs = variables, normal(7, 1, 3, 2), normal(8, 1, CONTEXT)
        variables, z, context = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), inputs)
        gradient = jax.grad(lambda z: jnp.sin(cached(module, variables, z, context)[0]).sum())
        found = jit(lambda z, v: jax.jvp(gradient, (z,), (v,)))
        v = jnp.cos(z)
        above, below = (found(z + h * v, v)[0] for h in (1e-5, -1e-5))
        second = found(z, v)[1]
        assert np.abs(second).max() > 0.1
        np.testing.assert_allclose(second, (above - below) / 2e-5, atol=1e-8)


def test_forward_and_reverse_mode_agree():
    this = case("tarflow 4x4x1")

    def alone(z):
        inverse = "inverse_and_log_det"
        z = z.reshape(1, 4, 4, 1)
        return this.module.apply(this.variables, z, this.context[:1], method=inverse)[0].reshape(-1)

    backward = jit(jax.jacrev(alone))(this.x[0].reshape(-1))
    np.testing.assert_allclose(backward, this.jacobians[1][0], rtol=1e-5, atol=1e-5)


def test_steps_of_a_transformer_are_its_pass():
    net = Transformer(5, 3, width=8, depth=2, heads=2, causal=True)
    x, context = normal(10, 2, 5, 4), normal(11, 2, CONTEXT)
    variables = away(net, x, context, method="__call__")
    cache = net.empty_cache(2, jnp.float32)

    @jit
    def step(x, cache, t):
        y, pairs = net.apply(variables, x, context, cache, t, method="step")
        return y, write(cache, pairs, t)

    whole = net.apply(variables, x, context)
    for t in range(5):
        y, cache = step(x[:, t], cache, jnp.int32(t))
        np.testing.assert_allclose(y, whole[:, t], atol=2e-6)


def test_log_scales_are_bounded():
    this = case("tarflow 4x4x1")
    steep = jax.tree.map(np.copy, this.variables)
    steep["params"]["bijector"]["layers"]["exit"]["bias"][:, 4:] = 1e4
    for direction, sign in zip(this.directions, (-1, 1), strict=True):
        _, log_det, _ = direction(steep, this.x, this.context)
        np.testing.assert_allclose(log_det, sign * 3.0 * 16 * 2, rtol=1e-6)  # 16 entries, 2 blocks


def test_layer_norm_does_not_cancel():
    layer, h = LayerNorm(), 1000 + normal(19, 3, 8)
    variables = away(layer, h, method="__call__")
    scale, bias = (variables["params"][name][None].astype(float) for name in ("scale", "bias"))
    apart = h.astype(float) - h.astype(float).mean(axis=1, keepdims=True)
    expected = apart / np.sqrt(np.square(apart).mean(axis=1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(layer.apply(variables, h), expected, atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_usual_one(causal):
    layer = Attention(8, 2, causal)
    h = normal(12, 2, 5, 8)
    variables = away(layer, h, method="__call__")
    p = variables["params"]
    # (N, T, 3·W) holds queries, keys and values, each head by head.
    qkv = h @ p["qkv"]["kernel"] + p["qkv"]["bias"][None, None]
    q, k, v = np.moveaxis(qkv.reshape(2, 5, 3, 2, 4), 2, 0)
    expected = jax.nn.dot_product_attention(q, k, v, is_causal=causal).reshape(2, 5, 8)
    np.testing.assert_allclose(
        layer.apply(variables, h),
        expected @ p["out"]["kernel"] + p["out"]["bias"][None, None],
        atol=1e-5,
    )


def _products(fn: Callable[..., Any], *inputs: Any) -> float:
    return sum(flops.count(fn, *inputs).contractions.values())


def test_the_inverse_takes_one_pass_of_products():
    """And its gradient one more than a forward's. Without the cache there are two a token."""

    def ratios(tokens):
        module = Autoregressions(tokens, 2, 1, width=16, heads=2)
        inputs = normal(13, 2, tokens, 2), normal(14, 2, CONTEXT)
        variables = shapes(module, *inputs)

        def forward(variables, z, context):
            return module.apply(variables, z, context, method="forward_and_log_det")

        def train(variables, z, context):
            fn = functools.partial(cached, module)
            return jax.grad(lambda *a: sum(part.sum() for part in fn(*a)))(variables, z, context)

        one = _products(forward, variables, *inputs)
        ways = (functools.partial(cached, module), train, functools.partial(slow, module))
        return [_products(way, variables, *inputs) / one for way in ways]

    (inverse_8, train_8, slow_8), (inverse_16, train_16, slow_16) = ratios(8), ratios(16)
    assert max(inverse_8, inverse_16) < 1.1
    assert max(train_8, train_16) < 4.5
    assert slow_8 == 16
    assert slow_16 == 32


def test_a_gradient_stores_no_cache_for_each_token():
    """The bytes that reverse mode keeps, beside attention's own weights, are linear in T."""

    def kept(tokens):
        module = Autoregressions(tokens, 2, 1, width=32, heads=1)
        inputs = normal(15, 2, tokens, 2), normal(16, 2, CONTEXT)
        variables = shapes(module, *inputs)

        def residuals(variables, z, context):
            fn = functools.partial(cached, module, context=context)
            return jax.vjp(fn, variables, z)[1]

        leaves = jax.tree.leaves(jax.eval_shape(residuals, variables, *inputs))
        return sum(leaf.size for leaf in leaves if tokens in leaf.shape)

    assert kept(64) < 2.5 * kept(32)


# --- Jet: what is cut, and where -----------------------------------------------------------------


def cuts(rows: int, columns: int, entries: int, kinds: tuple[str, ...]) -> np.ndarray:
    """(couplings, T, K) bool: what each coupling keeps."""
    order = orders(rows, columns, entries, kinds)
    kept = np.zeros(order.shape, bool)
    for row, places in zip(kept, order, strict=True):
        assert sorted(places) == list(range(rows * columns * entries))
        row[places[: places.size // 2]] = True
    return kept.reshape(len(kinds), rows * columns, entries)


def test_two_couplings_of_a_kind_move_everything():
    kinds = jet((8, 8, 1), patch=2, couplings=16, **SMALL).bijector.kinds
    assert kinds[:6] == ("channels",) * 4 + ("tokens", "channels")
    for rows, entries in ((4, 4), (3, 2)):
        kept = cuts(rows, rows, entries, kinds)
        for kind in ("channels", "tokens"):
            these = kept[np.array(kinds) == kind]
            pairs = len(these) // 2
            np.testing.assert_array_equal(these[: 2 * pairs : 2], ~these[1 : 2 * pairs : 2])
            if kind == "channels":  # whole channels
                np.testing.assert_array_equal(these, these[:, :1].repeat(rows**2, axis=1))
                assert entries == 2 or len({cut[0].tobytes() for cut in these}) > 2


def test_tokens_are_cut_as_checkerboard_columns_and_rows():
    kept = cuts(2, 4, 1, ("tokens",) * 6)[::2, :, 0]
    assert [list(np.flatnonzero(cut)) for cut in kept] == [[0, 2, 5, 7], [0, 2, 4, 6], [0, 1, 2, 3]]
    # One row only: there are no other rows to cut off.
    kept = cuts(1, 4, 1, ("tokens",) * 6)[:, :, 0]
    assert all(list(np.flatnonzero(cut)) == [0, 2] for cut in kept[::2])
    # Five dark fields and four light ones: half of the last dark one goes to the light ones.
    kept = cuts(3, 3, 2, ("tokens",))[0]
    assert kept.sum(axis=1).tolist() == [2, 0, 2, 0, 2, 0, 2, 0, 1]


def test_a_coupling_keeps_its_half_and_reads_nothing_else():
    module = jet((4, 4, 1), patch=2, couplings=1, **SMALL)
    x = normal(17, 1, 4, 4, 1)
    variables = away(module, x)
    kept = cuts(2, 2, 4, ("channels",))
    shape = (4, 4, 1)

    def forward(tokens):
        x = unpatch(tokens, 2, shape)
        return np.asarray(patches(module.apply(variables, x, method="forward_and_log_det")[0], 2))

    tokens = np.asarray(patches(x, 2))
    z, more = forward(tokens), forward(tokens + ~kept)
    np.testing.assert_array_equal(z[kept], tokens[kept])
    scale = (more - z)[~kept]  # eˢ, since b moved by 1
    assert 0 < scale.min() < scale.max() < 2


def test_patches():
    x = normal(18, 2, 4, 6, 3)
    found = patches(x, 2)
    assert found.shape == (2, 6, 12)
    np.testing.assert_array_equal(found[:, 4].reshape(2, 2, 2, 3), x[:, 2:4, 2:4])
    np.testing.assert_array_equal(unpatch(found, 2, (4, 6, 3)), x)


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [jet, tarflow])
def test_refused_by_both(build):
    with pytest.raises(
        ConfigError, match=r"patch = 4 does not divide .* 6 x 6: use one of 1, 2, 3"
    ):
        build((6, 6, 1), patch=4)
    with pytest.raises(ConfigError, match="patch = 0"):
        build((6, 6, 1), patch=0)
    with pytest.raises(ConfigError, match=r"width = 30 .* heads = 4: use a multiple, such as 32"):
        build((4, 4, 1), width=30, heads=4)
    with pytest.raises(ConfigError, match="heads = 0"):
        build((4, 4, 1), patch=2, heads=0)
    with pytest.raises(ConfigError, match="depth = 0"):
        build((4, 4, 1), patch=2, depth=0)
    with pytest.raises(ConfigError, match=r"shape = \(4, 4\)"):
        build((4, 4))


def test_refused_by_one():
    with pytest.raises(ConfigError, match=r"3 x 3 x 1 has 9 entries, an odd .* even patch"):
        jet((6, 6, 1), patch=3)
    with pytest.raises(ConfigError, match="9 patches of 3 x 3 x 1 have an odd number"):
        jet((9, 9, 1), patch=3)
    with pytest.raises(ConfigError, match=r"patch = 4 makes one token .* smaller patch"):
        jet((4, 4, 1), patch=4)
    with pytest.raises(ConfigError, match=r"kind of coupling 'channel'. Did you mean 'channels'"):
        jet((4, 4, 1), patch=2, kinds=("channel",))
    with pytest.raises(ConfigError, match=r"kinds = \(\)"):
        jet((4, 4, 1), patch=2, kinds=())
    with pytest.raises(ConfigError, match="couplings = 0"):
        jet((4, 4, 1), patch=2, couplings=0)
    with pytest.raises(ConfigError, match=r"shape = \(2,\)"):
        jet((2,))
    with pytest.raises(ConfigError, match="bound = 0"):
        tarflow((4, 4, 1), patch=2, bound=0.0)
    with pytest.raises(ConfigError, match="blocks = 0"):
        tarflow((2,), blocks=0)
    with pytest.raises(ConfigError, match="tokens = 0"):
        tarflow((0,))


@few
def test_what_is_computed_anew_gives_the_same_gradient_in_less_memory(name):
    shape, plain = build(name)
    _, again = build(name, remat=True)
    x = normal(1, N, *shape)
    variables = away(plain, x, None)

    def loss(module: Bijector) -> Callable[[Any], jax.Array]:
        def value(variables: Any) -> jax.Array:
            z, log_det = module.apply(variables, x, None, method="forward_and_log_det")
            return (z**2).mean() - log_det.mean()

        return value

    one, other = (jit(jax.value_and_grad(loss(m)))(variables) for m in (plain, again))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    cost = [flops.program(jax.grad(loss(m)), variables) for m in (plain, again)]
    first, second = (flops.cost(flat).flops for flat in cost)
    assert 1.2 < second / first < 1.5  # one forward pass more
    first, second = (footprint.peak(flat, fused=False) for flat in cost)
    assert second < 0.9 * first
