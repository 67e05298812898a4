"""What λ does on skewed and noisy data, on few data, and with bad settings.

    python benchmarks/robustness.py --workdir=DIR                            everything: many hours
    python benchmarks/robustness.py --workdir=DIR --conditions=clean,rare_1 --seeds=0
    python benchmarks/robustness.py --workdir=DIR --variants=default,r1r2 --lams=0.2,1,5,20
    python benchmarks/robustness.py --workdir=DIR --smoke                    three conditions, tiny
    python benchmarks/robustness.py --workdir=DIR --report_only              from what was measured

`robust.conditions` says what is spoiled, `robust.variants` how the fine-tune is set, and
`robust.measure` what is read off. Each condition has a base, trained on its own bad data, from
which every λ and variant starts, and a hinge and a logistic control (as many further updates
without λ). Validation data are spoiled as training data are; the test split is clean.

The same command goes on where it ended, and what other conditions, λ and seeds gave stays in the
result: DIR/robustness.json (all runs), .md (means over seeds, also printed) and .png (heat map; of
another variant robustness-VARIANT.png), and variants.png: what each variant changes.
A run that fails is a row with its error. The default variant alone is run unless --variants names
more; controls are run in any case.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust import conditions, figure, measure, runs, table, variants
from robust.runs import Plan, Row

from prpr import errors, plotting, record

SMOKE = ("clean", "noise_10", "ring_rare_1")


def _key(row: Row) -> tuple[Any, ...]:
    return row["condition"], row["variant"], row["name"], row["seed"]


def stored(workdir: Path) -> list[Row]:
    """The rows of DIR/robustness.json; none where there is no such file."""
    path = workdir / "robustness.json"
    return record.read_json(path)["rows"] if path.exists() else []


def keep(workdir: Path, new: Sequence[Row]) -> list[Row]:
    """Adds rows to DIR/robustness.json, in place of older ones of the same runs; all rows."""
    rows = {_key(row): row for row in (*stored(workdir), *new)}
    used = {conditions.get(row["condition"]).source for row in rows.values()}
    checks = {source.name: _checks(source) for source in sorted(used)}
    whole = {"rows": list(rows.values()), "checks": checks}
    record.write_json(workdir / "robustness.json", whole)
    return whole["rows"]


def _checks(source: conditions.Source) -> str:
    by = measure.yardstick(source)
    return (
        f"the classifier is right on {by.accuracy:.3f} of the test split; the rule for noise says "
        f"noise of {by.noise.on_odd:.3f} of fresh noise and {by.noise.on_clean:.3f} of the test "
        f"split, that for outliers of {by.outlier.on_odd:.3f} and {by.outlier.on_clean:.3f}."
    )


def report(workdir: Path) -> str:
    """Writes robustness.md and its figures from robustness.json; returns the page.

    Raises DataError where there is nothing to report.
    """
    rows = stored(workdir)
    if not rows:
        raise errors.DataError(f"{workdir} has no robustness.json with runs: run it first")
    page = table.markdown(rows, record.read_json(workdir / "robustness.json")["checks"])
    record.write_bytes(workdir / "robustness.md", page.encode())
    lines = table.lines(rows)
    for variant in dict.fromkeys(line.variant for line in lines if line.lam is not None):
        name = "robustness" if variant == "default" else f"robustness-{variant}"
        plotting.save(figure.heat_map(lines, variant), workdir / name, formats=("png",))
    changes = table.effects(rows)
    if changes:
        plotting.save(figure.changes(changes), workdir / "variants", formats=("png",))
    return page


def run_condition(plan: Plan, condition: str, names: Sequence[str]) -> None:
    """Base, variants and controls of one condition; its rows are kept as they come."""
    start = time.monotonic()
    rows, failed = runs.make_base(plan, condition)
    rows += [
        runs.failed_row(condition, "base", None, seed, error) for seed, error in failed.items()
    ]
    keep(plan.workdir, rows)
    seeds = [seed for seed in plan.seeds if seed not in failed]
    for name in names:
        if not variants.fits(condition, name):
            print(f"{condition}, {name}: not for points", file=sys.stderr, flush=True)
            continue
        if seeds:
            keep(plan.workdir, runs.make_variant(plan, condition, name, seeds))
        said = f"{condition}, {name}: done, {time.monotonic() - start:.0f} s since its base began"
        print(said, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, a few conditions")
    parser.add_argument("--conditions", help=f"of {', '.join(conditions.CONDITIONS)}")
    parser.add_argument("--variants", default="default", help=f"of {', '.join(variants.VARIANTS)}")
    parser.add_argument("--seeds", help="default 0,1,2")
    parser.add_argument("--lams", help="default 0.2,1,5,20")
    parser.add_argument("--report_only", action="store_true", help="train nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        every = SMOKE if args.smoke else tuple(conditions.CONDITIONS)
        chosen = args.conditions.split(",") if args.conditions else every
        names = [*args.variants.split(","), *variants.CONTROLS]
        seeds = tuple(map(int, (args.seeds or ("0" if args.smoke else "0,1,2")).split(",")))
        lams = tuple(
            map(float, (args.lams or ("0.2,1,5" if args.smoke else "0.2,1,5,20")).split(","))
        )
        for name in chosen:
            conditions.get(name)
        for name in names:
            variants.applied(conditions.settings(chosen[0]), name)
    except ValueError as error:  # a ConfigError is one
        parser.error(str(error))
    try:
        with conditions.registered(tuple(conditions.CONDITIONS)):
            if not args.report_only:
                plan = Plan(args.workdir.expanduser(), lams, seeds, args.smoke)
                for name in chosen:
                    run_condition(plan, name, names)
            print(report(args.workdir.expanduser()))
    except errors.PrprError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
