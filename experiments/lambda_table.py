"""λ trained for against λ measured: does the run trained at λ do best at λ?

    python experiments/lambda_table.py --workdir=runs/digits
    python experiments/lambda_table.py --workdir=runs/digits --estimator=knn --json=-

Every run of the workdir is measured on the same held-out data: its frontier α(λ), β(λ) at each
trained λ, which run is best there, and how the frontier's ends order with λ. A run that is best
where another was trained has a paired test, whose p and interval allow for its having been chosen
among all other runs.
"""

from absl import flags

from prpr import cli
from prpr.errors import ConfigError

_WORKDIR = flags.DEFINE_string("workdir", None, "of experiments/finetune_biggan.py")
_ENCODER = flags.DEFINE_string("encoder", None, "as evaluate.py's; default: the run's own")
_RESIZE = flags.DEFINE_string("resize", None, "clean, clean_bytes, legacy_tf or legacy_pytorch")
_ESTIMATOR = flags.DEFINE_string("estimator", "classifier", "of the frontier: classifier or knn")
_RUN_SEED = flags.DEFINE_integer("seed", None, "of the runs; default: the configuration's first")
_N_FAKE = flags.DEFINE_integer("n_fake", 0, "samples of each run; 0: as many as real ones", 0)
_LEVEL = flags.DEFINE_float("level", 0.95, "probability that an interval covers")
_JSON = flags.DEFINE_string("json", "", "file for the result; -: JSON alone on standard output")


def main() -> None:
    if not _WORKDIR.value:
        raise ConfigError("--workdir is needed: the workdir of experiments/finetune_biggan.py")
    from prpr.evaluate import lambda_table  # after the flags: a typing mistake answers at once

    lambda_table.main(
        _WORKDIR.value,
        _JSON.value,
        encoder=_ENCODER.value,
        resize=_RESIZE.value,
        estimator=_ESTIMATOR.value,
        seed=_RUN_SEED.value,
        n_fake=_N_FAKE.value,
        level=_LEVEL.value,
    )


if __name__ == "__main__":
    cli.run(main)
