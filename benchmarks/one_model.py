"""One model for every λ against separate ones: finished workdirs of finetune_biggan.py, compared.

    S="--config.seeds=0,1,2"
    D="--config=configs/digits.py $S --config.control=False --config.base.path=runs/base"
    python experiments/train_gan.py --config=configs/digits.py:base $S --workdir=runs/base
    python experiments/finetune_biggan.py $D --workdir=runs/separate
    python experiments/finetune_biggan.py $D --workdir=runs/full --config.train.batch=256 \
        --config.base.batch=64
    python experiments/finetune_biggan.py $D --workdir=runs/one --config.train.batch=256 \
        --config.base.batch=64 --config.dial=0.2,20 --config.score.standing=16
    python benchmarks/one_model.py runs/one runs/separate runs/full

Four λ: the separate ones share the compute of the one model (a quarter of its batch each), and
`full` has all of it for each. Printed are precision and recall at each λ (mean ± sd over seeds),
Spearman's correlations with λ of each seed, and the hypervolume under each seed's points (their
staircase), for the first workdir as a ratio to each other one's.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from prpr import choosing
from prpr.exact import area

Points = dict[int, dict[float, tuple[float, float]]]


def points_of(workdir: str) -> Points:
    """{seed: {λ: (precision, recall)}}."""
    out: Points = {}
    for row in choosing.read([workdir]).rows:
        if row.lam is not None and row.seed is not None:
            both = row.metrics["precision"].value, row.metrics["recall"].value
            out.setdefault(row.seed, {})[row.lam] = both
    return out


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    volumes = {}
    for workdir in sys.argv[1:]:
        found = points_of(workdir)
        lams = sorted(next(iter(found.values())))
        table = np.array([[found[seed][lam] for lam in lams] for seed in sorted(found)])
        print(f"{Path(workdir).name}, seeds {', '.join(map(str, sorted(found)))}")
        for i, lam in enumerate(lams):
            mean = table[:, i].mean(axis=0)
            sd = table[:, i].std(axis=0, ddof=1) if len(table) > 1 else np.full(2, np.nan)
            both = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, sd, strict=True)]
            print(f"  λ = {lam:<6g} precision {both[0]}  recall {both[1]}")
        for k, name in enumerate(("precision", "recall")):
            each = [float(spearmanr(lams, one[:, k]).statistic) for one in table]
            print(f"  Spearman of λ with {name}: {', '.join(f'{r:+.2f}' for r in each)}")
        volumes[workdir] = np.array([area.hypervolume(one[:, 0], one[:, 1]) for one in table])
        print(f"  hypervolume {', '.join(f'{v:.3f}' for v in volumes[workdir])}")
    first, *others = volumes
    for other in others:
        ratio = volumes[first] / volumes[other]
        each = ", ".join(f"{r:.3f}" for r in ratio)
        names = f"{Path(first).name} over {Path(other).name}"
        print(f"hypervolume of {names}: {ratio.mean():.3f} ({each})")


if __name__ == "__main__":
    main()
