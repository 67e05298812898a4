"""CONDITIONS: what is wrong with the data or the settings, one row each.

Data: train and valid are spoiled alike, each by its own draw, since a user's validation data come
from the same bad source; the test split is clean, and it alone is scored against. The draw depends
on the split's seed and the condition only: runs of all training seeds see the same data.

The base is trained on the same data with the same model, which is what the user has, and every λ,
variant and control of the condition starts from it; `base` names another condition's where data
and model are the same.
"""

import contextlib
import importlib.util
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prpr import config, data
from prpr.data import randomness
from prpr.errors import unknown_name

from . import corrupt
from .corrupt import Corrupt

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class Source(NamedTuple):
    """Clean data and the configuration that trains on them.

    Attributes:
      file: of configs/, without its ending.
      name: of the data set.
      rare: the class that is called rare under every condition, so that they can be compared.
    """

    file: str
    name: str
    rare: int

    def load(self, argument: str = "") -> config.Config:
        """The configuration that the file makes of an argument."""
        path = CONFIGS / f"{self.file}.py"
        spec = importlib.util.spec_from_file_location(f"robust_{self.file}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config(argument)

    def part(self, split: str, seed: int = 0) -> data.Dataset:
        """A clean split, cut as its configuration says."""
        found = data.load(self.name, split, seed, self.load().data.fractions)
        assert isinstance(found, data.Dataset)
        return found


DIGITS, RING = Source("digits", "digits", 8), Source("toy_2d", "ring8", 0)


class Condition(NamedTuple):
    """A row of CONDITIONS.

    Attributes:
      words: what it does.
      source: the clean data.
      spoil: what is done to the training split; None leaves data as they are.
      spoil_valid: the same of the validation split; None: as `spoil`.
      knobs: {dotted knob: value} that it sets; "*3" as a value multiplies by 3.
      base: the condition whose base is used; "": its own.
    """

    words: str
    source: Source = DIGITS
    spoil: Corrupt | None = None
    spoil_valid: Corrupt | None = None
    knobs: Mapping[str, Any] = {}
    base: str = ""


CONDITIONS: dict[str, Condition] = {
    "clean": Condition("digits as they are"),
    "rare_1": Condition("digit 8 is 1 % of the data", spoil=corrupt.rare(DIGITS.rare, 0.01)),
    "rare_01": Condition(
        "digit 8 is .1 % of the data: one image", spoil=corrupt.rare(DIGITS.rare, 0.001)
    ),
    "noise_10": Condition("10 % are uniform noise, any label", spoil=corrupt.noisy(0.1)),
    "noise_30": Condition("30 % are uniform noise, any label", spoil=corrupt.noisy(0.3)),
    "labels_10": Condition("10 % have a wrong label", spoil=corrupt.mislabelled(0.1)),
    "few_200": Condition(
        "200 training and 80 validation images", DIGITS, corrupt.few(200), corrupt.few(80)
    ),
    "few_50": Condition(
        "50 training and 20 validation images, batches of 32",
        DIGITS,
        corrupt.few(50),
        corrupt.few(20),
        {"train.batch": 32},
    ),
    "duplicated": Condition("half are copies of 5 images", spoil=corrupt.duplicated(0.5)),
    "outliers": Condition("5 % are inverted", spoil=corrupt.outlying(0.05)),
    "rate_x10": Condition(
        "both rates of the fine-tune, and of its controls, times 10",
        knobs={
            "critic.lr": "*10",
            "generator.lr": "*10",
            "base.critic_lr": "*10",  # of the controls: the base itself is that of "clean"
            "base.generator_lr": "*10",
        },
        base="clean",
    ),
    # A checkpoint carries its critic: another width is another base.
    "critic_weak": Condition(
        "a critic of 6 channels, one step", knobs={"model.critic_ch": 6, "critic.steps": 1}
    ),
    "critic_strong": Condition(
        "8 critic steps at 3 times the rate",
        knobs={
            "critic.steps": 8,
            "critic.lr": "*3",
            "base.critic_steps": 8,
            "base.critic_lr": "*3",
        },
        base="clean",
    ),
    "ring_clean": Condition("ring8 as it is", RING),
    "ring_rare_1": Condition("one mode of 8 is 1 %", RING, corrupt.rare(RING.rare, 0.01)),
    "ring_rare_01": Condition("one mode of 8 is .1 %", RING, corrupt.rare(RING.rare, 0.001)),
    "ring_noise_10": Condition("10 % are uniform in a square", RING, corrupt.noisy(0.1)),
    "ring_outliers": Condition("5 % are three times as far out", RING, corrupt.outlying(0.05)),
}


def get(name: str) -> Condition:
    """The condition of that name; ConfigError for one that CONDITIONS does not have."""
    if name not in CONDITIONS:
        raise unknown_name("condition", name, CONDITIONS)
    return CONDITIONS[name]


def data_name(name: str) -> str:
    """The name by which `prpr.data` knows a condition's data."""
    one = get(name)
    return one.source.name if one.spoil is None else f"{one.source.name}+{name}"


def spoiled(name: str, seed: int = 0) -> dict[str, data.Dataset]:
    """{split: its data} under a condition; a pure function of both.

    Args:
      name: of CONDITIONS.
      seed: of the split and of the draws.
    """
    one = get(name)
    parts = {split: one.source.part(split, seed) for split in data.SPLITS}
    if one.spoil is not None:
        both = {"train": one.spoil, "valid": one.spoil_valid or one.spoil}
        for i, (split, spoil) in enumerate(both.items()):
            stream = randomness.philox(seed, zlib.crc32(name.encode()), i)
            parts[split] = spoil(parts[split], np.random.Generator(stream))
    return {split: part._replace(name=data_name(name)) for split, part in parts.items()}


@contextlib.contextmanager
def registered(names: Sequence[str]) -> Iterator[None]:
    """Within the block `prpr.data` has the conditions' data among its SOURCES."""
    added = [name for name in names if data_name(name) not in data.SOURCES]

    def source(name: str, seed: int) -> dict[str, data.Dataset]:
        return spoiled(name.partition("+")[2], seed)

    try:
        data.SOURCES.update({data_name(name): source for name in added})
        yield
    finally:
        for name in added:
            data.SOURCES.pop(data_name(name), None)


def changed(cfg: config.Config, knobs: Mapping[str, Any]) -> config.Config:
    """A copy with these knobs set; see `Condition.knobs`."""
    out = cfg.copy_and_resolve_references()
    for knob, value in knobs.items():
        *path, last = knob.split(".")
        group = out
        for each in path:
            group = group[each]
        times = isinstance(value, str) and value.startswith("*")
        group[last] = group[last] * float(value[1:]) if times else value
    return out


def settings(name: str, smoke: bool = False) -> config.Config:
    """The configuration of a condition's fine-tune, before λ, seeds and variant are set."""
    one = get(name)
    cfg = changed(one.source.load("smoke" if smoke else ""), one.knobs)
    cfg.name, cfg.data.name, cfg.control = name, data_name(name), False
    return cfg
