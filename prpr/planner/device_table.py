"""What devices can do on paper: the editable table behind `--plan`.

A row is one JAX device: one GPU, one TPU chip (of a TPU v3, one of a chip's two cores).

  float32    peak FLOP/s of float32 products that must be float32 (precision HIGHEST)
  default32  peak of float32 arrays at JAX's default precision: TF32 on a GPU that has it, one
             bfloat16 pass on a TPU (jax_default_matmul_precision)
  bfloat16   peak of 16-bit products with float32 sums, dense: the vendors' figures "with
             sparsity" are twice that
  bandwidth  bytes/s of the device's memory;  link: bytes/s to its neighbours, one way
  memory     bytes;  usable: the share that JAX gives a program by itself (GPU: 75 %, more with
             XLA_CLIENT_MEM_FRACTION)
  launch     seconds from one kernel to the next, (least, most)
  price      US dollars an hour: EXAMPLES of the order of on-demand list prices of 2025; look up
             your own and pass --price

Peaks, bandwidths and sizes are the vendors'; `source` names the document. `launch`, `UTILISATION`,
`BANDWIDTH` and `DISPATCH` are assumptions: what networks of this kind usually reach, not measured
on these devices. `--plan --probe` measures instead of assuming.
"""

from typing import NamedTuple

from prpr.errors import unknown_name
from prpr.planner.flops import HIGHEST

UTILISATION = (0.20, 0.45)  # of peak FLOP/s in matrix products and convolutions: an assumption
BANDWIDTH = (0.50, 0.85)  # of peak bytes/s in everything else: an assumption
DISPATCH = (1e-4, 1e-3)  # seconds on the host for each update: an assumption

_GPU, _TPU = (1e-6, 6e-6), (5e-7, 3e-6)  # seconds a kernel
_T, _G = 1e12, 1e9


class Device(NamedTuple):
    """A row of the table; see the module."""

    name: str
    float32: float
    default32: float
    bfloat16: float
    bandwidth: float
    link: float
    memory: float
    usable: float
    launch: tuple[float, float]
    price: float
    source: str
    utilisation: tuple[float, float] = UTILISATION
    bandwidth_share: tuple[float, float] = BANDWIDTH
    sharing: int = 1  # see `among`

    def peak(self, dtype: str) -> float:
        """Peak FLOP/s of contractions whose operands are of a class of `flops.Op.dtype`."""
        return {HIGHEST: self.float32, "float32": self.default32, "bfloat16": self.bfloat16}[dtype]


def _gpu(
    name: str,
    float32: float,
    default32: float,
    bfloat16: float,
    bandwidth: float,
    link: float,
    memory: float,
    price: float,
    source: str,
) -> Device:
    f, d, b = float32 * _T, default32 * _T, bfloat16 * _T
    return Device(name, f, d, b, bandwidth * _G, link * _G, memory * _G, 0.75, _GPU, price, source)


def _tpu(
    name: str, bfloat16: float, bandwidth: float, link: float, gib: float, price: float
) -> Device:
    # Six bfloat16 passes make a float32 product.
    f, b = bfloat16 / 6 * _T, bfloat16 * _T
    source = "Google Cloud documentation, TPU system architecture, page of this version"
    memory = gib * 2**30
    return Device(name, f, b, b, bandwidth * _G, link * _G, memory, 0.95, _TPU, price, source)


_A100 = "NVIDIA A100 Tensor Core GPU datasheet"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet (its sparse figures halved)"
_V100 = "NVIDIA V100 Tensor Core GPU datasheet; no bfloat16 units: float32 rate"
_ADA = "NVIDIA Ada GPU architecture whitepaper, V2 (dense figures)"

# fmt: off
DEVICES: dict[str, Device] = {row.name: row for row in (
    #                  float32 default bfloat16  GB/s  link   GB   $/h
    _gpu("v100",          15.7,  15.7,   15.7,    900, 150,   32, 2.50, _V100),
    _gpu("a100-40",       19.5, 156.0,  312.0,   1555, 300,   40, 3.00, _A100),
    _gpu("a100-80",       19.5, 156.0,  312.0,   2039, 300,   80, 4.00, _A100),
    _gpu("h100-pcie",     51.0, 378.0,  756.0,   2000,  64,   80, 3.00, _H100),
    _gpu("h100-sxm",      67.0, 494.5,  989.0,   3350, 450,   80, 4.00, _H100),
    _gpu("h200",          67.0, 494.5,  989.0,   4800, 450,  141, 5.00,
         "NVIDIA H200 Tensor Core GPU datasheet (its sparse figures halved)"),
    _gpu("l4",            30.3,  60.0,  121.0,    300,  32,   24, 0.70, _ADA),
    _gpu("rtx4090",       82.6,  82.6,  165.2,   1008,  32,   24, 0.50, _ADA),
    #                   bfloat16  GB/s  link   GiB   $/h
    _tpu("tpu-v3-core",     61.5,  450,  40,    16, 1.10),
    _tpu("tpu-v4",         275.0, 1228, 150,    32, 3.20),
    _tpu("tpu-v5e",        197.0,  819, 200,    16, 1.20),
    _tpu("tpu-v5p",        459.0, 2765, 300,    95, 4.20),
    _tpu("tpu-v6e",        918.0, 1640, 224,    32, 2.70),
)}
# fmt: on


def get(name: str) -> Device:
    """The row of a device; ConfigError names the nearest one for a name that is not there."""
    key = name.strip().lower().replace("_", "-")
    if key not in DEVICES:
        raise unknown_name("device", name, (*DEVICES, "this", "all"))
    return DEVICES[key]


def among(row: Device, devices: int) -> Device:
    """The part of each where `devices` work at once: a CPU's are one machine, rates and memory.

    Args:
      row: of one device that has all of it;  devices: how many have it together.
    """
    if not row.name.startswith("this (cpu"):
        return row
    parts = ("float32", "default32", "bfloat16", "bandwidth", "link", "memory")
    return row._replace(sharing=devices, **{name: getattr(row, name) / devices for name in parts})


def here() -> Device:
    """The device at hand, with float32 and bfloat16 rates and bandwidth measured now (seconds)."""
    import os
    import time

    import jax
    import jax.numpy as jnp

    def best(fn, *arguments) -> float:
        run = jax.jit(fn)
        jax.block_until_ready(run(*arguments))
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    cpu = jax.default_backend() == "cpu"
    n = 1024 if cpu else 8192
    rates = []
    for precision, dtype in (("highest", "float32"), (None, "float32"), (None, "bfloat16")):
        x = jnp.ones((n, n), dtype)
        rates.append(2 * n**3 / best(lambda a, p=precision: jax.lax.dot(a, a, precision=p), x))
    y = jnp.ones((2**24 if cpu else 2**28,), jnp.float32)
    bandwidth = 2 * y.nbytes / best(lambda a: a + 1, y)
    device = jax.local_devices()[0]
    stats = None if cpu else device.memory_stats()
    if stats:
        memory = float(stats["bytes_limit"])
    else:
        memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return Device(
        f"this ({device.device_kind})",
        rates[0],
        rates[1],
        rates[2],
        bandwidth,
        bandwidth,
        memory,
        0.8 if cpu else 1.0,
        (1e-6, 1e-5),
        0.0,
        "measured now: the products of two matrices, and x + 1",
        # Relative to a measured rate, and of a CPU whose convolutions come near it.
        utilisation=(0.25, 0.9) if cpu else UTILISATION,
        bandwidth_share=(0.3, 1.0) if cpu else BANDWIDTH,
    )
