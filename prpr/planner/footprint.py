"""Memory of a flat program, and the traffic of its kernels: what a compiler would make of it.

Two models bracket what XLA does with the program of `prpr.planner.flops`:

  fused    only these values get memory: inputs, outputs, and what a matrix product,
           convolution, reduction, gather or loop reads or writes. Everything between them is
           recomputed inside the kernel that needs it. The optimistic end.
  unfused  every value gets memory, except broadcasts and reshapes. The pessimistic end.

A value lives from the operation that makes it to the last kernel that reads it. Inputs live
throughout unless they are donated; then they live to their last use. The peak is the largest
sum of living bytes over the program in its own order; a compiler may find a better order, and
adds workspace of its own, which no model here knows.
"""

from collections.abc import Iterable
from typing import NamedTuple

from prpr.planner.flops import Program


class Kernel(NamedTuple):
    """One launch: a contraction (flops > 0) or a memory-bound kernel.

    Attributes:
      dtype, flops: of a contraction, as in `flops.Op`.
      bytes: read and written.
      times, sure: how often it runs, and the part of these that are made surely.
    """

    dtype: str
    flops: float
    bytes: float
    times: float = 1.0
    sure: float = 1.0


class _Plan(NamedTuple):
    """For each kept operation: which values it reads and which it writes to memory."""

    reads: list[frozenset[int]]
    writes: list[tuple[int, ...]]


def _buffers(flat: Program, fused: bool) -> _Plan:
    """Reads and writes of every operation once the values without memory are seen through."""
    must = set(flat.inputs) | set(flat.constants) | set(flat.outputs)
    for op in flat.ops:
        free = op.kind in ("elementwise", "move")
        if not free:
            must.update(op.outputs)
        if op.kind not in ("elementwise", "move", "reduce"):
            must.update(op.inputs)
        if not fused and op.name not in ("broadcast_in_dim", "iota"):
            must.update(op.outputs)
    # What a value without memory is computed from.
    source: dict[int, frozenset[int]] = {}
    reads, writes = [], []
    for op in flat.ops:
        read: frozenset[int] = frozenset()
        for number in op.inputs:
            read |= frozenset((number,)) if number in must else source.get(number, frozenset())
        written = tuple(number for number in op.outputs if number in must)
        for number in op.outputs:
            if number not in must:
                source[number] = read
        reads.append(read if written else frozenset())
        writes.append(written)
    return _Plan(reads, writes)


def kernels(flat: Program, *, fused: bool = True) -> list[Kernel]:
    """The launches of a program under one of the two models; a loop's are repeated."""
    plan, found = _buffers(flat, fused), []
    for op, read, written in zip(flat.ops, plan.reads, plan.writes, strict=True):
        if op.body is not None:
            found += [
                k._replace(times=k.times * op.times, sure=k.sure * op.sure)
                for k in kernels(op.body, fused=fused)
            ]
        elif written:
            moved = sum(flat.size[n] for n in read) + sum(flat.size[n] for n in written)
            moved = moved if op.written is None else op.written
            found.append(Kernel(op.dtype, op.flops, moved))
    return found


def peak(flat: Program, *, fused: bool = True, donated: Iterable[int] = ()) -> int:
    """Peak bytes of one run, inputs and outputs included.

    Args:
      flat: from `flops.program`.
      fused: which model; see the module.
      donated: positions among the inputs that may be overwritten.
    """
    plan = _buffers(flat, fused)
    last: dict[int, int] = {}
    for at, read in enumerate(plan.reads):
        for number in read:
            last[number] = at
    forever = set(flat.outputs) | set(flat.constants) | set(flat.inputs)
    given = {flat.inputs[i] for i in donated} - set(flat.outputs)
    forever -= given
    dies: dict[int, list[int]] = {}
    for number, at in last.items():
        if number not in forever:
            dies.setdefault(at, []).append(number)
    alive = sum(flat.size[n] for n in {*flat.inputs, *flat.constants})
    most = alive
    born = set(flat.inputs) | set(flat.constants)
    for at, (op, written) in enumerate(zip(flat.ops, plan.writes, strict=True)):
        inside = 0
        if op.body is not None:  # beyond its own inputs and outputs, which live out here
            body = op.body
            own = {*body.inputs, *body.constants, *body.outputs}
            inside = max(0, peak(body, fused=fused) - sum(body.size[n] for n in own))
        fresh = [n for n in written if n not in born]
        born.update(fresh)
        alive += sum(flat.size[n] for n in fresh)
        most = max(most, alive + inside)
        # An output of an elementwise kernel may take over the memory of an input that dies here.
        alive -= sum(flat.size[n] for n in dies.get(at, ()))
        unread = [n for n in fresh if n not in last and n not in forever]
        alive -= sum(flat.size[n] for n in unread)
    return most
