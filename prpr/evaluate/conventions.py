"""Published ways to measure, by name: neighbours, encoder, resize and sizes, never silently.

  prpr       k = 3 for precision and recall, 5 for density and coverage; every sample that is given
  stylegan   k = 3, 50,000 × 50,000, VGG-16 with TensorFlow's resize (pr50k3 of
             stylegan2-ada-pytorch, whose vgg16.pt takes images at their own size and resizes them)
  adm        k = 3, 10,000 real × 50,000 fake, FID's Inception with TensorFlow's resize
             (guided-diffusion's evaluator; its FID compares with moments of the whole data set)
  studiogan  k = 5 for all four, the whole training set and as many fakes, FID's Inception with
             PyTorch's bilinear resize (PyTorch-StudioGAN, post_resizer "legacy")

What differs from them in this code: distances are exact (float64, where StyleGAN and ADM round to
float16), and balls are closed (StudioGAN's are open; equal away from ties).

kNN metrics depend on both sizes and on k, so numbers under two conventions cannot be compared.
A setting that is given goes before the convention's, and a warning says so.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from prpr.errors import ConfigError, DataError, unknown_name
from prpr.evaluate.inputs import Input
from prpr.metrics import Options, probabilistic

FEW = 10_000  # samples below which a warning says that numbers move with N


class Convention(NamedTuple):
    """A row of the head's list; `encoder` and `resize` None: by the metrics and the encoder.

    `n_real` and `n_fake`: sizes; 0 is all there are. `equal`: both sides are cut to the smaller;
    `whole`: that is said of the real side.
    """

    k: int
    k_coverage: int
    encoder: str | None = None
    resize: str | None = None
    n_real: int = 0
    n_fake: int = 0
    equal: bool = False
    whole: bool = False


CONVENTIONS = {
    "prpr": Convention(3, 5),
    "stylegan": Convention(3, 5, "vgg16", "legacy_tf", 50_000, 50_000),
    "adm": Convention(3, 5, "inception", "legacy_tf", 10_000, 50_000),
    "studiogan": Convention(5, 5, "inception", "legacy_pytorch", equal=True, whole=True),
}


class Choice(NamedTuple):
    """What is used in the end; `said` are the departures from the convention."""

    k: int
    k_coverage: int
    encoder: str | None
    resize: str | None
    said: tuple[str, ...]


def get(name: str) -> Convention:
    """The convention; ConfigError for an unknown name."""
    if name not in CONVENTIONS:
        raise unknown_name("convention", name, CONVENTIONS)
    return CONVENTIONS[name]


def choose(
    name: str,
    k: int | None = None,
    k_coverage: int | None = None,
    encoder: str | None = None,
    resize: str | None = None,
) -> Choice:
    """The convention's settings where none is given; None is "not given".

    Raises:
      ConfigError: an unknown convention.
    """
    own = get(name)
    given = {"k": k, "k_coverage": k_coverage, "encoder": encoder, "resize": resize}
    used = {key: getattr(own, key) if value is None else value for key, value in given.items()}
    if encoder is not None and encoder != own.encoder and resize is None:
        used["resize"] = None  # the convention's belongs to its encoder
    said = tuple(
        f"{key}={used[key]} and not {getattr(own, key)}, as the convention {name!r} has it"
        for key in given
        if getattr(own, key) is not None and used[key] != getattr(own, key)
    )
    return Choice(*(used[key] for key in given), said)  # pyright: ignore[reportCallIssue]


def sizes(
    name: str, real: Input, fakes: list[Input], n_real: int = 0, n_fake: int = 0
) -> tuple[int, int, list[str]]:
    """(real samples, samples of each fake set, what to say about it).

    Args:
      name: of the convention.
      real: with its number of samples; one of unknown number (moments alone) is not cut.
      fakes: all sets that are to be of one size, but for those of unknown number.
      n_real, n_fake: as asked for; 0 is "not given".

    Raises:
      ConfigError: more is asked for than there is.
    """
    own, counted = get(name), [one for one in fakes if one.size]
    least = min(counted or fakes, key=lambda one: one.size)
    there = {"n_real": real.size, "n_fake": least.size}
    for side, asked, one in (("n_real", n_real, real), ("n_fake", n_fake, least)):
        if asked < 0 or asked > there[side] > 0:
            raise ConfigError(
                f"--{side}={asked}: {one.name} holds {there[side]} samples; 0 takes what there is"
            )
    said: list[str] = []
    wanted = {"n_real": n_real or own.n_real, "n_fake": n_fake or own.n_fake}
    got = {side: min(wanted[side] or there[side], there[side]) for side in there}
    if own.equal and real.size and least.size:
        # What is not asked for follows what is.
        if not n_real:
            got["n_real"] = min(got["n_real"], got["n_fake"])
        if not n_fake:
            got["n_fake"] = min(got["n_real"], got["n_fake"])
    if not own.n_real and real.size and least.size and got["n_real"] != got["n_fake"]:
        equal = min(got["n_real"], got["n_fake"])
        said.append(
            f"{got['n_real']} real and {got['n_fake']} fake samples: precision and recall are not "
            f"on equal terms; --n_real={equal} --n_fake={equal} would make them so"
        )
    for side in there:
        if not (own.n_real and got[side]):
            continue
        if got[side] != getattr(own, side):
            said.append(
                f"{side} is {got[side]} and not {getattr(own, side)}, as the convention {name!r} "
                "has it: not to be compared with numbers published under it"
            )
    if own.whole and got["n_real"] < there["n_real"]:
        said.append(f"the convention {name!r} takes all real samples and as many fake ones")
    for side, one in (("n_real", real), ("n_fake", least)):
        if 0 < got[side] < there[side]:
            said.append(
                f"{got[side]} of {there[side]} samples of {one.name} were taken, by a seeded "
                "shuffle"
            )
    return got["n_real"], got["n_fake"], said


def few(n_real: int, n_fake: int) -> list[str]:
    """The warning that samples are few, for metrics of nearest neighbours."""
    if min(n_real, n_fake) >= FEW or not n_real:
        return []
    return [
        f"{n_real} real and {n_fake} fake samples are fewer than {FEW}: metrics of nearest "
        "neighbours move with both numbers, so compare only numbers of equal sizes, k and encoder"
    ]


def check_enough(
    names: Iterable[str], inputs: list[Input], options: Options, sizes: list[int]
) -> None:
    """DataError unless each set has the neighbours that the metrics ask of it, without any group.

    Args:
      names: of the metrics; those of no neighbours need two samples.
      inputs: the real set, then those that are measured against it.
      options: k, k_dc, and the groups of which each is left out in turn.
      sizes: samples that are taken of each input; 0 where that is not known.
    """
    asked = {"real": ("", 0), "fake": ("", 0)}
    for name in names:
        for side, k in _asks(name, options).items():
            asked[side] = max(asked[side], (name, k), key=lambda one: one[1])
    sides = ["real", *["fake"] * (len(inputs) - 1)]
    # The set that is too small is to blame, not those that were cut to its size.
    for one, n, side in sorted(zip(inputs, sizes, sides, strict=True), key=lambda x: x[0].size):
        name, k = asked[side]
        if n and n - math.ceil(n / min(options.groups, n)) < k + 1:
            many = "1 sample" if n == 1 else f"{n} samples"
            what = f"{name} with k={k}" if k else "every metric"
            mend = "give more, or a smaller k" if k else "give more"
            raise DataError(
                f"{one.name} gives {many}, and {what} needs at least {needed(k, options.groups)}: "
                f"{mend}"
            )


def needed(k: int, groups: int) -> int:
    """The fewest samples of which k + 1 are left whichever of the groups is left out."""
    n = k + 2
    while n - math.ceil(n / min(groups, n)) < k + 1:
        n += 1
    return n


def _asks(name: str, options: Options) -> dict[str, int]:
    """{side: neighbours that a metric looks for within that set}."""
    k, k_dc = options.k, options.k_dc
    if name in ("density", "coverage", "clipped_density", "clipped_coverage"):
        return {"real": k_dc}
    if name in ("precision_symmetric", "recall_symmetric", "precision_complement"):
        return {"real": k_dc, "fake": k_dc}
    one_side = {"precision": ("real", k), "recall": ("fake", k)}
    one_side |= {"p_precision": ("real", probabilistic.K), "p_recall": ("fake", probabilistic.K)}
    return dict([one_side[name]]) if name in one_side else {}


def shuffled(n: int, of: int, seed: int, side: int) -> np.ndarray:
    """Rows of `n` of `of` samples at random, sorted; never the first ones, which are one class."""
    from prpr.data import randomness

    if n >= of:
        return np.arange(of)
    return np.sort(randomness.permutation(of, seed, randomness.SAMPLE, side)[:n])
