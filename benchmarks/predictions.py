"""What fine-tuning reached on several data sets, and how well the others would have guessed it.

    python benchmarks/predictions.py --workdir=runs/experience

Fine-tunes digits (configs/digits.py) and the planar data of configs/toy_2d.py, three seeds each;
what is finished in the workdir is reused. Printed are the rows of `experience.MEASURED` (shifts of
logit precision and logit recall from the base, by λ), and, each data set left out in turn:

  held       share of (data set, λ) whose value lay in the interval that the others give
  error      mean |guess − reached|
  as it is   mean |base − reached|: the error of saying that nothing changes

About 15 minutes on two CPU cores.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prpr import choosing, config, run
from prpr.predict import experience
from prpr.predict.experience import METRICS, Finished

LAMS = (0.05, 0.2, 1.0, 5.0, 20.0)
PLANAR = ("ring8", "two_moons", "grid25", "skewed")


def configurations() -> dict[str, config.Config]:
    """{data set: its fine-tune}."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from configs import digits, toy_2d

    made = {"digits": digits.get_config()}
    for name in PLANAR:
        cfg = toy_2d.get_config()
        cfg.data.name, cfg.lams = name, LAMS
        made[name] = cfg
    for cfg in made.values():
        cfg.seeds = (0, 1, 2)
    return made


def left_out(folders: dict[str, Path], finished: Sequence[Finished], level: float) -> list[str]:
    """The lines of the comparison."""
    held: dict[str, list[bool]] = {m: [] for m in METRICS}
    errors: dict[str, list[tuple[float, float]]] = {m: [] for m in METRICS}
    for one in finished:
        others = [other for other in finished if other is not one]
        rows = choosing.read([folders[one.name]]).rows
        for lam in one.shifts:
            shifts = experience.guess(others, lam, level)
            if shifts is None:
                continue
            for metric, shift in zip(METRICS, shifts, strict=True):
                base = np.mean([r.metrics[metric].value for r in rows if r.name == "base"])
                reached = np.mean([r.metrics[metric].value for r in rows if r.lam == lam])
                value, low, high = shift.of(float(base))
                held[metric].append(bool(low <= reached <= high))
                errors[metric].append((abs(value - reached), abs(base - reached)))
    lines = []
    for metric in METRICS:
        guess, still = np.mean(errors[metric], axis=0)
        lines.append(
            f"{metric:<10} held {np.mean(held[metric]):.2f} of {len(held[metric])} (level "
            f"{level:g})   error {guess:.3f}   as it is {still:.3f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/experience")
    parser.add_argument("--level", type=float, default=0.95)
    args = parser.parse_args()
    folders = {name: Path(args.workdir) / name for name in configurations()}
    for name, cfg in configurations().items():
        run.finetune(cfg, folders[name])
    finished = [experience.of_workdir(folders[name], name) for name in folders]
    print("\nMEASURED = (")
    for one in finished:
        print(f'    Finished("{one.name}", {{')
        for lam, (precision, recall) in sorted(one.shifts.items()):
            print(f"        {lam:g}: ({precision:.3f}, {recall:.3f}),")
        print("    }),")
    print(")\n")
    print("\n".join(left_out(folders, finished, args.level)))


if __name__ == "__main__":
    main()
