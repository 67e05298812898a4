"""Tiles of screened distances on accelerators, by JAX; one tile is shared by all local devices.

The interface and the answers are those of `screening.Host`: products in float32, and what is
below thresholds, found on the devices; candidates are merged and verified on the host, so the
distances to neighbours, and what lies in a ball, are the host's own bit for bit. Only the distances
of so many pairs in balls that `neighbours.inside` takes them from products may differ by their
rounding, since pairs come in other pieces.

The rows of a tile lie on the devices in equal parts, its columns on all of them. Blocks are
padded to full multiples so that few programs are compiled; what is padded is at infinity.

Products are in float32 (Precision.HIGHEST), in what order is the device's own: so they are added
block by block of columns, for the bound that `distances` proves holds for any order within a block.
TF32 or bfloat16 would be far outside that bound, and both can be forced from outside
(NVIDIA_TF32_OVERRIDE, XLA_FLAGS), so the first product is measured and refused if it is not of
float32.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from prpr import errors
from prpr.metrics.distances import chunk
from prpr.metrics.screening import Entries, Host, above, stride

_ROWS = "rows"
_PAD = 256  # sizes are padded to multiples of this, and of it for each device
_FEW = 2**14  # entries of a device that are fetched at first
_MANY = 2**21  # entries of a device from which the whole tile is fetched
# Relative to |a| |b| of normal vectors with 256 entries: float32 measures 4e-8, TF32 1e-5.
_TOLERANCE = 1e-6


def worthwhile() -> bool:
    """Whether JAX has something better than this CPU."""
    return jax.default_backend() != "cpu"


class Devices(Host):
    """Tiles of s on all local devices."""

    side = 8192

    def __init__(self, width: int, side: int | None = None):
        super().__init__(width, side or Devices.side)
        self.dtype = np.dtype(np.float32)
        self._mesh = Mesh(np.array(jax.local_devices()), (_ROWS,))
        self._programs = _programs(self._mesh)
        self._tile: Any = None
        self._placed: Any = None
        self._few = _FEW
        check(self._mesh)

    def rows(self, left: np.ndarray) -> None:
        self._left = left
        self._placed = self._place(left, P(_ROWS), _PAD * self._mesh.size)

    def product(self, right: np.ndarray, own: np.ndarray | None) -> None:
        self._shape = len(self._left), len(right)
        if own is None:
            own = np.full(len(self._left), -1)
        own = np.pad(own.astype(np.int32), (0, len(self._placed) - len(own)), constant_values=-1)
        self._tile = self._programs["product"](
            self._placed,
            self._place(right, P(), _PAD),
            jax.device_put(own, NamedSharding(self._mesh, P(_ROWS))),
            np.array(self._shape, np.int32),
        )

    def start(self, k: int, axis: int) -> np.ndarray:
        step = stride(self._shape[axis], k)
        if self._shape[axis] // step < k:
            return np.full(self._shape[1 - axis], np.inf, np.float32)
        found = np.asarray(self._programs["start"](self._tile, k, axis, step))
        return above(found[: self._shape[1 - axis]])

    def below(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Entries]:
        limits = [
            np.pad(x, (0, n - len(x)), constant_values=-np.inf)
            for x, n in zip((rows, columns), self._tile.shape, strict=True)
        ]
        limits[0] = jax.device_put(limits[0], NamedSharding(self._mesh, P(_ROWS)))
        flat, s, counts = self._programs["below"](self._tile, *limits, self._few)
        most = int(np.max(np.asarray(counts)))
        if most > _MANY:
            self._s = np.asarray(self._tile)[: self._shape[0], : self._shape[1]]
            yield from super().below(rows, columns)
            return
        if most > self._few:
            self._few = 2 ** int(np.ceil(np.log2(most)))
            flat, s, counts = self._programs["below"](self._tile, *limits, self._few)
        height, width = self._tile.shape[0] // self._mesh.size, self._tile.shape[1]
        flat, s, counts = np.asarray(flat), np.asarray(s), np.asarray(counts)
        for device, count in enumerate(counts):
            t, u = np.divmod(flat[device, :count].astype(np.int64), width)
            yield t + device * height, u, s[device, :count]

    def release(self) -> None:
        super().release()
        self._tile = self._placed = None

    def _place(self, panel: np.ndarray, spec: P, multiple: int) -> jax.Array:
        rows = -(-len(panel) // multiple) * multiple
        panel = np.pad(panel, ((0, rows - len(panel)), (0, 0)))
        return jax.device_put(panel, NamedSharding(self._mesh, spec))


@functools.cache
def _programs(mesh: Mesh) -> dict[str, Any]:
    """The compiled functions of one set of devices; a call compiles for each new shape."""

    def product(left: jax.Array, right: jax.Array, own: jax.Array, shape: jax.Array) -> jax.Array:
        width = left.shape[1] - 2
        s = jnp.zeros((len(left), len(right)), jnp.float32)
        for start in range(0, width, step := chunk(width)):
            some = slice(start, min(start + step, width))
            s += jax.lax.dot_general(
                left[:, some],
                right[:, some],
                (((1,), (1,)), ((), ())),
                precision=jax.lax.Precision.HIGHEST,
                preferred_element_type=jnp.float32,
            )
        s = s + left[:, -2:-1] + right[:, -1][None, :]
        row = jax.lax.axis_index(_ROWS) * len(left) + jnp.arange(len(left))[:, None]
        column = jnp.arange(len(right))[None, :]
        outside = (row >= shape[0]) | (column >= shape[1]) | (column == own[:, None])
        return jnp.where(outside, jnp.inf, s)

    def start(s: jax.Array, k: int, axis: int, step: int) -> jax.Array:
        sample = s[:, ::step] if axis else s[::step]
        if not axis:
            sample = jax.lax.all_gather(sample, _ROWS, tiled=True).T
        return -jax.lax.top_k(-sample, k)[0][:, -1]

    def below(s: jax.Array, rows: jax.Array, columns: jax.Array, few: int) -> tuple[jax.Array, ...]:
        mask = ((s < rows[:, None]) | (s < columns[None, :])).ravel()
        flat = jnp.nonzero(mask, size=few, fill_value=0)[0].astype(jnp.int32)
        return flat[None], s.ravel()[flat][None], mask.sum(dtype=jnp.int32)[None]

    def shared(function: Any, specs: tuple[P, ...], out: Any) -> Any:
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)

    def start_of(s: jax.Array, k: int, axis: int, step: int) -> jax.Array:
        one = functools.partial(start, k=k, axis=axis, step=step)
        return shared(one, (P(_ROWS),), P(_ROWS) if axis else P())(s)

    def below_of(s: jax.Array, rows: jax.Array, columns: jax.Array, few: int) -> Any:
        one = functools.partial(below, few=few)
        return shared(one, (P(_ROWS), P(_ROWS), P()), P(_ROWS))(s, rows, columns)

    return {
        "product": jax.jit(shared(product, (P(_ROWS), P(), P(_ROWS), P()), P(_ROWS))),
        "start": jax.jit(start_of, static_argnums=(1, 2, 3)),
        "below": jax.jit(below_of, static_argnums=3),
    }


@functools.cache
def check(mesh: Mesh) -> None:
    """ConfigError unless products on these devices are of float32."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(_PAD * n, 258)).astype(np.float32) for n in (mesh.size, 1))
    a[:, -2:] = b[:, -2:] = 0
    got = _programs(mesh)["product"](
        jax.device_put(a, NamedSharding(mesh, P(_ROWS))),
        jax.device_put(b, NamedSharding(mesh, P())),
        jax.device_put(np.full(len(a), -1, np.int32), NamedSharding(mesh, P(_ROWS))),
        np.array([len(a), len(b)], np.int32),
    )
    want = a.astype(np.float64) @ b.T.astype(np.float64)
    error = float(np.sqrt(np.mean((np.asarray(got) - want) ** 2))) / 256
    if not error < _TOLERANCE:
        raise errors.ConfigError(
            f"products on {jax.devices()[0].device_kind} have a relative error of {error:.1e}, and "
            f"float32 has 4e-8: they are not of float32. Unset NVIDIA_TF32_OVERRIDE and what "
            "XLA_FLAGS says of precision, or take backend='numpy'"
        )
