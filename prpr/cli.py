"""The command line of experiments/: flags, a configuration, and errors that can be read.

    _CONFIG = cli.define_config("configs/digits.py")         # --config, --config.KNOB=VALUE
    _WORKDIR = flags.DEFINE_string("workdir", None, "...")

    def main() -> None:
        run.train(_CONFIG.value, _WORKDIR.value)

    if __name__ == "__main__":
        cli.run(main)

What a user can get wrong ends with one line, "error: ...", on standard error and an exit
code: 2 for what was asked for (flags, knobs, the config file), 1 for what was met on the way
(data, checkpoints, the workdir), 3 if a run could not be kept healthy, 75 after SIGTERM (all
is saved), 130 after Ctrl-C. Notes that an error carries follow, a line each. Any other
exception is a bug of this code and keeps its traceback.

On top of `ml_collections.config_flags`: tuples are written plainly (--config.lams=0.2,1,5)
and keep the type of their elements; an unknown knob names the nearest one; the config file
may stand anywhere in the line; its mistakes name file and line.
"""

import ast
import difflib
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import tuple_parser

from prpr.errors import ConfigError, PrprError, notes, unknown_name

# Flags that are defined here belong to the experiment that calls, also in --help.
flags.disclaim_key_flags()

_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def define_config(
    default: str,
    name: str = "config",
    flag_values: flags.FlagValues = flags.FLAGS,
    *,
    kind: str = "",
    follows: str = "",
) -> flags.FlagHolder:
    """Defines --config=FILE.py[:ARGUMENT] and an override for each of its knobs.

    Nothing is loaded before `run`, so that every mistake is reported there.

    Args:
      default: the file that is used if none is named.
      name: the flag's name.
      flag_values: where to define it.
      kind: what is asked of a file that holds several kinds of configuration: FILE.py is read as
        FILE.py:KIND, and FILE.py:ARGUMENT as FILE.py:KIND_ARGUMENT.
      follows: another such flag, whose file is taken if none is named.

    Returns:
      A holder; its `value` is the locked ConfigDict once `run` has parsed the flags.
    """
    holder = config_flags.DEFINE_config_file(
        name, None, f"file of the configuration; default {default}", flag_values
    )
    flag_values[name].parser = _ConfigParser(name, default, kind, follows)
    return holder


def define_cluster(flag_values: flags.FlagValues = flags.FLAGS) -> Callable[[], Any]:
    """Defines the flags by which a process joins others in one training run.

    Returns:
      A function that gives the `processes.Cluster` that the flags describe, or None without
      --distributed or --coordinator; call it once `run` has parsed the flags.
    """
    alone = flags.DEFINE_bool(
        "distributed",
        False,
        "train in several processes together; on a TPU slice or under SLURM this flag is enough",
        flag_values=flag_values,
    )
    coordinator = flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of the first of the processes", flag_values=flag_values
    )
    processes = flags.DEFINE_integer(
        "processes", 0, "how many processes there are", flag_values=flag_values
    )
    process_id = flags.DEFINE_integer(
        "process_id", -1, "the number of this one, from 0", flag_values=flag_values
    )

    def cluster() -> Any:
        given = (coordinator.value, processes.value, process_id.value)
        if not alone.value and given == ("", 0, -1):
            return None
        from prpr.processes import Cluster  # after the flags: JAX takes a second to import

        return Cluster(*given)

    return cluster


def run(
    main: Callable[[], Any],
    argv: Sequence[str] | None = None,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> NoReturn:
    """Parses the flags, calls `main()` and exits with its code (None counts as 0).

    Args:
      main: takes no arguments; reads the flags' holders.
      argv: the command line, program first; `sys.argv` if None.
      flag_values: where the flags are defined.

    Raises:
      SystemExit: always, unless `main` raises what is neither a `PrprError` nor Ctrl-C.
    """
    argv = list(sys.argv if argv is None else argv)
    options = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    if {"-h", "--h", "--help"} & set(options):
        print(_help(main, argv, flag_values))
        sys.exit(0)
    debug = "--debug" in options
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's and TensorStore's banners
    try:
        _parse(argv, flag_values)
        sys.exit(main())
    except PrprError as error:
        if debug:
            traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        _tell(f"error: {' '.join(lines)}", error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        if debug:
            traceback.print_exc()
        _tell("interrupted; the same command resumes", error)
        sys.exit(130)


def _tell(line: str, error: BaseException) -> None:
    """Prints a line and below it the error's notes: what else went wrong, such as a lost save."""
    print("\n".join([line, *notes(error)]), file=sys.stderr)


# ---- parsing --------------------------------------------------------------------------


def _parse(argv: list[str], flag_values: flags.FlagValues) -> None:
    """Parses all flags; every failure is a ConfigError."""
    if "debug" not in flag_values:
        flags.DEFINE_bool(
            "debug", False, "show the traceback of every error", flag_values=flag_values
        )
    found: list[Any] = [flag_values[name].parser for name in flag_values]
    parsers = [parser for parser in found if isinstance(parser, _ConfigParser)]
    for parser in parsers:
        argv = parser.prepare(argv)
    config_flags.register_flag_parser_for_type(tuple, _TupleParser())
    before = sys.argv
    sys.argv = argv  # config_flags looks for overrides there
    try:
        rest = flag_values(argv)[1:]
    except ConfigError:
        raise
    except _ConfigFileError as error:
        raise error.reason from error.__cause__
    except flags.IllegalFlagValueError as error:
        raise _illegal(str(error), parsers) from error
    except flags.Error as error:
        raise ConfigError(f"{error} (--help lists the flags)") from error
    except Exception as error:  # config_flags raises all kinds for a path that it cannot walk
        raise ConfigError(f"cannot use the flags: {type(error).__name__}: {error}") from error
    finally:
        sys.argv = before
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r}; settings are written --name=value")
    for parser in parsers:
        parser.finish(flag_values)
    _check_plan(flag_values)


# Flags of `planner.define_flags` that mean nothing without --plan, and those of
# `define_cluster`, which mean nothing with it.
_OF_PLAN = ("probe", "plan_device", "price", "budget", "plan_json")
_OF_CLUSTER = ("distributed", "coordinator", "processes", "process_id")


def _check_plan(flag_values: flags.FlagValues) -> None:
    """Refuses what would be left unread: a price must not start the training it was to judge."""
    if "plan" not in flag_values:
        return

    def given(names: Sequence[str]) -> list[str]:
        found = [flag_values[name] for name in names if name in flag_values]
        return [flag.name for flag in found if flag.present and flag.value is not False]

    if flag_values["plan"].value:
        for name in given(_OF_CLUSTER):
            raise ConfigError(
                f"--{name} with --plan: a plan is made in one process; leave it out, and name the "
                "devices with --plan_device."
            )
    else:
        for name in given(_OF_PLAN):
            raise ConfigError(f"--{name} goes with --plan.")


def _illegal(message: str, parsers: list["_ConfigParser"]) -> ConfigError:
    """Says what a knob takes instead of how Python failed to convert it."""
    match = re.match(r"flag (--([^=]*)=.*?): (.*)", message, flags=re.DOTALL)
    if not match:
        return ConfigError(message)
    shown, name, reason = match.groups()
    for parser in parsers:
        value = parser.knobs.get(name.removeprefix(f"{parser.name}."))
        if type(value) in _KINDS:
            reason = f"the knob takes {_KINDS[type(value)]}, such as {value}"
    return ConfigError(f"{shown}: {reason}")


class _ConfigFileError(Exception):
    """Carries a ConfigError past absl, which would wrap it in words of its own."""

    def __init__(self, reason: ConfigError):
        super().__init__(str(reason))
        self.reason = reason


class _ConfigParser(flags.ArgumentParser):
    """Loads the file, and checks the names of the overrides against it."""

    def __init__(self, name: str, default: str, kind: str = "", follows: str = ""):
        super().__init__()
        self.name = name
        self.default = default
        self.kind = kind
        self.follows = follows
        self.knobs: dict[str, Any] = {}  # dotted name -> value in the file
        self._overrides: list[str] = []

    def prepare(self, argv: list[str]) -> list[str]:
        """The same line with --config=FILE first, as config_flags wants it."""
        end = argv.index("--") if "--" in argv else len(argv)
        chosen, others = [], []
        options = iter(argv[1:end])
        for option in options:
            bare = option.removeprefix("-").removeprefix("-")
            if option.startswith("-") and bare == self.name:
                bare = f"{self.name}={next(options, '')}"
            if option.startswith("-") and bare.startswith(f"{self.name}="):
                chosen.append(bare.split("=", 1)[1])
            else:
                others.append(option)
        if len(chosen) > 1:
            raise ConfigError(f"--{self.name} is given twice: {chosen[0]} and {chosen[1]}")
        pattern = re.compile(rf"--?(no)?{re.escape(self.name)}\.([^=]*)")
        self._overrides = [match[2] for match in map(pattern.match, others) if match]
        if self.follows and not chosen:
            given = rf"--?{re.escape(self.follows)}=(.*)"
            chosen = [match[1] for match in (re.fullmatch(given, one) for one in others) if match]
        path = chosen[0] if chosen else self.default
        return [argv[0], f"--{self.name}={path}", *others, *argv[end:]]

    def parse(self, argument: Any) -> ConfigDict:
        path = self._of_kind(str(argument))
        try:
            config = _load(path, self.name)
            self.knobs = _flatten(config)
            for override in self._overrides:
                _check_name(override, self.knobs, self.name, path)
        except ConfigError as error:
            raise _ConfigFileError(error) from error.__cause__
        config.lock()
        return config

    def _of_kind(self, path: str) -> str:
        """FILE.py[:ARGUMENT] with the kind in its argument."""
        file, _, argument = path.partition(":")
        if not self.kind or argument == self.kind or argument.startswith(f"{self.kind}_"):
            return path
        return f"{file}:{self.kind}" + (f"_{argument}" if argument else "")

    def flag_type(self) -> str:
        return "config file"

    def finish(self, flag_values: flags.FlagValues) -> None:
        """Gives the elements of overridden tuples the type that they have in the file."""
        for name in self._overrides:
            if isinstance(self.knobs.get(name), tuple):
                holder: Any = flag_values[self.name].value
                *parents, last = name.split(".")
                for parent in parents:
                    holder = holder[parent]
                holder[last] = _like(holder[last], self.knobs[name], f"--{self.name}.{name}")


# ---- the config file ------------------------------------------------------------------


def _load(path: str, flag: str) -> ConfigDict:
    """Runs get_config of FILE.py[:ARGUMENT]; every failure is a ConfigError."""
    name, *argument = path.split(":", 1)
    file = Path(name)
    if not file.is_file():
        near = difflib.get_close_matches(
            file.stem, [other.stem for other in file.parent.glob("*.py")], n=1, cutoff=0.5
        )
        hint = f" Did you mean {file.parent / near[0]}.py?" if near else ""
        where = "" if file.is_absolute() else f" below {Path.cwd()}"
        raise ConfigError(f"--{flag}={path}: there is no file {name!r}{where}.{hint}")
    if file.suffix != ".py":
        raise ConfigError(f"--{flag}={path}: a config file is a Python file, NAME.py[:ARGUMENT]")
    try:
        spec = importlib.util.spec_from_file_location(f"{flag}_file", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError("it has no function get_config")
        config = module.get_config(*argument)
    except ConfigError as error:
        raise ConfigError(f"--{flag}={path}: {error}") from error
    except Exception as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).absolute() == file.absolute():
                line = frame.lineno
        where = f" in line {line}" if line else ""
        raise ConfigError(f"--{flag}={path} fails{where}: {type(error).__name__}: {error}") from (
            error
        )
    if not isinstance(config, ConfigDict):
        got = type(config).__name__
        raise ConfigError(f"--{flag}={path}: get_config returns a {got}, not a ConfigDict")
    return config


def _flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{"train.steps": 100, ...}, without the groups themselves."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _check_name(override: str, knobs: dict[str, Any], flag: str, path: str) -> None:
    if override in knobs:
        if knobs[override] is None or isinstance(knobs[override], list | dict):
            kind = type(knobs[override]).__name__
            raise ConfigError(
                f"--{flag}.{override} is a {kind} and can only be changed in a config file"
            )
        return
    members = [knob for knob in knobs if knob.startswith(f"{override}.")]
    if members:
        raise ConfigError(
            f"--{flag}.{override} is a group of knobs; set one of: {', '.join(members)}"
        )
    # The names that could stand at the deepest level that exists.
    group, _, _ = override.rpartition(".")
    while group and not any(knob.startswith(f"{group}.") for knob in knobs):
        group, _, _ = group.rpartition(".")
    known = [knob for knob in knobs if not group or knob.startswith(f"{group}.")]
    raise unknown_name(f"knob in {path},", override, known)


# ---- tuples ---------------------------------------------------------------------------


class _TupleParser(tuple_parser.TupleParser):
    """Reads 0.2,1,5 and (0.2, 1, 5) and 5; numbers where they are numbers, else text."""

    def parse(self, argument: Any) -> tuple:
        if isinstance(argument, tuple):
            return argument
        if not isinstance(argument, str):
            return () if argument is None else (argument,)
        text = argument.strip()
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if text[:1] + text[-1:] in ("()", "[]"):
                text = text[1:-1]
            return tuple(_element(item.strip()) for item in text.split(",") if item.strip())
        return tuple(value) if isinstance(value, tuple | list) else (value,)


def _element(text: str) -> Any:
    """A number or text; "nan" and "inf" are numbers, left to the configuration's checks."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text.strip("'\"")


def _like(values: tuple, original: tuple, knob: str) -> tuple:
    """Gives the elements the type of those in the file, if that has a single one."""
    kinds = {type(item) for item in original}
    if len(kinds) != 1:
        return values
    (kind,) = kinds
    allowed = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}.get(kind)
    if allowed is None:
        return values
    words = {**_KINDS, str: "text"}[kind]
    for value in values:
        if not isinstance(value, allowed) or (kind is not bool and isinstance(value, bool)):
            example = ",".join(str(item) for item in original)
            raise ConfigError(f"{knob}: {value!r} is not {words}; write it as {knob}={example}")
    return tuple(kind(value) for value in values)


# ---- help -----------------------------------------------------------------------------


def _help(main: Callable, argv: list[str], flag_values: flags.FlagValues) -> str:
    """What the experiment is, its own flags, and how knobs are set."""
    module = sys.modules.get(main.__module__)
    lines = [((module and module.__doc__) or os.path.basename(argv[0])).strip(), "", "flags:"]
    rows = []
    for owner, owned in flag_values.flags_by_module_dict().items():
        if not owner.startswith(("absl.", "ml_collections.", "jax.", "tensorflow_datasets.")):
            rows += [flag for flag in owned if flag.name != "debug"]
    for flag in rows:
        value = "" if flag.default in (None, False) else f" (default {flag.default})"
        lines.append(f"  --{flag.name:<18} {flag.help}{value}")
        if isinstance(flag.parser, _ConfigParser):
            knob = f"{flag.name}.KNOB=VALUE"
            lines.append(f"  --{knob:<18} changes one of its knobs, as --{flag.name}.lams=0.2,1,5")
    lines.append(f"  --{'debug':<18} show the traceback of every error")
    return "\n".join(lines)
