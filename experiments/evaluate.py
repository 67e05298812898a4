"""Measures generated samples against real ones: precision, recall and others, with intervals.

    python experiments/evaluate.py --real=data/test --fake=samples.npz
    python experiments/evaluate.py --real=a.npz --fake=b.npz --metrics=precision,recall --json=-
    python experiments/evaluate.py --real='runs/digits?real' --fake='runs/digits?lam=5&seed=0,1'
    python experiments/evaluate.py --real='RUN?real' --fake='RUN?lam=1' --sampler=reject:budget=4
    python experiments/evaluate.py --real=tfds:cifar10/test --fake=DIR --convention=studiogan

Samples are a folder of images (first-level subfolders are classes), .npz or .npy files of images
(uint8) or features, a TFDS split (tfds:NAME/SPLIT?data_dir=DIR), or a run of prpr
(WORKDIR?lam=5&seed=0, ?run=control, ?real, ?train). prpr/evaluate says more of each.
"""

from absl import flags

from prpr import cli
from prpr.errors import ConfigError

_REAL = flags.DEFINE_string("real", None, "real samples")
_FAKE = flags.DEFINE_multi_string("fake", [], "generated samples; several are seeds of one model")
_COMPARE = flags.DEFINE_multi_string("compare", [], "a second model: the difference, paired")
_TRAIN = flags.DEFINE_string("train", None, "training samples: for authenticity, pca, classifier")
_METRICS = flags.DEFINE_list("metrics", [], "names; default: the kNN four and what fits")
_ENCODER = flags.DEFINE_string(
    "encoder", None, "inception, vgg16, dinov2, dinov2_vitb14, pixels, pca, classifier or F.py:FUN"
)
_RESIZE = flags.DEFINE_string("resize", None, "clean, clean_bytes, legacy_tf or legacy_pytorch")
_CONVENTION = flags.DEFINE_string("convention", "prpr", "prpr, stylegan, adm or studiogan")
_K = flags.DEFINE_integer("k", None, "neighbours of precision and recall; default 3", 1)
_K_COVERAGE = flags.DEFINE_integer("k_coverage", None, "of density and coverage; default 5", 1)
_N_REAL = flags.DEFINE_integer("n_real", 0, "real samples, by a shuffle; 0: by the convention", 0)
_N_FAKE = flags.DEFINE_integer("n_fake", 0, "generated samples; 0: by the convention", 0)
_LEVEL = flags.DEFINE_float("level", 0.95, "of the intervals")
_SEED = flags.DEFINE_integer("seed", 0, "of shuffles, groups and fitted encoders")
_PER_CLASS = flags.DEFINE_bool("per_class", False, "precision and recall of each class too")
_TRUNCATION = flags.DEFINE_list("truncation", [], "also these truncations of a run's generator")
_SAMPLER = flags.DEFINE_string("sampler", None, "draws --fake: reject:budget=4, prpr/samplers")
_SHEET = flags.DEFINE_string("sheet", None, "PNG of the samples nearest to training images")
_JSON = flags.DEFINE_string("json", "", "file for the result; -: JSON alone on standard output")
_BATCH = flags.DEFINE_integer("batch", 0, "images computed at once; 0: as is usual", 0)
_WORKERS = flags.DEFINE_integer("workers", 0, "threads that read images; 0: one a core", 0)


def main() -> None:
    if not _REAL.value or not _FAKE.value:
        raise ConfigError("--real and --fake are needed: folders, .npz files, or see --help")
    try:
        truncation = [float(text) for text in _TRUNCATION.value]
    except ValueError as error:
        raise ConfigError(f"--truncation takes numbers, such as 1,.8,.6: {error}") from None
    from prpr.evaluate import command  # after the flags: a typing mistake answers at once

    command.main(
        _REAL.value,
        _FAKE.value,
        _JSON.value,
        metrics=[name.strip() for name in _METRICS.value if name.strip()],
        compare=_COMPARE.value or None,
        truncation=truncation,
        sampler=_SAMPLER.value,
        train=_TRAIN.value,
        encoder=_ENCODER.value,
        resize=_RESIZE.value,
        convention=_CONVENTION.value,
        k=_K.value,
        k_coverage=_K_COVERAGE.value,
        n_real=_N_REAL.value,
        n_fake=_N_FAKE.value,
        level=_LEVEL.value,
        seed=_SEED.value,
        per_class=_PER_CLASS.value,
        sheet=_SHEET.value,
        batch=_BATCH.value,
        workers=_WORKERS.value,
    )


if __name__ == "__main__":
    cli.run(main)
