"""argparse in the style of `paligemma`: help that fits a screen, with all options of a run.

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

_WIDTH = 80
_FORM = functools.partial(argparse.RawDescriptionHelpFormatter, width=_WIDTH, max_help_position=24)


class Parser(argparse.ArgumentParser):
    """A parser for one subcommand; every one has --help and --verbose."""

    def __init__(self, prog: str, description: str, usage: str = "%(prog)s [options]") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=_wrapped(description),
            formatter_class=_FORM,
            allow_abbrev=False,
            add_help=False,
        )
        self._config_default: str | None = ""  # it takes none
        self._more: list[str] = []  # lines of help
        self.add_argument("-h", "--help", action=_Help, nargs="?", help=argparse.SUPPRESS)
        self.add_argument(
            "-v", "--verbose", action="store_true", help="what other libraries say, and tracebacks"
        )

    def takes_config(self, default: str | None = DEFAULT, purpose: str = "of the run") -> None:
        """Adds --config and --config.FIELD; the namespace gets a RunConfig as `config`."""
        self._config_default = default
        self.add_argument(
            "--config",
            default=default,
            metavar="FILE",
            help=f"{purpose}: a file, or a recipe: {', '.join(RECIPES)}"
            + (f" (default: {default})" if default else ""),
        )

    def takes_processes(self) -> None:
        """Adds what `processes.joined` wants, and --cpu."""
        from paligemma_lib.runtime.processes import OPTIONS

        self.add_argument("--cpu", action="store_true", help="compute on the CPU alone")
        for name, (kind, _) in OPTIONS.items():
            self.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
        self.tells("several processes, where no cluster tells them: --coordinator=HOST:PORT of the "
                   "first, --processes=N, --process=K of them from 0")  # fmt: skip

    def tells(self, text: str) -> None:
        """Adds a paragraph to the help, for options that belong together."""
        self._more += ["", *textwrap.wrap(text, _WIDTH, subsequent_indent="  ")]

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments. Exits with 2 where something is asked wrongly, and says what."""
        takes_none = self._config_default == ""
        changes, rest = ([], list(words)) if takes_none else split_changes(words)
        args = self.parse_intermixed_args(rest)  # options may stand before and behind files
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
        """Says what is wrong, and where to read on; not the usage, which is long."""
        print(f"{self.prog}: {message}\n(see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def format_help(self) -> str:
        """Options of a run by groups, each as it would be typed."""
        text = "\n".join([super().format_help().rstrip(), *self._more, ""])
        if not self._config_default:
            return text
        groups: dict[str, list[str]] = {}
        for each in options_of(RunConfig):
            group, _, name = each.name.rpartition(".")
            groups.setdefault(group, []).append(f"{name}={_typed(each)}")
        lines = ["options of a run, as --config.FIELD=VALUE (`--help FIELD`, or all, explains):"]
        for group, fields in groups.items():
            lines += textwrap.wrap(
                f"{group or 'run'}: {' '.join(fields)}", _WIDTH, initial_indent="  ",
                subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        return "\n".join([text, *lines, ""])


def _wrapped(text: str) -> str:
    """Paragraphs at the width of a terminal; indented lines, to be pasted, as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        each if each.startswith(" ") else textwrap.fill(each, _WIDTH) for each in paragraphs
    )


class _Help(argparse.Action):
    """--help prints the help of a command, --help FIELD what fields mean."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        print(explained(values) if values else parser.format_help(), end="")
        parser.exit()


def explained(field: str) -> str:
    """The fields whose names begin like that, or all: default, meaning, what they may be."""
    field = field.removeprefix("--config.").removeprefix("config.")
    lines = []
    for each in options_of(RunConfig):
        if field == "all" or each.name == field or each.name.startswith(f"{field}."):
            told = f"{each.meaning} ({each.expected})" if each.expected else each.meaning
            lines.append(f"--config.{each.name}={_typed(each)}")
            lines += textwrap.wrap(told, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "".join(f"{line}\n" for line in lines) or f"there is no field {field}: see --help\n"


def _typed(option: Option) -> str:
    """The default as one would type it."""
    value = option.default
    if option.name == "stages":
        return "..."
    if isinstance(value, str):
        return f"'{value}'" if " " in value else value
    return "()" if value == () else str(value)
