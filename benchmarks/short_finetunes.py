"""How many of a hundred short fine-tunes collapse: default settings against published ones.

    python benchmarks/short_finetunes.py --workdir=DIR [--runs=100] [--seeds=0,1,2,3]
    python benchmarks/short_finetunes.py --workdir=DIR --settings=default --smoke

From the base of clean digits (DIR/bases/clean, which benchmarks/robustness.py also uses), 50 steps
of the critic and 100 of the generator, at λ from .05 to 50 on a log grid, as many for each seed.
Collapsed: a fatal alarm of `prpr.health`, or a last held-out recall proxy below a third of the
first, at its end. Runs that were given up, and those that went back after an alarm, are counted
apart. Printed with Wilson's 95 % intervals, and
written to DIR/short_finetunes.json; what is finished is not trained again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from robust import runs, short

from prpr import errors, record


def text(name: str, found: Sequence[short.Outcome]) -> str:
    """Lines on one setting: its counts, and where it collapsed."""
    lines = [f"{name}: {len(found)} short fine-tunes"]
    for what, (k, n, low, high) in short.counted(found).items():
        lines.append(f"  {what:<12} {k:>3} of {n}: {k / n:.3f} [{low:.3f}, {high:.3f}]")
    bad = [one for one in found if one.collapsed or one.error]
    for one in sorted(bad):
        why = one.error or ", ".join(one.fatal) or "recall lost"
        lines.append(f"    λ = {one.lam:g}, seed {one.seed}: {why}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--runs", type=int, help="of each setting; default 100")
    parser.add_argument("--seeds", help="of base and fine-tune; default 0,1,2,3")
    parser.add_argument("--settings", default=",".join(short.SETTINGS))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, two runs")
    args = parser.parse_args(arguments)
    names = args.settings.split(",")
    try:
        seeds = tuple(map(int, (args.seeds or ("0" if args.smoke else "0,1,2,3")).split(",")))
        for name in names:
            if name not in short.SETTINGS:
                raise errors.unknown_name("setting", name, short.SETTINGS)
    except ValueError as error:
        parser.error(str(error))
    each, rest = divmod(args.runs or (2 if args.smoke else 100), len(seeds))
    if rest or each < 2:
        parser.error(f"--runs must be a multiple of the {len(seeds)} seeds, and twice it at least")
    plan = runs.Plan(args.workdir.expanduser(), short.grid(each), seeds, args.smoke)
    try:
        _, failed = runs.make_base(plan, "clean")
        left = [seed for seed in seeds if seed not in failed]
        if not left:
            raise errors.PrprError(f"no base could be trained: {failed[seeds[0]]}")
        kept = {}
        for name in names:
            start = time.monotonic()
            found = short.outcomes(plan, name, left)
            kept[name] = {
                "seconds": round(time.monotonic() - start, 1),
                "counts": short.counted(found),
                "runs": [one._asdict() for one in found],
            }
            record.write_json(plan.workdir / "short_finetunes.json", kept)
            print(text(name, found), flush=True)
    except errors.PrprError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
