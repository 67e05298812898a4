"""Trains a normalizing flow by maximum likelihood, then at several λ; scores all, and reports.

    python experiments/train_flow.py --config=configs/digits.py
    python experiments/train_flow.py --config=configs/mnist.py --config.data.path=TFDS_DIR
    python experiments/train_flow.py --config=configs/imagenet32.py --config.data.path=TFDS_DIR
    python experiments/train_flow.py --config=configs/digits.py --config.route=data

Of a file's configurations it takes `:flow`, and for FILE.py:smoke `:flow_smoke`. How λ gets into
the model is --config.route and --config.log_ratio: by reweighted likelihood of data and samples,
with the flow's own density in the ratio (route=balanced, log_ratio=density: the default), of data
alone (route=data), through its samples (route=samples), with a ratio that is the critic's alone
(log_ratio=critic), or without any critic, against its frozen start (route=implicit with
objective=smoothed_pr and train.warmup=0). The same command again resumes, or reuses what is done;
--plan says what it will need and cost. `--help` lists the flags; every knob is in prpr/config.py.
"""

from absl import flags

from prpr import cli, planner

_CONFIG = cli.define_config("configs/digits.py", kind="flow")
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
