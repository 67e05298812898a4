"""Exact arithmetic of a JAX function, counted on its jaxpr before anything is compiled or run.

    cost = flops.count(fn, *shapes)      # shapes: arrays or jax.ShapeDtypeStructs
    cost.contractions                    # {"float32": FLOPs of its matrix products, convolutions}

Notation: a MAC is one multiplication and one addition, two FLOPs.

    dot_general             2 · (elements of the result) · (elements contracted in each)
    conv_general_dilated    2 · N · C_out · (C_in / groups) · Π_axes taps(axis)
    triangular_solve        n² · m of n equations and m right sides, each matrix
    lu                      2/3 · n³, each matrix

`taps(axis)` counts the pairs (output position, kernel position) that meet an element of the
input: taps on padding, and on the holes of a dilated input, are not counted, as in XLA's own
HLO cost analysis. With that rule both gradients of a convolution cost what the convolution
costs, for every stride and padding, so a training pass is three times a forward pass.

A program is flattened first: calls (jit, remat, custom derivatives, shard_map) are inlined, what
nothing needs is dropped, a scan counts its body `length` times, a cond its dearest branch, a
linear solve the solver that it was given. A while loop counts as many trips as its counter allows
(`counter < number`, from a known number, by one), and where it may also end earlier, as when it has
converged, it is marked as making one at least; of another the number of trips is not known: `trips`
says it, or it is an error. Below a shard_map or pmap the shapes, and so the counts, are those of
one device.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prpr.errors import PrprError

HIGHEST = "float32_highest"  # float32 whose products must be float32, as precision=HIGHEST asks

# The kinds of primitives. "alias": the same bytes under another shape or name. "window": as many
# operations for each result as the window has elements.
_KINDS = """
call: jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call
call: custom_vjp_call_jaxpr custom_lin shard_map xla_pmap
alias: reshape squeeze expand_dims stop_gradient copy copy_p optimization_barrier pvary pcast
alias: random_wrap random_unwrap sharding_constraint layout_constraint name
move: broadcast_in_dim iota slice concatenate stack unstack pad transpose rev dynamic_slice
move: split tile
elementwise: abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type
elementwise: cbrt ceil clamp complex conj convert_element_type cos cosh digamma div eq erf
elementwise: erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log
elementwise: log1p logistic lt max min mul ne neg nextafter not or population_count pow real
elementwise: reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
elementwise: shift_right_logical sign sin sinh sqrt square sub tan tanh xor
reduce: reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor reduce
reduce: argmax argmin
contract: dot_general conv_general_dilated triangular_solve lu
window: reduce_window reduce_window_sum reduce_window_max reduce_window_min
window: select_and_scatter_add select_and_gather_add
cumulative: cumsum cumprod cummax cummin cumlogsumexp
collective: psum psum2 psum_invariant pmax pmin all_gather all_gather_invariant all_to_all
collective: reduce_scatter psum_scatter ppermute
loop: scan while cond
memory: gather scatter scatter-add scatter-mul scatter-min scatter-max sort top_k
memory: dynamic_update_slice axis_index random_bits random_fold_in random_split random_seed
memory: random_clone threefry2x32 rng_bit_generator rng_uniform platform_index
memory: lu_pivots_to_permutation
solve: custom_linear_solve
"""
_KIND = {
    name: kind
    for kind, names in (line.split(":") for line in _KINDS.strip().splitlines())
    for name in names.split()
}


class Op(NamedTuple):
    """One equation of a flat program.

    Attributes:
      name: of the primitive.
      kind: "contract", "elementwise", "move", "reduce", "memory", "collective" or "loop".
      inputs, outputs: numbers of the values that it reads and makes.
      dtype: of a contraction's operands, "float32", "float32_highest" or "bfloat16" (all 16-bit).
      flops: of a contraction.
      elementwise: other arithmetic operations.
      body: of a loop or branch.
      times: how often the body runs, at most.
      sure: the part of these that are made surely: less than 1 where a loop may end before its
        counter ends it, as when it has converged.
      written: bytes that it reads and writes where that is less than its inputs and outputs are:
        a slice that is put in its place within a buffer.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dtype: str = ""
    flops: float = 0.0
    elementwise: float = 0.0
    body: "Program | None" = None
    times: float = 1.0
    sure: float = 1.0
    written: float | None = None


class Program(NamedTuple):
    """A flat program: values are numbered, `size` is their bytes.

    Attributes:
      inputs, constants, outputs: numbers of values; aliases share a number.
      size: bytes of each value.
      ops: in order, without what nothing needs.
      uncounted: primitives that this module does not know; their arithmetic is missing.
    """

    inputs: tuple[int, ...]
    constants: tuple[int, ...]
    outputs: tuple[int, ...]
    size: Mapping[int, int]
    ops: Sequence[Op]
    uncounted: frozenset[str]


class Cost(NamedTuple):
    """What one call costs.

    Attributes:
      contractions: FLOPs of matrix products and convolutions, by the dtype of their operands.
      elementwise: all other arithmetic operations (one for each element that one computes or
        reduces; a transcendental function counts one).
      uncounted: primitives whose arithmetic is not in here.
    """

    contractions: Mapping[str, float]
    elementwise: float
    uncounted: frozenset[str] = frozenset()

    @property
    def flops(self) -> float:
        """FLOPs of all contractions."""
        return sum(self.contractions.values())


def program(
    fn: Callable[..., Any],
    *shapes: Any,
    trips: int | None = None,
) -> Program:
    """The flat program of `fn` at these shapes, without running or compiling anything.

    Args:
      fn: a traceable function.
      *shapes: its arguments: pytrees of arrays or `jax.ShapeDtypeStruct`s.
      trips: how often every while loop's body runs; None: its bound, where it has one.

    Raises:
      PrprError: a while loop of unknown length, and no `trips`.
    """
    closed: Any = jax.make_jaxpr(fn)(*shapes)
    return _Flattener(trips).whole(closed.jaxpr)


def count(
    fn: Callable[..., Any],
    *shapes: Any,
    trips: int | None = None,
) -> Cost:
    """The cost of one call of `fn`; the arguments are those of `program`."""
    return cost(program(fn, *shapes, trips=trips))


def cost(flat: Program, *, once: bool = False) -> Cost:
    """The cost of one run of a program; `once` counts a loop's body once, as XLA does."""
    contractions: defaultdict[str, float] = defaultdict(float)
    elementwise, uncounted = 0.0, flat.uncounted
    for op in flat.ops:
        elementwise += op.elementwise
        if op.kind == "contract":
            contractions[op.dtype] += op.flops
        if op.body is not None:
            inner, times = cost(op.body, once=once), 1.0 if once else op.times
            for dtype, flops in inner.contractions.items():
                contractions[dtype] += flops * times
            elementwise += inner.elementwise * times
            uncounted |= inner.uncounted
    return Cost(dict(contractions), elementwise, uncounted)


def open_loops(flat: Program) -> float:
    """Most trips of a loop that may end earlier, when it has converged; 0 without one."""
    most = 0.0
    for op in flat.ops:
        if op.body is not None:
            most = max(most, op.times if op.sure < 1.0 else 0.0, open_loops(op.body))
    return most


def compiler_estimate(fn: Callable[..., Any], *shapes: Any) -> float | None:
    """XLA's own FLOPs of `fn`, before it optimises; None where it gives none. A cross-check only.

    It leaves out library calls and counts a loop's body once (jax issues 13956, 18672, 20184 and
    22249), so a difference is no error of `count`. Elementwise operations are in it.
    """
    found: Any = jax.jit(fn).lower(*shapes).cost_analysis()
    return None if not found else found.get("flops")


# --- arithmetic of one equation -----------------------------------------------------------


def _elements(aval: Any) -> int:
    return int(np.prod(aval.shape, dtype=np.int64))


def nbytes(aval: Any) -> int:
    """Bytes of an array or a shape; a typed PRNG key counts as two words."""
    dtype = aval.dtype
    width = 8 if jnp.issubdtype(dtype, jax.dtypes.extended) else np.dtype(dtype).itemsize
    return int(np.prod(aval.shape, dtype=np.int64)) * width


def tree_bytes(tree: Any) -> int:
    """Bytes of all leaves of a pytree of arrays or shapes."""
    return sum(nbytes(leaf) for leaf in jax.tree.leaves(tree))


def taps(
    size: int, out: int, kernel: int, stride: int, low: int, dilation: int, kernel_dilation: int
) -> int:
    """Pairs (output, kernel position) of one axis that meet an element of the input.

    Output o and tap k meet position o·stride + k·kernel_dilation − low of the input, whose
    `size` elements lie `dilation` apart.
    """
    at = np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * kernel_dilation - low
    inside = (at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)
    return int(inside.sum())


def _conv_flops(eqn: Any) -> float:
    p, (lhs, rhs), out = eqn.params, [v.aval for v in eqn.invars], eqn.outvars[0].aval
    numbers = p["dimension_numbers"]
    total = 2.0 * out.shape[numbers.out_spec[0]] * out.shape[numbers.out_spec[1]]
    total *= rhs.shape[numbers.rhs_spec[1]]  # C_in / groups
    for i, (low, _) in enumerate(p["padding"]):
        total *= taps(
            lhs.shape[numbers.lhs_spec[2 + i]],
            out.shape[numbers.out_spec[2 + i]],
            rhs.shape[numbers.rhs_spec[2 + i]],
            p["window_strides"][i],
            low,
            p["lhs_dilation"][i],
            p["rhs_dilation"][i],
        )
    return total


def _dot_flops(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    inner = np.prod([shape[axis] for axis in contracted], dtype=np.float64)
    return 2.0 * _elements(eqn.outvars[0].aval) * float(inner)


def _solve_flops(eqn: Any) -> float:
    """n² · m for each matrix; the unknowns are the rows or the columns of the right side."""
    matrix, right = (v.aval for v in eqn.invars)
    return float(_elements(right)) * matrix.shape[-1]


def _lu_flops(eqn: Any) -> float:
    (matrix,) = (v.aval for v in eqn.invars)
    return 2.0 / 3.0 * _elements(matrix) * min(matrix.shape[-2:])


_CONTRACT = {
    "dot_general": _dot_flops,
    "conv_general_dilated": _conv_flops,
    "triangular_solve": _solve_flops,
    "lu": _lu_flops,
}


def _dtype(eqn: Any) -> str:
    if any(v.aval.dtype.itemsize < 4 for v in eqn.invars):
        return "bfloat16"
    return HIGHEST if "HIGH" in str(eqn.params.get("precision")) else "float32"


# --- flattening -----------------------------------------------------------------------------


def _inner(value: Any) -> Any:
    return value.jaxpr if hasattr(value, "jaxpr") else value


def _required(condition: Program) -> list[Op | None]:
    """What must hold for a condition to hold: the terms of its `and`s; None: no comparison."""
    made = {op.outputs[0]: op for op in condition.ops}
    wanted, terms = list(condition.outputs), []
    while wanted:
        op = made.get(wanted.pop())
        if op is not None and op.name == "and":
            wanted += op.inputs
        else:
            terms.append(op)
    return terms


def _solver(eqn: Any, inputs: list[int]) -> tuple[Any, list[int]]:
    """The solver of a linear solve, and which inputs it takes: its constants, the right sides."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    right = first + lengths.solve + lengths.transpose_solve
    return _inner(jaxprs.solve), inputs[first : first + lengths.solve] + inputs[right:]


class _Flattener:
    """Numbers values and inlines calls.

    Attributes:
      trips: of `program`.
      known: value -> the whole number that all its elements are.
    """

    def __init__(self, trips: int | None):
        self.trips = trips
        self.known: dict[int, int] = {}

    def whole(self, jaxpr: Any) -> Program:
        """A jaxpr as a program of its own."""
        self._size: dict[int, int] = {}
        self._ops: list[Op] = []
        self._uncounted: set[str] = set()
        env: dict[Any, int] = {}
        constants = tuple(self._new(v, env) for v in jaxpr.constvars)
        inputs = tuple(self._new(v, env) for v in jaxpr.invars)
        outputs = self._inline(jaxpr, env)
        kept = _needed(self._ops, outputs)
        return Program(
            inputs, constants, tuple(outputs), self._size, kept, frozenset(self._uncounted)
        )

    def _new(self, var: Any, env: dict[Any, int]) -> int:
        number = len(self._size)
        self._size[number] = nbytes(var.aval) if hasattr(var.aval, "dtype") else 0
        env[var] = number
        return number

    def _read(self, atoms: Iterable[Any], env: dict[Any, int]) -> list[int]:
        """The numbers of the atoms; a literal has none and gets a value of no bytes."""
        numbers = []
        for atom in atoms:
            if hasattr(atom, "val"):
                number = len(self._size)
                self._size[number] = 0
                if jnp.issubdtype(atom.aval.dtype, jnp.integer):
                    self.known[number] = int(atom.val)
                numbers.append(number)
            else:
                numbers.append(env[atom])
        return numbers

    def _inline(self, jaxpr: Any, env: dict[Any, int]) -> list[int]:
        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            inputs = self._read(eqn.invars, env)
            kind = _KIND.get(name, "")
            if kind == "call":
                body = _inner(eqn.params.get("jaxpr", eqn.params.get("call_jaxpr")))
                own = dict(zip(body.invars, inputs, strict=True))
                for var in body.constvars:
                    self._new(var, own)
                env.update(zip(eqn.outvars, self._inline(body, own), strict=True))
            elif kind == "solve":
                body, given = _solver(eqn, inputs)
                own = dict(zip(body.invars, given, strict=True))
                for var in body.constvars:
                    self._new(var, own)
                env.update(zip(eqn.outvars, self._inline(body, own), strict=True))
            elif kind == "alias":
                env.update(zip(eqn.outvars, inputs, strict=False))
            else:
                outputs = [self._new(v, env) for v in eqn.outvars]
                if name in ("broadcast_in_dim", "convert_element_type") and inputs[0] in self.known:
                    self.known[outputs[0]] = self.known[inputs[0]]
                self._ops.append(self._op(eqn, name, tuple(inputs), tuple(outputs)))
        return self._read(jaxpr.outvars, env)

    def _op(self, eqn: Any, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Op:
        kind = _KIND.get(name)
        if kind is None:
            self._uncounted.add(name)
            return Op(name, "memory", inputs, outputs)
        if kind == "contract":
            return Op(name, kind, inputs, outputs, _dtype(eqn), _CONTRACT[name](eqn))
        if kind == "loop":
            body, times, sure = self._loop(eqn, name, inputs)
            return Op(name, kind, inputs, outputs, body=body, times=times, sure=sure)
        if name == "dynamic_update_slice":
            part = 2.0 * nbytes(eqn.invars[1].aval)
            return Op(name, kind, inputs, outputs, written=part)
        made = float(sum(_elements(v.aval) for v in eqn.outvars))
        if kind == "reduce":
            taken = float(sum(_elements(v.aval) for v in eqn.invars))
            return Op(name, kind, inputs, outputs, elementwise=taken)
        if kind == "window":
            made *= float(np.prod(eqn.params["window_dimensions"]))
        counted = made if kind in ("elementwise", "window", "cumulative") else 0.0
        if kind in ("window", "cumulative"):
            kind = "memory"
        return Op(name, kind, inputs, outputs, elementwise=counted)

    def _loop(self, eqn: Any, name: str, inputs: tuple[int, ...]) -> tuple[Program, float, float]:
        """The body of a scan, a while loop or the dearest branch; how often it runs, surely."""
        p = eqn.params
        if name == "scan":
            return _Flattener(self.trips).whole(_inner(p["jaxpr"])), float(p["length"]), 1.0
        if name == "while":
            return self._while(p, inputs)
        branches = [_Flattener(self.trips).whole(_inner(b)) for b in p["branches"]]
        return max(branches, key=lambda b: (cost(b).flops, cost(b).elementwise)), 1.0, 1.0

    def _while(self, p: Any, inputs: tuple[int, ...]) -> tuple[Program, float, float]:
        """`_loop` of a while loop: the least trips that one of its counters allows."""
        test, step = _Flattener(self.trips), _Flattener(self.trips)
        body = step.whole(_inner(p["body_jaxpr"]))
        if self.trips is not None:
            return body, float(self.trips), 1.0
        condition = test.whole(_inner(p["cond_jaxpr"]))
        carried = condition.inputs[p["cond_nconsts"] :]
        begins = inputs[p["cond_nconsts"] + p["body_nconsts"] :]
        before, made = body.inputs[p["body_nconsts"] :], {op.outputs[0]: op for op in body.ops}
        terms, found = _required(condition), []
        for term in terms:
            if term is None or term.name not in ("lt", "le") or term.inputs[0] not in carried:
                continue
            at = carried.index(term.inputs[0])
            limit, begin = test.known.get(term.inputs[1]), self.known.get(begins[at])
            after = made.get(body.outputs[at])
            if limit is None or begin is None or after is None or after.name != "add":
                continue
            if before[at] in after.inputs and 1 in map(step.known.get, after.inputs):
                found.append(max(0, limit - begin + (term.name == "le")))
        if not found:
            raise PrprError(
                "a while loop's number of trips is not known before it runs, so its cost "
                "cannot be counted: use lax.scan or fori_loop with fixed bounds, or give trips."
            )
        most = float(min(found))
        return body, most, 1.0 if len(terms) == 1 else 1.0 / max(most, 1.0)


def _needed(ops: Sequence[Op], outputs: Iterable[int]) -> list[Op]:
    """The operations that an output depends on, in order: XLA drops the others too."""
    wanted, kept = set(outputs), []
    for op in reversed(ops):
        if wanted.intersection(op.outputs):
            wanted.update(op.inputs)
            kept.append(op)
    return kept[::-1]
