"""What the builders of flows share: checks, scales, and what stands before and between maps.

Notation: shape of an item, (D,) or (H, W, C).
"""

from collections.abc import Callable

from prpr.errors import ConfigError
from prpr.models.flows.bijector import Bijector, Chain
from prpr.models.flows.elementwise import Logit
from prpr.models.flows.multiscale import Multiscale, Permute, Squeeze, shuffled


def most_scales(shape: tuple[int, ...], least: int = 2) -> int:
    """How often both sides of (H, W, C) can be halved with at least `least` pixels left."""
    h, w, count = shape[0], shape[1], 0
    while h % 2 == 0 and w % 2 == 0 and min(h, w) // 2 >= least:
        h, w, count = h // 2, w // 2, count + 1
    return count


def check_shape(name: str, shape: tuple[int, ...], depth: int) -> None:
    """Raises ConfigError unless the flow of this name can be built."""
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ConfigError(f"{name}: shape = {shape} must be (D,) or (H, W, C).")
    if depth < 1:
        raise ConfigError(f"{name}: depth = {depth!r} must be at least 1.")


def check_scales(name: str, shape: tuple[int, ...], scales: int | None) -> int:
    """The number of halvings, the default of which is at most 3.

    Raises:
      ConfigError: the sides cannot be halved so often.
    """
    most = most_scales(shape, least=1)
    if scales is None:
        return min(3, most_scales(shape))
    if not 0 <= scales <= most:
        raise ConfigError(
            f"{name}: scales = {scales!r}: sides {shape[0]} and {shape[1]} can be halved {most} "
            "times; use fewer scales, or pad the images."
        )
    return scales


def multiscale(
    shape: tuple[int, ...],
    scales: int,
    step: Callable[[tuple[int, ...]], list[Bijector]],
    last: Callable[[tuple[int, ...]], list[Bijector]],
) -> Bijector:
    """`step`'s maps after each of `scales` squeezes; `last` before channels are factored out."""
    if not scales:
        return Multiscale(shape, [Chain(step(shape))])
    maps: list[Bijector] = []
    here = shape
    for i in range(scales):
        squeeze = Squeeze(here)
        here = squeeze.latent_shape
        ends = i == scales - 1
        maps.append(Chain([squeeze, *step(here), *([] if ends else last(here))]))
        here = (*here[:-1], here[-1] // 2)
    return Multiscale(shape, maps)


def shuffle(shape: tuple[int, ...], i: int) -> list[Bijector]:
    """A permutation between couplings of halves; of two entries `flip` is all that there is."""
    return [] if shape[-1] == 2 else [Permute(shuffled(shape[-1], i))]


def with_logit(bijector: Bijector, levels: int) -> Bijector:
    """`Logit` first, where images have a grid of levels."""
    return Chain([Logit(levels), bijector]) if levels else bijector
