"""The evaluation itself: inputs -> features -> numbers with intervals and warnings."""

from collections.abc import Iterable, Sequence

import numpy as np

from prpr.errors import ConfigError
from prpr.evaluate import arrays, choose, conventions, seeds, views
from prpr.evaluate.features import Features, Settings, channels_of
from prpr.evaluate.inputs import (
    Given,
    Input,
    check_sampler,
    check_truncation,
    names,
    open_input,
)
from prpr.evaluate.result import Numbers, Result, Sampled, Seeds
from prpr.metrics import Options, Replicates, Statistics, checks, intervals, registry
from prpr.metrics.family import Progress
from prpr.metrics.groups import FAKE, REAL
from prpr.samplers import Sampler, parse

_INCEPTION_WIDTH = 2048


def evaluate(
    real: Given,
    fake: Given,
    metrics: Iterable[str] = (),
    *,
    compare: Given | None = None,
    train: Given | None = None,
    encoder: str | None = None,
    resize: str | None = None,
    convention: str = "prpr",
    k: int | None = None,
    k_coverage: int | None = None,
    n_real: int = 0,
    n_fake: int = 0,
    level: float = 0.95,
    seed: int = 0,
    batch: int = 0,
    workers: int = 0,
    per_class: bool = False,
    truncation: Sequence[float] = (),
    sampler: str | Sampler | None = None,
    sheet: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Measures generated samples against real ones, with intervals and warnings.

        evaluate("data/test", "samples.npz", ["precision", "recall"]).metrics["recall"].low

    Args:
      real: real samples, always first; see `inputs`, or an array of images or features.
      fake: generated samples. A list, or "...seed=0,1", are models that differ in their seed: the
        numbers are the mean over them, with an interval for further seeds.
      metrics: see `prpr.metrics.known`; by default the kNN four, and the Fréchet distance where
        the encoder is one that it is published with.
      compare: samples of a second model (or its seeds): `comparison` is `fake` less this one,
        paired on the same real samples.
      train: training samples: authenticity and the sheet are against them, and the encoders "pca"
        and "classifier" are fitted on them.
      encoder: "inception" for images by default; "vgg16", "dinov2", "dinov2_vitb14", "pixels",
        "pca", "classifier", or FILE.py:FUNCTION. Given features are taken as they are.
      resize: how images reach a network's size: "clean" by default.
      convention: of `conventions.CONVENTIONS`: the settings that are not given.
      k, k_coverage: neighbours of precision and recall, and of density and coverage.
      n_real, n_fake: how many samples; 0 goes by the convention. They are drawn by a shuffle.
      level: probability that an interval covers.
      seed: of shuffles, groups, folds and fitted encoders.
      batch, workers: images computed at once, threads that read; 0 is as many as is usual.
      per_class: also precision and recall of each class, of samples with classes; of several
        seeds their mean.
      truncation: also these truncations of a run's generator.
      sampler: draws `fake`, which are runs then, through it: "reject:budget=4", see
        `prpr.samplers`. `compare` stays as it is.
      sheet: PNG to write of the samples nearest to training images; of several seeds the first's.
      progress: called as work is done.

    What the settings alone decide is refused before any image is encoded, encoders without weights
    too.

    Raises:
      ConfigError: names or settings that cannot be used.
      DataError: samples that cannot be used; names the file, the place and the mend.
      CheckpointError: an encoder or a run without weights.
    """
    wanted = list(dict.fromkeys(metrics))
    for name in wanted:
        registry.family_of(name)
    intervals.check_level(level)
    choose.check_numbers(n_real=n_real, n_fake=n_fake, batch=batch, workers=workers)
    choose.check_seed(seed)
    chosen = conventions.choose(convention, k, k_coverage, encoder, resize)
    checks.check_settings({"k": chosen.k, "k_coverage": chosen.k_coverage})
    choose.check_encoder(chosen.encoder, chosen.resize)
    options = Options(chosen.k, chosen.k_coverage, level, seed=seed, progress=progress)
    given, others = _several("fake", fake), [] if compare is None else _several("compare", compare)
    check_truncation(truncation, given, "fake")
    through = parse(sampler) if isinstance(sampler, str) else sampler
    if through is not None and truncation:
        raise ConfigError(
            f"--sampler={sampler} and --truncation={','.join(f'{t:g}' for t in truncation)}: a "
            "sampler draws without truncation; give one of them, or --sampler=truncation:at=.7"
        )
    check_sampler(through, given, "fake")

    reference = open_input(real, "real")
    trained = None if train is None else open_input(train, "train")
    draw = n_fake or conventions.get(convention).n_fake or reference.size
    fakes = [open_input(one, "fake", draw, seed=seed, sampler=through) for one in given]
    rivals = [open_input(one, "compare", draw, seed=seed) for one in others]
    sets = [reference, *fakes, *rivals]
    if sheet is not None:
        views.check_sheet(sheet, trained or reference, fakes[0])
    if per_class:
        views.check_classes(reference, *fakes)
    n_real, n_fake, said = conventions.sizes(convention, reference, sets[1:], n_real, n_fake)
    spec, resized = choose.encoder_name(wanted, sets, chosen.encoder, chosen.resize)
    wanted = choose.metric_names(wanted, sets, spec)
    taken = [n_real, *(n_fake if one.size else 0 for one in sets[1:])]
    conventions.check_enough(wanted, sets, options, taken)
    channels = channels_of(*sets, trained)
    settings = Settings(spec, resized, seed, batch, workers, trained, channels, progress)
    work = _Work(settings, options, reference, trained, n_real, n_fake, convention)
    work.ready(wanted, sets)

    found = [work.replicates(wanted, one) for one in fakes]
    mean = {name: seeds.pooled([one[name] for one in found]) for name in wanted}
    numbers = {name: intervals.estimate(one, level) for name, one in mean.items()}
    against = [work.replicates(wanted, one) for one in rivals]
    rival = {name: seeds.pooled([one[name] for one in against]) for name in wanted if against}
    comparison = {name: intervals.compare(mean[name], rival[name], level) for name in rival}
    made_by = choose.known(work.real(spec), *(work.given(one, spec) for one in fakes))
    said += [*chosen.said, *work.said, *choose.not_used(chosen.encoder, spec, made_by)]
    said += choose.other_resize(sets, chosen.resize)
    said += arrays.ranges(one for one in (*sets, trained) if one)
    said += choose.not_published({name: work.others.get(name, made_by) for name in wanted})
    if any(one.k is not None for one in numbers.values()):
        said += conventions.few(n_real, n_fake)
    said += [note for one in (*mean.values(), *rival.values()) for note in one.notes]
    classes = work.per_class(fakes) if per_class else None
    said += classes.notes if classes is not None else ()
    swept = tuple((t, work.truncated(wanted, given, t, draw)) for t in truncation)
    drawn = None if sheet is None else work.sheet(sheet, fakes[0])
    if sheet is not None and len(fakes) > 1:
        said.append(f"the sheet shows samples of {fakes[0].name}, the first of {len(fakes)} seeds")
    said += [line for one in (*sets, trained) if one for line in one.notes.lines()]
    return Result(
        metrics=numbers,
        level=level,
        n_real=n_real,
        n_fake=n_fake if all(one.size for one in fakes) else 0,
        encoder=made_by,
        k=options.k,
        k_coverage=options.k_dc,
        seed=seed,
        convention=convention,
        resize=resized,
        real=reference.name,
        fake=", ".join(one.name for one in fakes),
        warnings=tuple(dict.fromkeys(said)),
        encoders=work.others,
        compare=", ".join(one.name for one in rivals) or None,
        comparison=comparison or None,
        seeds=_seeds(wanted, fakes, found) if len(fakes) > 1 else None,
        per_class=classes,
        truncation=swept,
        sampler=None if through is None else _sampled(through, fakes),
        sheet=drawn,
    )


def _several(side: str, given: Given) -> list[Given]:
    """The sets of samples of one side; ConfigError for none."""
    found = names(given)
    if not found:
        raise ConfigError(f"{side}={given!r} names no samples: give one set or several")
    return found


def _sampled(sampler: Sampler, fakes: Sequence[Input]) -> Sampled:
    costs = {one.name: one.cost for one in fakes if one.cost is not None}
    return Sampled(sampler, costs)


class _Work:
    """The reference and what is computed against it.

    Attributes:
      said: warnings.
      others: {metric: encoder} of metrics that have an encoder of their own.
    """

    def __init__(
        self,
        settings: Settings,
        options: Options,
        reference: Input,
        trained: Input | None,
        n_real: int,
        n_fake: int,
        convention: str,
    ):
        self._settings, self._options, self._convention = settings, options, convention
        self._reference, self._trained, self._n_fake = reference, trained, n_fake
        self._features = Features(settings, reference)
        self._rows = conventions.shuffled(n_real, reference.size, options.seed, REAL)
        self.said: list[str] = []
        self.others: dict[str, str] = {}

    def ready(self, wanted: Sequence[str], sets: Sequence[Input]) -> None:
        """Loads every encoder that the metrics need, so that one that is missing costs no work."""
        spec, images = self._settings.encoder, [one for one in sets if one.images is not None]
        for name in dict.fromkeys([spec, *(choose.encoder_of(spec, one) for one in wanted)]):
            if name is not None:
                self._features.encoder(name, images[0])

    def real(self, encoder: str | None) -> Statistics:
        """The reference."""
        return self._features.of(self._reference, self._rows, "real", encoder)

    def given(self, one: Input, encoder: str | None) -> Statistics:
        """Generated samples under the name of what made their features."""
        rows = conventions.shuffled(self._n_fake, one.size, self._options.seed, FAKE)
        return self._features.of(one, rows, "fake", encoder)

    def fake(self, one: Input, encoder: str | None) -> Statistics:
        """Generated samples under the name of the reference's encoder, which made them too."""
        return self._alike(one, self.given(one, encoder), self.real(encoder))

    def _training(self, encoder: str | None) -> Statistics:
        """Training samples, all of them; the reference where none are named."""
        if self._trained is None:
            return self.real(encoder)
        rows = np.arange(self._trained.size)
        made = self._features.of(self._trained, rows, "train", encoder)
        return self._alike(self._trained, made, self.real(encoder))

    def _alike(self, one: Input, made: Statistics, real: Statistics) -> Statistics:
        """Features without a name take the other's; DataError where widths differ."""
        choose.check_widths(one.name, made.width, self._reference.name, real.width)
        if made.encoder == real.encoder:
            return made
        return choose.adopted(one.name, made, real, self.said)

    def replicates(self, wanted: Sequence[str], one: Input) -> dict[str, Replicates]:
        """{metric: Replicates} of a set, each on the encoder and the reference that are its own."""
        found: dict[str, Replicates] = {}
        for (encoder, against), own in self._grouped(wanted).items():
            if against == "train":
                real = self._training(encoder)
            elif against == "moments":
                real = self._published(encoder)
            else:
                real = self.real(encoder)
            fake = self.fake(one, encoder)
            if encoder != self._settings.encoder:
                self.others |= dict.fromkeys(own, fake.encoder)
            found |= registry.replicates(own, real, fake, self._options)
        return found

    def _grouped(self, wanted: Sequence[str]) -> dict[tuple[str | None, str], list[str]]:
        """{(encoder, what it is measured against): metrics}."""
        groups: dict[tuple[str | None, str], list[str]] = {}
        spec = self._settings.encoder
        for name in wanted:
            against = "real"
            if name == "authenticity":
                against = "train"
                if self._trained is None:
                    self.said.append(
                        f"authenticity compares with training samples, and {self._reference.name} "
                        "was taken for them: name them with --train"
                    )
                else:
                    self.said.append(
                        f"authenticity is against all {self._trained.size} samples of "
                        f"{self._trained.name}"
                    )
            elif name in ("fid", "fid_infinity") and self._use_moments(spec):
                against = "moments"
            groups.setdefault((choose.encoder_of(spec, name), against), []).append(name)
        return groups

    def _use_moments(self, spec: str | None) -> bool:
        """Whether μ and Σ beside the reference's images are those that a convention means."""
        if self._reference.moments is None:
            return False
        # Published ones are of images that TensorFlow resized: fakes must be resized so, too.
        used = self._convention == "adm" and spec == "inception"
        used = used and self._settings.resize == "legacy_tf"
        used = used and len(self._reference.moments[0]) == _INCEPTION_WIDTH
        self.said.append(
            f"{self._reference.name} holds mu and sigma beside its images: "
            + ("the Fréchet distance is against them" if used else "they were not used")
        )
        return used

    def _published(self, encoder: str | None) -> Statistics:
        """The reference's published moments, under the name of the encoder that is used here."""
        assert self._reference.moments is not None  # `_use_moments` has looked
        return choose.moments(self._reference, self.real(encoder).encoder)

    def per_class(self, fakes: Sequence[Input]) -> views.PerClass:
        """Precision and recall of each class, the mean over seeds."""
        spec = self._settings.encoder
        equal = conventions.get(self._convention).equal
        return views.per_class(
            (self._reference.name, self.real(spec)),
            [(one.name, self.fake(one, spec)) for one in fakes],
            self._options,
            equal,
        )

    def truncated(
        self, wanted: Sequence[str], given: Sequence[Given], truncation: float, n: int
    ) -> Numbers:
        """The numbers at a truncation of the generator's latents."""
        seed = self._options.seed
        opened = [open_input(one, "fake", n, truncation, seed) for one in given]
        found = [self.replicates(wanted, one) for one in opened]
        for one in opened:
            self._features.forget(one)
        mean = {name: seeds.pooled([one[name] for one in found]) for name in wanted}
        level = self._options.level
        return {name: intervals.estimate(one, level) for name, one in mean.items()}

    def sheet(self, path: str, one: Input) -> str:
        """Draws the samples that are nearest to training images."""
        spec = self._settings.encoder
        train = self._trained or self._reference
        rows = np.arange(train.size) if self._trained else self._rows
        drawn = conventions.shuffled(self._n_fake, one.size, self._options.seed, FAKE)
        return views.sheet(
            path,
            views.Drawn(train, rows, self._training(spec)),
            views.Drawn(one, drawn, self.fake(one, spec)),
        )


def _seeds(
    wanted: Sequence[str], fakes: Sequence[Input], found: Sequence[dict[str, Replicates]]
) -> Seeds:
    each = {name: [one[name] for one in found] for name in wanted}
    return Seeds(
        tuple(one.name for one in fakes),
        {name: tuple(float(one.theta[0, 0]) for one in own) for name, own in each.items()},
        {name: seeds.spread(own) for name, own in each.items()},
    )
