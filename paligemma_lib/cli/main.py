"""Runs the subcommand that a command line names, and prints its errors in one line.

    code = main(["caption", "dog.jpg"])

The module of a subcommand has `configure(parser)`, `run(args) -> int` and perhaps USAGE. It imports
TensorFlow and JAX in `run`, so that help and usage errors appear at once. Exit codes: 0 success; 1
failed, or something was skipped; 2 wrong usage; 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import difflib
import importlib
import signal
import sys
from collections.abc import Sequence

import paligemma_lib
from paligemma_lib.cli.console import asked_wrongly, error_line, keep_others_quiet
from paligemma_lib.runtime.signals import exit_on_signals
from paligemma_lib.runtime.visible_text import visible

COMMANDS = {
    "finetune": "fine-tune a model to caption images; alone, a three-minute demo",
    "caption": "write captions for images",
    "serve": "serve captions over HTTP, in OpenAI's form",
    "evaluate": "caption images, and score the captions",
    "score": "score existing captions",
    "doctor": "check whether a run can start, and say what to fix",
    "plan": "predict, without TPUs, whether a run fits on them, and its speed",
    "sweep": "repeat a run with several values of a field, and compare",
    "convert": "write a checkpoint in another format, and compare both",
    "merge": "write a model with adapters merged into it, and certify it",
    "push": "put a model and its card on the Hugging Face Hub",
    "show": "describe a checkpoint, or say what is wrong with it",
    "data": "describe data, and say what is wrong with them",
    "coco-masks": "write COCO's masks as prompts to train on",
    "sample-data": "draw scenes with captions, to try things out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, by default `sys.argv`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"paligemma_lib {paligemma_lib.__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f"; did you mean {near[0]}?" if near else f"; commands are {', '.join(COMMANDS)}"
        print(f"paligemma: unknown command {visible(name)}{meant}", file=sys.stderr)
        return 2
    verbose = bool({"-v", "--verbose"} & set(rest))
    keep_others_quiet(verbose)  # before these libraries are imported
    try:
        with exit_on_signals():
            return _run(name, rest)
    except SystemExit as error:  # from the parser, which has printed why, or from a signal
        return error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        print(f"paligemma {name}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if verbose or (line := error_line(error)) is None:
            raise  # with its traceback: the user asked for it, or it is a bug of the program
        print(f"paligemma {name}: {line}", file=sys.stderr)
        return 2 if asked_wrongly(error) else 1


def _run(name: str, words: Sequence[str]) -> int:
    from paligemma_lib.cli.parser import Parser

    command = importlib.import_module(f"paligemma_lib.cli.{name.replace('-', '_')}")
    usage = getattr(command, "USAGE", "[options]")
    parser = Parser(f"paligemma {name}", command.__doc__ or "", f"%(prog)s {usage}")
    command.configure(parser)
    code: int = command.run(parser.read(words))
    return code


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {told}" for name, told in COMMANDS.items()]
    return "\n".join(
        [
            "usage: paligemma COMMAND ...",
            "",
            "Fine-tunes PaliGemma to caption images, and captions with it.",
            "",
            *lines,
            "",
            "`paligemma COMMAND --help` explains a command, `--version` prints the version.",
        ]
    )
