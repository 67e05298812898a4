"""Counts against hand-computed ones, and memory against programs whose peak is known by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prpr.errors import PrprError
from prpr.planner import flops, footprint

F32 = jnp.float32


def shape(*dims: int, dtype=F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def conv(stride=1, padding="SAME", groups=1, kernel_dilation=1):
    def call(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            padding,
            rhs_dilation=(kernel_dilation, kernel_dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return call


def test_dense_is_two_flops_a_mac():
    cost = flops.count(lambda x, w: x @ w + 1.0, shape(5, 7), shape(7, 3))
    assert cost.contractions == {"float32": 2 * 5 * 7 * 3}
    assert cost.elementwise == 5 * 3


def test_batched_product_and_its_gradient():
    def loss(a, b):
        return (a @ b).sum()

    forward = 2 * 4 * 5 * 7 * 3
    assert flops.count(loss, shape(4, 5, 7), shape(4, 7, 3)).flops == forward
    both = jax.value_and_grad(lambda a, b: ((a @ b) ** 2).sum(), argnums=(0, 1))
    assert flops.count(both, shape(4, 5, 7), shape(4, 7, 3)).flops == 3 * forward


# 8 x 8 images, 3 x 3 kernel. "SAME": of the 3 · 8 taps of an axis, 2 fall on padding: 22.
# Stride 2, "SAME" pads (0, 1): outputs 0, 2, 4, 6, taps to 8, of which position 8 is padding: 11.
# "VALID": 6 · 3 = 18; with stride 2: 3 · 3 = 9. Kernel dilation 2, "SAME" pads 2 on both sides:
# taps at o − 2, o, o + 2: 6 + 8 + 6 = 20.
CONVOLUTIONS = {
    "same": ({}, 22),
    "valid": ({"padding": "VALID"}, 18),
    "strided": ({"stride": 2}, 11),
    "strided valid": ({"stride": 2, "padding": "VALID"}, 9),
    "dilated": ({"kernel_dilation": 2}, 20),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_by_hand(name, groups):
    settings, taps = CONVOLUTIONS[name]
    fn = conv(groups=groups, **settings)
    x, w = shape(2, 8, 8, 4), shape(3, 3, 4 // groups, 6)
    forward = 2 * 2 * 6 * (4 // groups) * taps**2
    assert flops.count(fn, x, w).flops == forward
    # Both gradients see exactly the same pairs, so a training pass is three forward passes.
    training = jax.value_and_grad(lambda x, w: (fn(x, w) ** 2).sum(), argnums=(0, 1))
    assert flops.count(training, x, w).flops == 3 * forward


def test_taps_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size, kernel, stride, low, dilation, spread = rng.integers(1, 5, 6)
        out = int(rng.integers(1, 6))
        real = {i * dilation for i in range(size)}
        pairs = [
            (o, k)
            for o in range(out)
            for k in range(kernel)
            if o * stride + k * spread - low in real
        ]
        assert flops.taps(size, out, kernel, stride, low, dilation, spread) == len(pairs)


def test_taps_are_those_that_xla_computes():
    # A convolution of ones by ones counts its own taps.
    for settings, taps in CONVOLUTIONS.values():
        out = conv(**settings)(jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 1)))
        assert float(out.sum()) == taps**2


def test_attention():
    def attend(q, k, v):
        return jax.nn.softmax(q @ k.swapaxes(1, 2), axis=-1) @ v

    cost = flops.count(attend, shape(2, 9, 4), shape(2, 6, 4), shape(2, 6, 5))
    assert cost.flops == 2 * 2 * 9 * 6 * (4 + 5)
    # softmax: max, subtract, exp, sum, divide over 9 · 6 each; max also starts from −inf a row.
    assert cost.elementwise >= 5 * 2 * 9 * 6
    assert not cost.uncounted


def test_scan_counts_every_trip_and_cond_the_dearest_branch():
    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ c, c.sum()), x, None, length=11)

    assert flops.count(loop, shape(3, 3)).flops == 11 * 2 * 27

    def either(flag, x):
        return jax.lax.cond(flag, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert flops.count(either, shape(dtype=jnp.bool_), shape(3, 3)).flops == 2 * 2 * 27


def test_while_needs_trips():
    def loop(x):
        return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ c, x)

    with pytest.raises(PrprError, match="give trips"):
        flops.count(loop, shape(3, 3))
    assert flops.count(loop, shape(3, 3), trips=4).flops == 4 * 2 * 27


def test_a_loop_that_stops_at_a_number_of_trips_counts_that_many():
    """As the inverses of residual flows: until it has converged, or after so many."""

    def loop(x, most):
        def go_on(state):
            x, i = state
            return (jnp.abs(x).max() > 1e-3) & (i < most)

        return jax.lax.while_loop(go_on, lambda s: (s[0] @ s[0], s[1] + 1), (x, jnp.int32(0)))

    flat = flops.program(lambda x: loop(x, 7), shape(3, 3))
    assert flops.cost(flat).flops == 7 * 54
    assert flops.cost(flat, once=True).flops == 54
    assert flops.open_loops(flat) == 7
    products = [k for k in footprint.kernels(flat) if k.flops]
    assert [(k.times, k.sure * k.times) for k in products] == [(7, pytest.approx(1))]
    # Side by side too, where the condition is one of many runs.
    many = flops.program(jax.vmap(lambda x: loop(x, 7)), shape(2, 3, 3))
    assert flops.cost(many).flops == 2 * 7 * 54


def up(state):
    x, i = state
    return x @ x, i + 1


@pytest.mark.parametrize(
    ("go_on", "advance"),
    [
        # Comparisons that need not hold, or with something else.
        (lambda s: (s[0].sum() < 9.0) | (s[1] < 7), up),
        (lambda s: ~(s[1] < 7), up),
        (lambda s: s[1] != 7, up),
        (lambda s: s[1] < s[0].sum().astype(jnp.int32), up),
        (lambda s: s[1] * s[1] < 7, up),
        # What is compared does not count, or otherwise than by one.
        (lambda s: s[1] < 7, lambda s: (s[0] @ s[0], s[1] + 2)),
        (lambda s: s[1] < 7, lambda s: (s[0] @ s[0], s[1] * s[1])),
        (lambda s: s[1] < 7, lambda s: (s[0] @ s[0], s[1])),
        (lambda s: s[0].sum() < 9.0, up),
    ],
)
def test_a_comparison_that_is_no_counters_bounds_nothing(go_on, advance):
    with pytest.raises(PrprError, match="give trips"):
        flops.count(lambda x: jax.lax.while_loop(go_on, advance, (x, jnp.int32(0))), shape(3, 3))


def test_neither_does_one_with_a_start_or_an_end_that_is_computed():
    def loop(x, begin, end):
        return jax.lax.while_loop(lambda s: s[1] < end, up, (x, begin))

    number = shape(dtype=jnp.int32)
    for fn in (lambda x, n: loop(x, n, 7), lambda x, n: loop(x, jnp.int32(0), n)):
        with pytest.raises(PrprError, match="give trips"):
            flops.count(fn, shape(3, 3), number)


@pytest.mark.parametrize(
    ("begin", "at_most", "trips"), [(0, 7, 8), (1, 7, 7), (5, 6, 2), (9, 7, 0)]
)
def test_a_loop_that_only_counts_makes_all_its_trips(begin, at_most, trips):
    def loop(x):
        start = (jnp.int32(begin), x)
        return jax.lax.while_loop(
            lambda s: s[0] <= at_most, lambda s: (1 + s[0], s[1] @ s[1]), start
        )

    for fn, size, one in ((loop, shape(3, 3), 54), (jax.vmap(loop), shape(2, 3, 3), 108)):
        flat = flops.program(fn, size)
        assert (flops.cost(flat).flops, flops.open_loops(flat)) == (trips * one, 0)
        assert [k.sure for k in footprint.kernels(flat) if k.flops] == [1.0]
    assert flops.count(loop, shape(3, 3)).flops == flops.count(loop, shape(3, 3), trips=trips).flops


def test_a_scans_trips_are_known():
    known = flops.program(lambda x: jax.lax.fori_loop(0, 5, lambda _, c: c @ c, x), shape(3, 3))
    assert (flops.cost(known).flops, flops.open_loops(known)) == (5 * 54, 0)


def test_linear_solves_and_factors():
    def solve(a, b):
        matvec = functools.partial(jnp.dot, a)
        return jax.lax.custom_linear_solve(matvec, b, lambda _, b: a @ (a @ b))

    found = flops.count(solve, shape(4, 4), shape(4))
    assert (found.flops, found.uncounted) == (2 * 2 * 16, frozenset())
    triangle = functools.partial(jax.scipy.linalg.solve_triangular, lower=True)
    found = flops.count(triangle, shape(5, 5), shape(5, 3))
    assert (found.flops, found.uncounted) == (25 * 3, frozenset())
    found = flops.count(lambda a: jnp.linalg.slogdet(a)[1], shape(2, 6, 6))
    assert found.flops == pytest.approx(2 * 2 / 3 * 6**3)
    assert not found.uncounted


def test_remat_computes_the_forward_pass_twice():
    def layer(w, x):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def total(fn):
        return flops.count(
            jax.value_and_grad(lambda w, x: fn(w, x).sum(), argnums=(0, 1)), *sizes
        ).flops

    sizes, forward = (shape(5, 5), shape(7, 5)), 2 * 2 * 7 * 5 * 5
    assert total(layer) == 3 * forward
    # Of the recomputed pass the last product is not needed, but its tanh is: 2 of 2 are.
    assert total(jax.checkpoint(layer)) == 4 * forward


def test_what_nothing_needs_is_not_counted():
    assert flops.count(lambda x: (x @ x, x + 1.0)[1], shape(3, 3)).flops == 0


def test_calls_are_seen_through_and_dtypes_told_apart():
    @jax.jit
    def inner(x):
        return jax.nn.relu(x @ x)

    def outer(x, h):
        high = jax.lax.dot(x, x, precision="highest")
        return inner(x) + high, h @ h

    cost = flops.count(outer, shape(3, 3), shape(4, 4, dtype=jnp.bfloat16))
    assert cost.contractions == {"float32": 54, flops.HIGHEST: 54, "bfloat16": 128}
    mapped = jax.pmap(lambda x: jax.lax.pmean(x @ x, "i"), axis_name="i")
    assert flops.count(mapped, shape(1, 3, 3)).flops == 54


def test_an_unknown_primitive_is_named():
    def solve(x):
        return jnp.linalg.cholesky(x)

    assert "cholesky" in flops.count(solve, shape(3, 3)).uncounted


def test_the_compiler_agrees_on_a_convolution():
    # A cross-check where XLA is known to count right: one plain convolution.
    fn, x, w = conv(), shape(2, 8, 8, 4), shape(3, 3, 4, 6)
    theirs = flops.compiler_estimate(fn, x, w)
    assert theirs is None or theirs == pytest.approx(flops.count(fn, x, w).flops, rel=0.05)


# --- memory ---------------------------------------------------------------------------------

N = 4 * 100 * 100  # bytes of one matrix


def peak(fn, *shapes, **settings) -> float:
    return footprint.peak(flops.program(fn, *shapes), **settings) / N


M = shape(100, 100)


def test_peak_by_hand():
    # x stays, a and b live together, then a dies: x, a, b; x, b, c.
    assert peak(lambda x: x @ x @ x @ x, M) == 3

    # All three products have to wait for the sum.
    def fan(x):
        return (x @ x) @ ((x @ x) @ (x @ x))

    assert peak(fan, M) == 5


def test_fused_values_take_no_memory():
    def chain(x):
        return (jnp.sin(x) + jnp.cos(x)) @ x

    assert peak(chain, M) == 3  # x, the sum, the product
    assert peak(chain, M, fused=False) == 4  # x, its sine and cosine, the sum


def test_broadcasts_take_no_memory():
    def add(x, b):
        return jnp.broadcast_to(b[None, :], (100, 100)) + x

    assert peak(add, M, shape(100), fused=False) == pytest.approx(2.01)


def test_residuals_live_to_the_backward_pass():
    def layer(w, x):
        return jnp.tanh(x @ w)

    def pair(ws, x):
        return layer(ws[1], layer(ws[0], x))

    def deep(block, ws, x):
        for i in range(0, 12, 2):
            x = block(ws[i : i + 2], x)
        return (x * x).sum()

    weights, big = [M] * 12, shape(900, 100)  # an activation weighs 9 matrices

    def of(block) -> float:
        """Activations at the peak, beyond the weights, in activations."""
        return (peak(jax.grad(lambda ws, x: deep(block, ws, x)), weights, big) - 12) / 9

    forward = (peak(lambda ws, x: deep(pair, ws, x), weights, big) - 12) / 9
    assert forward <= 3  # x, what a layer reads and what it writes
    # The input, all 12 activations, and a cotangent or two on the way back.
    assert 13 <= of(pair) <= 15.5
    # The input of each of the 6 pairs, and one pair's own, recomputed.
    assert 7 <= of(jax.checkpoint(pair)) <= 10.5


def test_donated_inputs_die():
    def update(x):
        return x @ x + 1.0

    assert peak(update, M) == 3

    def square(x):
        y = x @ x
        return y @ y @ y

    assert peak(square, M) == 4  # x, y, its square, the result
    assert peak(square, M, donated=(0,)) == 3  # x is dead by then


def test_a_loop_needs_its_body_once():
    def loop(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c) @ c, None), x, None, length=50)[0]

    assert peak(loop, M) <= 5


def test_a_slice_is_written_in_its_place():
    """A cache that a token is written into is not copied for it."""
    write = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=0)
    flat = flops.program(
        lambda cache, x, i: write(cache, x, i), shape(100, 8), shape(8), shape(dtype="int32")
    )
    assert max(kernel.bytes for kernel in footprint.kernels(flat)) == 2 * 8 * 4


def test_kernels_count_traffic():
    program = flops.program(lambda x: jnp.tanh(x @ x) * 2.0, M)
    fused = footprint.kernels(program)
    assert [k.flops > 0 for k in fused] == [True, False]
    assert sum(k.bytes for k in fused) == (2 + 2) * N  # x and product; product and result
    assert sum(k.bytes for k in footprint.kernels(program, fused=False)) == (2 + 2 + 2) * N
