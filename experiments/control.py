"""Control after training beside training at λ: precision, recall and cost of samplers.

    python experiments/control.py --workdir=runs/digits
    python experiments/control.py --workdir=runs/digits --samplers=reject,mh --budgets=2,8
    python experiments/control.py --workdir=runs/digits --samplers=ddls:steps=200,size=.05 --json=-
    python experiments/control.py --workdir=runs/digits --one=runs/digits-dial

Every model of the workdir (base, control, each λ) is drawn as it is and through each sampler
(docs/sampling.md), and measured against the held-out data. Rows go to WORKDIR/control.json, and the
same command again measures only what is new; WORKDIR/figures/control.png shows them.
"""

from absl import flags

from prpr import cli
from prpr.errors import ConfigError

_WORKDIR = flags.DEFINE_string("workdir", None, "of experiments/finetune_biggan.py")
_SEEDS = flags.DEFINE_list("seeds", [], "of the runs; default: the configuration's")
_LAMS = flags.DEFINE_list("lams", [], "of the runs; default: the configuration's")
_SAMPLERS = flags.DEFINE_string(
    "samplers", "", "names, or names with settings; default: truncation,reject,drs,mh,ddls"
)
_BUDGETS = flags.DEFINE_list("budgets", ["1.5", "2", "4"], "of reject: calls for one sample")
_TRUNCATIONS = flags.DEFINE_list("truncations", [".9", ".7", ".5"], "of truncation")
_ENCODER = flags.DEFINE_string("encoder", None, "as evaluate.py's; default: the run's own")
_RESIZE = flags.DEFINE_string("resize", None, "clean, clean_bytes, legacy_tf or legacy_pytorch")
_N_FAKE = flags.DEFINE_integer("n_fake", 0, "samples of each row; 0: as many as real ones", 0)
_ONE = flags.DEFINE_string("one", "", "workdir of a model for every λ, to lay beside them")
_LEVEL = flags.DEFINE_float("level", 0.95, "probability that an interval covers")
_JSON = flags.DEFINE_string("json", "", "file for the result; -: JSON alone on standard output")


def _numbers(flag: flags.FlagHolder, kind: type) -> list:
    try:
        return [kind(text) for text in flag.value]
    except ValueError as error:
        raise ConfigError(f"--{flag.name} takes numbers, such as 1,2: {error}") from None


def main() -> None:
    if not _WORKDIR.value:
        raise ConfigError("--workdir is needed: the workdir of experiments/finetune_biggan.py")
    from prpr import samplers
    from prpr.evaluate import control  # after the flags: a typing mistake answers at once

    control.main(
        _WORKDIR.value,
        _JSON.value,
        seeds=_numbers(_SEEDS, int),
        lams=_numbers(_LAMS, float),
        names=samplers.several(_SAMPLERS.value) or control.DEFAULT,
        budgets=_numbers(_BUDGETS, float),
        truncations=_numbers(_TRUNCATIONS, float),
        encoder=_ENCODER.value,
        resize=_RESIZE.value,
        n_fake=_N_FAKE.value,
        level=_LEVEL.value,
        one=_ONE.value,
    )


if __name__ == "__main__":
    cli.run(main)
