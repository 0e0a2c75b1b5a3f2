"""Loads config files and applies changes from the command line, with ml_collections.

    config = load("my_config.py", ["--config.batch_size=16", "--config.lowercase"])
    config = load("flickr8k", [])                # a recipe of the library, by its name

A file has a function `get_config` that returns an `ml_collections.ConfigDict`:

    from paligemma_lib.run import base_config

    def get_config():
        config = base_config()                   # every field, at its default
        config.batch_size = 32
        return config
"""

import functools
import operator
import pkgutil
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from paligemma_lib.run import recipes
from paligemma_lib.run.config import FORMER, RunConfig
from paligemma_lib.run.options import ConfigError, options_of, parse, renamed, unknown

DEFAULT = "demo"
RECIPES = tuple(sorted(each.name for each in pkgutil.iter_modules(recipes.__path__)))

# "--config.stages[0].trainable=llm" -> field "stages", path in it "[0].trainable", text "llm".
_CHANGE = re.compile(r"--(?:no)?config\.([\w.]+)((?:\[\d+\])?[\w.\[\]]*)(?:=(.*))?", re.DOTALL)

# The whole dotted name behind "--config." or "--noconfig.", to be looked up in FORMER.
_CHANGE_NAME = re.compile(r"(?<=^--config\.)[\w.]+|(?<=^--noconfig\.)[\w.]+")


def base_config() -> ConfigDict:
    """Returns all fields of a run at their defaults, for `get_config` to change and return."""
    return ConfigDict(_completed({}, RunConfig().to_dict()))


def load(file: str = DEFAULT, changes: Sequence[str] = ()) -> RunConfig:
    """Reads a config file and applies changes to its fields.

    Args:
      file: path of a Python file, or the name of a recipe.
      changes: command-line arguments, such as --config.batch_size=16, --config.lowercase or
        --noconfig.lowercase.

    Raises:
      FileNotFoundError: the file or recipe does not exist.
      ConfigError: the file fails to run, fields are unknown, or values are wrong. Its message lists
        every problem.
    """
    given = renamed(_plain(_run(file).to_dict()), FORMER)
    config = ConfigDict(_completed(given, RunConfig().to_dict()))
    changes = [_CHANGE_NAME.sub(lambda found: FORMER.get(found[0], found[0]), c) for c in changes]
    known = [each.name for each in options_of(RunConfig)]
    problems, refused = [], []
    for change in changes:
        found = _CHANGE.fullmatch(change)
        name = found[1] if found else change
        if name not in known:
            problems.append(unknown(name, known))
        elif found and not _changed(config, change):
            refused.append((f"{name}{found[2]}", found[3] or ""))
    values = _plain(config.to_dict())
    # ml_collections does not say which values a field takes. So a text that it rejects is put into
    # the tree unchanged, and `parse` reports it together with what the field expects.
    for path, text in refused:
        *groups, last = [int(k) if k.isdecimal() else k for k in re.findall(r"\w+", path)]
        try:
            functools.reduce(operator.getitem, groups, values)[last] = text
        except (LookupError, TypeError):
            problems.append(f"{path}: does not exist")
    try:
        made = parse(RunConfig, values)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems, file)
    return made


def from_config_dict(config: ConfigDict) -> RunConfig:
    """Returns the config that a ConfigDict describes; raises ConfigError with all problems."""
    return parse(RunConfig, renamed(_plain(config.to_dict()), FORMER))


def split_changes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into arguments that change fields and all other arguments.

    A change whose value is a separate argument is joined to one argument:
    `--config.batch_size 16` becomes `--config.batch_size=16`.
    """
    switches = {each.name for each in options_of(RunConfig) if isinstance(each.default, bool)}
    changes: list[str] = []
    rest: list[str] = []
    waiting: Iterator[str] = iter(arguments)
    for each in waiting:
        if not each.startswith(("--config.", "--noconfig.")):
            rest.append(each)
        elif "=" in each or each.startswith("--no") or each.removeprefix("--config.") in switches:
            changes.append(each)
        else:
            changes.append("=".join([each, *[value for value in [next(waiting, None)] if value]]))
    return changes, rest


def _run(file: str) -> ConfigDict:
    """Runs a config file and returns the result of its `get_config`.

    As in big_vision, `FILE:TEXT` passes TEXT to `get_config` as its argument.
    """
    name, *given = file.split(":", 1)
    path = Path(recipes.__path__[0], f"{name}.py") if name in RECIPES else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"--config={file}: no such file or recipe; recipes are {', '.join(RECIPES)}"
        )
    folders = list(sys.path)
    sys.path.insert(0, str(path.absolute().parent.parent))  # configs import each other from here
    try:
        made = runpy.run_path(str(path))
        config = made["get_config"](*given) if "get_config" in made else None
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        lines = [f"line {each.lineno}: " for each in traceback.extract_tb(error.__traceback__)
                 if each.filename == str(path)]  # fmt: skip
        told = f"{''.join(lines[-1:])}{type(error).__name__}: {error}"
        raise ConfigError([told], file) from error
    finally:
        sys.path[:] = folders
    if not isinstance(config, ConfigDict):
        raise ConfigError(["expected a function get_config that returns a ConfigDict"], file)
    return config


def _changed(config: ConfigDict, change: str) -> bool:
    """Applies one change to the config; returns whether ml_collections accepts it."""
    # ml_collections changes a config through absl flags. A separate FlagValues leaves the global
    # flags of the calling program untouched.
    values, argv = flags.FlagValues(), ["config", change]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, ValueError, TypeError, LookupError, SyntaxError):
        return False
    return True


def _completed(given: Any, default: Any) -> Any:
    """Fills in missing fields, and casts values to types with which ml_collections parses text.

    ml_collections parses the text of a change by the type of the present value: where a float field
    holds the int 1, it rejects "0.5".
    """
    if isinstance(given, Mapping):
        known = default if isinstance(default, Mapping) else {}
        return {
            key: _completed(given.get(key, known.get(key)), known.get(key))
            for key in {**known, **given}
        }
    if isinstance(given, list | tuple):  # ml_collections can replace a tuple, but no list
        fields = default[0] if default and isinstance(default, list) else None
        group = fields if isinstance(fields, Mapping) else None
        return tuple(_completed(each, group) for each in given)
    return float(given) if type(given) is int and isinstance(default, float) else given


def _plain(value: Any) -> Any:
    """Converts a tree to types of JSON: tuples to lists, NumPy scalars to Python scalars."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
