"""Before a fine-tune is paid for: the frontier of a frozen generator, and what to do about it.

    python experiments/predict_frontier.py --config=configs/digits.py --config.base.path=runs/base
    python experiments/predict_frontier.py --config=configs/digits.py --wish='precision >= 0.85'
    python experiments/predict_frontier.py --config=... --experience=runs/a,runs/b --json=-

--config and --workdir are those of the fine-tune that is thought of (finetune_biggan.py or
train_flow.py); its base is the generator. A critic is fitted and calibrated; printed are α(λ) and
β(λ) with intervals, the most that training at λ can add, precision and recall as it is, truncated
and through rejection at each budget, a guess of fine-tuning, costs, and which of these a wish asks
for. WORKDIR/predict holds the numbers, a figure, and the critic for evaluate.py --sampler=.
"""

from absl import flags

from prpr import cli
from prpr.errors import ConfigError

_CONFIG = cli.define_config("configs/digits.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "of the fine-tune; default runs/<config.name>")
_WISH = flags.DEFINE_string("wish", None, "such as 'precision >= 0.9'; default: f_0.5, f_1, f_2")
_LAMS = flags.DEFINE_list("lams", ["0.05", "0.2", "1", "5", "20"], "λ of frontier and guesses")
_BUDGETS = flags.DEFINE_list("budgets", ["2", "4", "8"], "of rejection: calls for one sample")
_TRUNCATIONS = flags.DEFINE_list("truncations", [".9", ".7", ".5"], "of truncation")
_EXPERIENCE = flags.DEFINE_list("experience", [], "workdirs of finished fine-tunes to guess from")
_SAMPLES = flags.DEFINE_integer("samples", 100_000, "that will be drawn in all, for the costs", 1)
_ENCODER = flags.DEFINE_string("encoder", None, "as evaluate.py's; default: the run's own")
_RESIZE = flags.DEFINE_string("resize", None, "clean, clean_bytes, legacy_tf or legacy_pytorch")
_N_FAKE = flags.DEFINE_integer("n_fake", 0, "samples of each row; 0: as many as real ones", 0)
_LEVEL = flags.DEFINE_float("level", 0.95, "probability that an interval covers")
_JSON = flags.DEFINE_string("json", "", "file for the result; -: JSON alone on standard output")


def _numbers(flag: flags.FlagHolder) -> list[float]:
    try:
        return [float(text) for text in flag.value]
    except ValueError as error:
        raise ConfigError(f"--{flag.name} takes numbers, such as 1,2: {error}") from None


def main() -> None:
    lams, budgets, truncations = map(_numbers, (_LAMS, _BUDGETS, _TRUNCATIONS))
    from prpr import predict  # after the flags: a typing mistake answers at once

    predict.main(
        _CONFIG.value,
        _WORKDIR.value or f"runs/{_CONFIG.value.name}",
        _JSON.value,
        wish=_WISH.value,
        lams=lams,
        budgets=budgets,
        truncations=truncations,
        known=_EXPERIENCE.value,
        samples=_SAMPLES.value,
        encoder=_ENCODER.value,
        resize=_RESIZE.value,
        n_fake=_N_FAKE.value,
        level=_LEVEL.value,
    )


if __name__ == "__main__":
    cli.run(main)
