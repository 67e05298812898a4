"""Which λ a goal means: the λ to take, how sure that is, what is given up, what to run next.

    python experiments/choose_lambda.py --workdir=runs/digits --wish='precision >= 0.85'
    python experiments/choose_lambda.py --workdir=runs/digits --wish='recall >= 50%, max precision'
    python experiments/choose_lambda.py --records=mine.csv --wish='cost: bad=5 missing=1' --json=-

Wishes: METRIC >= NUMBER or <=, `max METRIC`, `min METRIC`, `cost: bad=A missing=B`, joined by
"and"; `worst recall >= .3` is of the class that has least, `precision[7] >= .8` of one class. What
a wish reads and a run's score has not is measured first. Records of other code are JSON or CSV with
columns lam, seed, METRIC, METRIC_low, METRIC_high (see prpr/choosing/records.py).
"""

from absl import flags

from prpr import cli
from prpr.errors import ConfigError

_WORKDIR = flags.DEFINE_string("workdir", None, "of experiments/finetune_biggan.py")
_RECORDS = flags.DEFINE_list("records", [], "files of records, JSON or CSV, instead of --workdir")
_WISH = flags.DEFINE_string("wish", None, "what the model must be, such as 'precision >= 0.9'")
_LEVEL = flags.DEFINE_float("level", 0.95, "probability with which a promise holds")
_MONOTONE = flags.DEFINE_bool(
    "monotone", False, "smooth the curves: precision rises with λ, recall falls"
)
_LAM = flags.DEFINE_float("lam", None, "ask about this trained λ instead of choosing one")
_ENCODER = flags.DEFINE_string("encoder", None, "of what is measured; default: the run's own")
_RESIZE = flags.DEFINE_string("resize", None, "clean, clean_bytes, legacy_tf or legacy_pytorch")
_JSON = flags.DEFINE_string("json", "", "file for the answer; -: JSON alone on standard output")


def main() -> None:
    if not _WISH.value:
        raise ConfigError("--wish is needed, such as --wish='precision >= 0.9'")
    if bool(_WORKDIR.value) == bool(_RECORDS.value):
        raise ConfigError("give either --workdir=RUN or --records=FILE,FILE")
    from prpr.evaluate import goal  # after the flags: a typing mistake answers at once

    goal.main(
        [_WORKDIR.value] if _WORKDIR.value else _RECORDS.value,
        _WISH.value,
        _JSON.value,
        level=_LEVEL.value,
        monotone=_MONOTONE.value,
        lam=_LAM.value,
        encoder=_ENCODER.value,
        resize=_RESIZE.value,
    )


if __name__ == "__main__":
    cli.run(main)
