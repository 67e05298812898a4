"""Every metric against the synthetic checks of arXiv 2505.22450, beside what was published.

    python benchmarks/metric_sanity.py                       N = 1000: 12 minutes in one process
    python benchmarks/metric_sanity.py --slow                by classifiers and k-means too: hours
    python benchmarks/metric_sanity.py --smoke               seconds: N = 200, one repeat
    python benchmarks/metric_sanity.py --paper               the paper's 51 points and 10 repeats
    python benchmarks/metric_sanity.py --metrics=recall,beta_0.1 --out=a.md --out=a.json

`sanity.checks` says what is drawn and which rule is whose. Failures are expected, as the paper's
title says: the table is there to show them. Both sets are standardised by the real set's columns
as in the paper, unless --raw is given. The JSON holds every value and the verdict of every rule.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sanity import checks, draws
from sanity.expected import EXPECTED, PUBLISHED
from sanity.rules import Verdict, View, together

from prpr import errors, metrics
from prpr.evaluate.conventions import CONVENTIONS
from prpr.metrics import registry
from prpr.progress import Progress

LETTER = {True: "T", False: "F", "low": "L", "high": "H", None: "–"}
OPTIONS = metrics.Options(groups=2)  # intervals are not used here, and cost time


def names_of(wanted: str | None, slow: bool) -> dict[str, str]:
    """{name: its entry in EXPECTED} of what is asked for, or of all that the checks apply to."""
    if wanted:
        return {name: entry_of(name) for name in wanted.split(",")}
    return {
        EXPECTED[entry].example or entry: entry
        for entry in registry.known()
        for one in [EXPECTED.get(entry)]
        if one and one.kind != "other" and not one.same and (slow or not one.slow)
    }


def _stem(entry: str) -> tuple[str, ...]:
    """What the names begin with that "alpha_<λ>" stands for; none for a plain name."""
    return (entry.split("<")[0],) if "<" in entry else ()


def entry_of(name: str) -> str:
    """The registered name that a metric's name belongs to."""
    registry.family_of(name)
    entries = [entry for entry in EXPECTED if name == entry or name.startswith(_stem(entry))]
    if not entries:
        raise errors.ConfigError(f"{name} has no entry in benchmarks/sanity/expected.py")
    entry = max(entries, key=len)
    if EXPECTED[entry].kind == "other":
        raise errors.ConfigError(f"no synthetic check applies to {name}: {EXPECTED[entry].why}")
    return entry


def standardised(real: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """All sets in units of the real set's columns, whose constant ones are only centred."""
    mean, scale = real.mean(axis=0), real.std(axis=0)
    scale[scale == 0] = 1
    return [(x - mean) / scale for x in (real, *others)]


def sweep(
    check: str,
    case: int,
    repeat: int,
    names: tuple[str, ...],
    plan: draws.Plan,
    raw: bool,
    seed: int,
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, str]]:
    """{name: its values over one case's sweep}, {family: seconds}, {name: the first error}."""
    one = checks.get(check)
    values: dict[str, list[float]] = {name: [] for name in names}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    last, real_stats = None, None
    for _, real, fake in checks.pairs(one, one.cases(plan)[case], seed, repeat):
        x, y = (real, fake) if raw else standardised(real, fake)
        # What is known of the real set, such as its neighbours, is kept with its statistics.
        if real is not last or real_stats is None:
            last, real_stats = real, metrics.statistics(x)
        fake_stats = metrics.statistics(y)
        for family in registry.families():
            own = [name for name in names if registry.family_of(name).title == family.title]
            if not own:
                continue
            start = time.perf_counter()
            try:
                found = metrics.measure(own, real_stats, fake_stats, OPTIONS).metrics
                for name in own:
                    values[name].append(found[name].value)
            except errors.DataError as error:
                for name in own:
                    values[name].append(float("nan"))
                    failed.setdefault(name, str(error))
            seconds[family.title] = seconds.get(family.title, 0) + time.perf_counter() - start
    return values, seconds, failed


def _results(tasks: list[tuple[str, int, int]], rest: tuple[Any, ...], jobs: int) -> Iterator[Any]:
    """(task, what `sweep` gives for it), in any order."""
    if jobs == 1:
        yield from ((task, sweep(*task, *rest)) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {pool.submit(sweep, *task, *rest): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def run(
    names: dict[str, str], plan: draws.Plan, repeats: int, raw: bool, seed: int, jobs: int
) -> dict[str, Any]:
    """All checks: values (mean over repeats), verdicts of rules and of desiderata, seconds."""
    tasks = [
        (check.name, case, repeat)
        for check in checks.CHECKS
        for case in range(len(check.cases(plan)))
        for repeat in range(repeats)
    ]
    # The largest first, so that no process is left with a long one at the end.
    tasks.sort(key=lambda task: not task[0].startswith("cube"))
    rest = (tuple(names), plan, raw, seed)
    found: dict[tuple[str, int], list[dict[str, list[float]]]] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    start = time.monotonic()
    with Progress(len(tasks), "sweeps") as shown:
        for (check, case, _), (values, spent, met) in _results(tasks, rest, jobs):
            found.setdefault((check, case), []).append(values)
            failed = met | failed
            for title, some in spent.items():
                seconds[title] = seconds.get(title, 0) + some
            shown.update()
    return {
        "checks": {
            check.name: judged(check, names, plan, [found[check.name, c] for c in range(cases)])
            for check in checks.CHECKS
            for cases in [len(check.cases(plan))]
        },
        "kinds": {name: EXPECTED[entry].kind for name, entry in names.items()},
        "errors": failed,
        "seconds": {"all": time.monotonic() - start} | seconds,
    }


def judged(
    check: checks.Check,
    names: dict[str, str],
    plan: draws.Plan,
    found: list[list[dict[str, list[float]]]],
) -> dict[str, Any]:
    """One check: per metric the verdict of each desideratum, and all that led to it."""
    cases = check.cases(plan)
    out: dict[str, Any] = {"title": check.title, "metrics": {}}
    for name, entry in names.items():
        ruled: dict[str, list[Verdict]] = {desideratum: [] for desideratum in check.desiderata()}
        detail = []
        for case, repeats in zip(cases, found, strict=True):
            means = np.mean([values[name] for values in repeats], axis=0)
            view = View(EXPECTED[entry].kind, case.name, case.sweep, means)
            for rule, verdict in zip(check.rules, check.verdicts(view), strict=True):
                ruled[rule.desideratum].append(verdict)
                detail.append([case.name, rule.desideratum, rule.words, verdict])
            detail.append([case.name, "values", case.sweep.tolist(), means.tolist()])
        out["metrics"][name] = {
            "verdicts": {key: together(said) for key, said in ruled.items()},
            "detail": detail,
        }
    return out


def conventions() -> Iterator[tuple[str, str]]:
    """(name, k and N in words): numbers under one cannot be compared with those under another."""
    for name, one in CONVENTIONS.items():
        if name == "prpr":  # whose k this run has
            continue
        sizes = f"{one.n_real} real and {one.n_fake} fake samples"
        if not one.n_real:
            sizes = "the whole training set and as many fakes" if one.equal else "all samples"
        yield name, f"k={one.k}, k={one.k_coverage} for density and coverage, {sizes}"


def published(name: str) -> dict[tuple[str, str], str]:
    """{(check, desideratum): T, F, L or H}, empty for a metric that the paper does not have."""
    keys = [(check.name, one) for check in checks.CHECKS for one in check.desiderata()]
    letters = PUBLISHED.get(name, "").replace(" ", "")
    return dict(zip(keys, letters, strict=True)) if letters else {}


def markdown(result: dict[str, Any], about: dict[str, str], beside: bool = True) -> str:
    """The tables, one for each kind of metric; `beside`: with the published verdicts."""
    lines = ["# Synthetic checks of arXiv 2505.22450", ""]
    lines += [f"- {key}: {text}" for key, text in about.items()]
    lines += [f"- convention `{name}`, not this run's: {text}" for name, text in conventions()]
    lines += [
        "- T pass, F fail; L, H: pass as a diversity metric that calls too wide fakes low or high; "
        "–: the rules say nothing of this kind of metric",
    ]
    if beside:
        lines += [
            "- in brackets: published for the same metric (repository's notebook, whose seeds "
            "could not be repeated)"
        ]
    for kind in dict.fromkeys(result["kinds"].values()):
        names = [name for name, of in result["kinds"].items() if of == kind]
        lines += ["", f"## {kind}", "", f"| check | desideratum | {' | '.join(names)} |"]
        lines += ["|---" * (2 + len(names)) + "|"]
        for check in checks.CHECKS:
            found = result["checks"][check.name]["metrics"]
            for one in check.desiderata():
                cells = []
                for name in names:
                    theirs = published(name).get((check.name, one)) if beside else None
                    letter = LETTER[found[name]["verdicts"][one]]
                    cells.append(letter + (f" ({theirs})" if theirs else ""))
                if set(cells) == {LETTER[None]}:
                    continue
                words = f"{one} {checks.DESIDERATA[one]}"
                lines.append(f"| {check.title} | {words} | {' | '.join(cells)} |")
        lines += [f"| passed | of those that apply | {' | '.join(map(_score(result), names))} |"]
    lines += [""]
    if beside:
        lines += [f"- {_agreement(result, name)}" for name in result["kinds"] if published(name)]
    lines += [
        f"- {name}: fails where it cannot be computed: {e}" for name, e in result["errors"].items()
    ]
    spent = ", ".join(f"{title} {s:.0f} s" for title, s in result["seconds"].items())
    return "\n".join([*lines, f"- time (of families: summed over processes): {spent}", ""])


def _verdicts(result: dict[str, Any], name: str) -> dict[tuple[str, str], str]:
    return {
        (check, one): LETTER[verdict]
        for check, found in result["checks"].items()
        for one, verdict in found["metrics"][name]["verdicts"].items()
    }


def _score(result: dict[str, Any]) -> Any:
    def score(name: str) -> str:
        said = [letter for letter in _verdicts(result, name).values() if letter != "–"]
        return f"{sum(letter != 'F' for letter in said)}/{len(said)}"

    return score


def _agreement(result: dict[str, Any], name: str) -> str:
    ours, theirs = _verdicts(result, name), published(name)
    other = [
        f"{check} {one}: {ours[check, one]} ({theirs[check, one]})"
        for check, one in theirs
        if ours[check, one] != theirs[check, one]
    ]
    differ = f"; differs in {', '.join(other)}" if other else ""
    return f"{name}: {len(theirs) - len(other)} of {len(theirs)} as published{differ}"


def write(path: str, text: str) -> None:
    """The file appears when it is whole."""
    fresh = Path(path).with_name(f"tmp.{os.getpid()}.{Path(path).name}")
    fresh.write_text(text)
    os.replace(fresh, path)


def main(arguments: list[str] | None = None) -> int:
    head, _, tail = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=tail, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="N=200, one repeat, short sweeps")
    size.add_argument("--paper", action="store_true", help="the paper's sweeps, 10 repeats")
    parser.add_argument("--metrics", help="names, by comma; without: all that the checks apply to")
    parser.add_argument("--slow", action="store_true", help="also those of a second a pair")
    parser.add_argument("--repeats", type=int, help="draws of each case (2; --paper: 10)")
    parser.add_argument("--points", type=int, help="of a sweep, odd (11; --smoke: 5; --paper: 51)")
    parser.add_argument("--raw", action="store_true", help="do not standardise columns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--out", action="append", default=[], help="FILE.md or FILE.json; repeatable"
    )
    given = parser.parse_args(arguments)
    for path in given.out:
        if Path(path).suffix not in (".md", ".json") or not Path(path).parent.is_dir():
            parser.error(f"--out={path} must be a .md or .json in a folder that exists")
    plan = draws.SMOKE if given.smoke else draws.PAPER if given.paper else draws.FULL
    for flag in ("repeats", "jobs"):
        if (value := getattr(given, flag)) is not None and value < 1:
            parser.error(f"--{flag}={value} must be >= 1")
    if given.points is not None:
        if given.points < 3 or given.points % 2 == 0:
            parser.error(f"--points={given.points} must be odd, for a middle, and >= 3")
        plan = plan._replace(points=given.points)
    repeats = given.repeats or (1 if given.smoke else 10 if given.paper else 2)
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes
    try:
        names = names_of(given.metrics, given.slow)
    except errors.ConfigError as error:
        parser.error(str(error))
    result = run(names, plan, repeats, given.raw, given.seed, given.jobs)
    about = {
        "this run": f"N = {plan.n} (cubes and sphere-torus {plan.n // 10} to {10 * plan.n}), "
        f"{plan.points} points a sweep, mean of {repeats} repeats, seed {given.seed}",
        "neighbours": f"k={OPTIONS.k} for precision and recall, k={OPTIONS.k_dc} for density and "
        "coverage, as in the paper",
        "columns": "as drawn" if given.raw else "standardised by the real set, as in the paper",
    }
    # The rules are made for N = 1000: at a smoke run's N their verdicts cannot be compared.
    page = markdown(result, about, beside=not given.smoke)
    print(page)
    for path in given.out:
        text = page if path.endswith(".md") else json.dumps({"about": about, **result}, indent=1)
        write(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
