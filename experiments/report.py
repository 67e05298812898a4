"""One page of a run for a person who decides: the goal, the λ to take, what is given up, samples.

    python experiments/report.py --workdir=runs/digits
    python experiments/report.py --workdir=runs/digits --wish='precision >= 0.85'
    python experiments/report.py --workdir=runs/digits --wish='recall >= 50%' --guard='recall >= .3'

Writes WORKDIR/report.html, or --out=FILE.html: one file without anything beside it, which can be
sent to somebody. Wishes are those of experiments/choose_lambda.py; what a wish reads and the run's
score has not is measured first. A guard is what no class may be below.
"""

from absl import flags

from prpr import cli
from prpr.errors import ConfigError

_WORKDIR = flags.DEFINE_string("workdir", None, "of experiments/finetune_biggan.py")
_WISH = flags.DEFINE_string("wish", "", "what the model must be, such as 'precision >= 0.9'")
_GUARD = flags.DEFINE_string("guard", "", "what no class may be below, such as 'recall >= .3'")
_OUT = flags.DEFINE_string("out", None, "the page's file; default: WORKDIR/report.html")


def main() -> None:
    if not _WORKDIR.value:
        raise ConfigError("--workdir is needed: the workdir of experiments/finetune_biggan.py")
    if _OUT.value is not None and not _OUT.value.endswith((".html", ".htm")):
        raise ConfigError(f"--out={_OUT.value}: the page is HTML, so its name ends with .html")
    from prpr.evaluate import page  # after the flags: a typing mistake answers at once

    page.main(_WORKDIR.value, _WISH.value, _GUARD.value, _OUT.value)


if __name__ == "__main__":
    cli.run(main)
