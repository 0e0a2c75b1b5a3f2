"""Parses command lines with argparse, with help that fits a screen and lists all config fields.

parser = Parser("paligemma doctor", __doc__)
parser.takes_config()                  # --config=FILE --config.batch_size=16
args = parser.read(words)
args.config                            # a RunConfig
"""

import argparse
import functools
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.config_files import DEFAULT, RECIPES, load, split_changes
from paligemma_lib.run.options import ConfigError, Option, options_of
from paligemma_lib.runtime.visible_text import told

_WIDTH = 80
_FORM = functools.partial(argparse.RawDescriptionHelpFormatter, width=_WIDTH, max_help_position=24)


class Parser(argparse.ArgumentParser):
    """A parser for one subcommand, with the options --help and --verbose."""

    def __init__(self, prog: str, description: str, usage: str = "%(prog)s [options]") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=_wrapped(description),
            formatter_class=_FORM,
            allow_abbrev=False,
            add_help=False,
        )
        self._config_default: str | None = ""  # "": no --config; None: --config has no default
        self._more: list[str] = []  # lines of help
        self.add_argument("-h", "--help", action=_Help, nargs="?", help=argparse.SUPPRESS)
        self.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="show tracebacks and logs of other libraries",
        )

    def takes_config(
        self, default: str | None = DEFAULT, purpose: str = "config of the run"
    ) -> None:
        """Adds --config and --config.FIELD; `read` returns a RunConfig as `args.config`.

        Args:
          default: the config if none is given; None: then `args.config` is None.
          purpose: what the command uses the config for, in the help, if that is not to begin a run.
        """
        self._config_default = default
        told = f"{purpose}: a file, or a recipe of `paligemma finetune`"
        if default:  # it begins something: so all are named
            told = f"a file, or a recipe: {', '.join(RECIPES)} (default: {default})"
        self.add_argument("--config", default=default, metavar="FILE", help=told)

    def takes_processes(self) -> None:
        """Adds --cpu and the arguments of `processes.joined`."""
        from paligemma_lib.runtime.processes import OPTIONS

        self.add_argument("--cpu", action="store_true", help="compute on the CPU only")
        for name, (kind, _) in OPTIONS.items():
            self.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
        self.tells("several processes, if JAX detects no cluster: --coordinator=HOST:PORT of "
                   "process 0, --processes=N, --process=K (from 0)")  # fmt: skip

    def tells(self, text: str) -> None:
        """Adds a paragraph to the help that explains several options together."""
        self._more += ["", *textwrap.wrap(text, _WIDTH, subsequent_indent="  ")]

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses arguments; on an error, prints it and exits with code 2."""
        takes_none = self._config_default == ""
        changes, rest = ([], list(words)) if takes_none else split_changes(words)
        args = self.parse_intermixed_args(rest)  # options may stand before and after files
        if changes and not args.config:
            self.error(f"{changes[0]} changes a config: give --config too")
        if not takes_none and args.config:
            args.config_file, args.changes = args.config, changes
            try:
                args.config = load(args.config, changes)
            except (ConfigError, FileNotFoundError) as error:
                self.error(str(error))
        return args

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and how to get help, without the long usage, and exits with 2."""
        print(f"{self.prog}: {told(message)}\n(see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def format_help(self) -> str:
        """Returns the help, with the fields of a config by group, each as a user would type it."""
        text = "\n".join([super().format_help().rstrip(), *self._more, ""])
        if not self._config_default:
            return text
        groups: dict[str, list[str]] = {}
        for each in options_of(RunConfig):
            group, _, name = each.name.rpartition(".")
            groups.setdefault(group, []).append(f"{name}={_typed(each)}")
        lines = ["options of a run, as --config.FIELD=VALUE (explained by `--help FIELD`, or all):"]
        for group, fields in groups.items():
            lines += textwrap.wrap(
                f"{group or 'run'}: {' '.join(fields)}", _WIDTH, initial_indent="  ",
                subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        return "\n".join([text, *lines, ""])


def _wrapped(text: str) -> str:
    """Wraps paragraphs at the terminal's width; leaves indented examples unchanged."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        each if each.startswith(" ") else textwrap.fill(each, _WIDTH) for each in paragraphs
    )


class _Help(argparse.Action):
    """The action of --help, which prints a command's help, and of --help FIELD."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        print(explained(values) if values else parser.format_help(), end="")
        parser.exit()


def explained(field: str) -> str:
    """Explains config fields: their defaults, meanings, choices and bounds.

    Args:
      field: name of a field or of a group of fields, or "all".
    """
    field = field.removeprefix("--config.").removeprefix("config.")
    lines = []
    for each in options_of(RunConfig):
        if field == "all" or each.name == field or each.name.startswith(f"{field}."):
            told = f"{each.meaning} ({each.expected})" if each.expected else each.meaning
            lines.append(f"--config.{each.name}={_typed(each)}")
            lines += textwrap.wrap(told, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "".join(f"{line}\n" for line in lines) or f"unknown field {field}: see --help\n"


def _typed(option: Option) -> str:
    """Returns the default of a field as a user would type it."""
    value = option.default
    if option.name == "stages":
        return "..."
    if isinstance(value, str):
        return f"'{value}'" if " " in value else value
    return "()" if value == () else str(value)
