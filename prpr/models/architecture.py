"""The table of BigGAN's sizes, and the checks of what is asked of it.

One row serves both families. Multipliers count in units of `ch`.

    biggan        generator: a block for each entry of `generator_out`.
                  critic: a block for each entry of `critic_out`, the first from the image.
    biggan_deep   generator: `depth` blocks a stage, all but the last at the stage's input size.
                  critic: a convolution to `critic_out[0]`, then `depth` blocks for each further
                  entry, the first of which halves the size where `downsample` says so.

Source: github.com/ajbrock/BigGAN-PyTorch, BigGAN.py and BigGANdeep.py, for 32 to 256 and for the
generator at 512. It has no critic for 512 and no BigGAN-deep there: those rows go on as the
others do, the critic mirroring the generator, as in Brock, Donahue & Simonyan 2019, appendix B.
The row for 8 is this project's own, for scikit-learn's digits.
"""

from collections.abc import Sequence
from typing import NamedTuple

from prpr.errors import ConfigError, unknown_name

BOTTOM = 4  # side of the generator's first layer


class Architecture(NamedTuple):
    """One row: channel multipliers, and where the critic halves the size.

    `generator_in[i]` -> `generator_out[i]`, each stage doubling the side, from `BOTTOM`.
    """

    generator_in: tuple[int, ...]
    generator_out: tuple[int, ...]
    critic_out: tuple[int, ...]
    downsample: tuple[bool, ...]


def _all_but_last(critic_out: tuple[int, ...]) -> tuple[bool, ...]:
    return (True,) * (len(critic_out) - 1) + (False,)


def _row(
    generator_in: tuple[int, ...], generator_out: tuple[int, ...], critic_out: tuple[int, ...]
) -> Architecture:
    return Architecture(generator_in, generator_out, critic_out, _all_but_last(critic_out))


ARCHITECTURES: dict[int, Architecture] = {
    8: _row((1,), (1,), (1, 1)),
    32: Architecture((4, 4, 4), (4, 4, 4), (4, 4, 4, 4), (True, True, False, False)),
    64: _row((16, 16, 8, 4), (16, 8, 4, 2), (1, 2, 4, 8, 16)),
    128: _row((16, 16, 8, 4, 2), (16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)),
    256: _row((16, 16, 8, 8, 4, 2), (16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16)),
    512: _row((16, 16, 8, 8, 4, 2, 1), (16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16)),
}


class Block(NamedTuple):
    """One residual block.

    Attributes:
      features: its output channels, in units of `ch`.
      resampled: whether it doubles (generator) or halves (critic) the side.
      side: of its output.
      last: of its stage; attention may follow.
    """

    features: int
    resampled: bool
    side: int
    last: bool


def architecture(resolution: int) -> Architecture:
    """The table's row; raises ConfigError for a resolution it does not have."""
    if resolution not in ARCHITECTURES:
        raise unknown_name("BigGAN resolution", resolution, [str(r) for r in ARCHITECTURES])
    return ARCHITECTURES[resolution]


def generator_blocks(resolution: int, depth: int = 1) -> list[Block]:
    """The generator's blocks in order; BigGAN has depth 1."""
    arch, side, blocks = architecture(resolution), BOTTOM, []
    for before, after in zip(arch.generator_in, arch.generator_out, strict=True):
        blocks += [Block(before, False, side, False)] * (depth - 1)
        side *= 2
        blocks.append(Block(after, True, side, True))
    return blocks


def critic_blocks(resolution: int, deep: bool = False, depth: int = 1) -> list[Block]:
    """The critic's blocks in order, without the first convolution of BigGAN-deep's."""
    arch, side, blocks = architecture(resolution), resolution, []
    widths = arch.critic_out[1:] if deep else arch.critic_out
    for width, down in zip(widths, arch.downsample, strict=False):
        side //= 2 if down else 1
        blocks.append(Block(width, down, side, depth == 1))
        blocks += [Block(width, False, side, i == depth - 2) for i in range(depth - 1)]
    return blocks


def check(shape: tuple[int, ...], dim_z: int, *, split_z: bool = True) -> None:
    """Raises ConfigError if no BigGAN of the table makes images of this shape from this z.

    `split_z`: z is cut into equal chunks, one for the first layer and one for each block.
    """
    side, width, _ = shape
    if side != width:
        raise ConfigError(f"BigGAN makes square images, and the data's are {side} x {width}.")
    slots = len(architecture(side).generator_in) + 1
    if split_z and dim_z % slots:
        below = dim_z - dim_z % slots
        nearest = f"{below} or {below + slots}" if below else f"{slots}"
        raise ConfigError(
            f"config.model.dim_z = {dim_z}: must be a multiple of {slots} at resolution {side}, "
            "one chunk for the first layer and one for each block; use "
            f"{nearest}, or config.model.hierarchical = False."
        )


def check_attention(resolution: int, attention_at: Sequence[int], deep: bool = False) -> None:
    """Raises ConfigError for a side at which neither network has the end of a stage."""
    both = generator_blocks(resolution) + critic_blocks(resolution, deep)
    sides = sorted({block.side for block in both})
    wrong = [side for side in attention_at if side not in sides]
    if wrong:
        raise ConfigError(f"config.model.attention_at = {wrong[0]}: must be among {sides}.")


def check_width(
    resolution: int,
    attention_at: Sequence[int],
    generator_ch: int,
    critic_ch: int,
    deep: bool = False,
) -> None:
    """Raises ConfigError for a layer that would have no channels.

    Attention's queries have an eighth of the channels, BigGAN-deep's bottlenecks a quarter.
    """
    nets = {
        "generator_ch": (generator_ch, generator_blocks(resolution)),
        "critic_ch": (critic_ch, critic_blocks(resolution, deep)),
    }
    for knob, (ch, blocks) in nets.items():
        if any(b.side in attention_at and b.features * ch < 8 for b in blocks):
            raise ConfigError(
                f"config.model.{knob} = {ch}: attention needs at least 8 channels where it is "
                "applied; raise it, or empty config.model.attention_at."
            )
        if deep and any(b.features * ch < 4 for b in blocks):
            raise ConfigError(
                f"config.model.{knob} = {ch}: a bottleneck has a quarter of a block's channels, "
                "and here that is none; use at least 4."
            )
