"""Fine-tunes a pre-trained BigGAN at several λ, scores every one, and writes the report.

    python experiments/finetune_biggan.py --config=configs/digits.py
    python experiments/finetune_biggan.py --config=configs/digits.py --config.lams=0.5,2
    python experiments/finetune_biggan.py --config=configs/digits.py --plan --probe

The same command again resumes, or reuses what is done; --plan says what it will need and cost,
and does nothing. `--help` lists the flags; every knob of the configuration is in prpr/config.py.
"""

from absl import flags

from prpr import cli, planner

_CONFIG = cli.define_config("configs/digits.py")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything is written; default runs/<config.name>"
)
_CLUSTER = cli.define_cluster()
_PLAN = planner.define_flags()


def main() -> None:
    workdir = _WORKDIR.value or f"runs/{_CONFIG.value.name}"
    if _PLAN.wanted:
        return planner.main(_CONFIG.value, "finetune", workdir, _PLAN)
    from prpr import run  # after the flags: a typing mistake answers at once

    run.finetune(_CONFIG.value, workdir, _CLUSTER())
    return None


if __name__ == "__main__":
    cli.run(main)
