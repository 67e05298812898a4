"""Trains a GAN from scratch, scores it, and writes the report: the start of a fine-tune.

    python experiments/train_gan.py --config=configs/digits.py:base --workdir=runs/digits/base
    python experiments/train_gan.py --config=configs/toy_2d.py

The same command again resumes, or reuses what is done. `--help` lists the flags; every knob of
the configuration is in prpr/config.py.
"""

from absl import flags

from prpr import cli

_CONFIG = cli.define_config("configs/digits.py:base")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything is written; default runs/<config.name>"
)


def main() -> None:
    from prpr import run  # after the flags: a typing mistake answers at once

    run.train_base(_CONFIG.value, _WORKDIR.value or f"runs/{_CONFIG.value.name}")


if __name__ == "__main__":
    cli.run(main)
