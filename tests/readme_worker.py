"""Runs commands of `paligemma` one after the other in one process, which imports and compiles once.

Reads the words of a command from each line of standard input, as JSON, and answers with a line: the
exit code, what was printed, and what was said on stderr.
"""

import contextlib
import io
import json
import os
import sys
import traceback

from paligemma_lib.cli.main import main


def run(words: list[str]) -> tuple[int, str, str]:
    """Runs a command as a process of its own would."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            code = main(words)
        except BaseException:  # a trace of the command's, for who reads the failure
            traceback.print_exc()
            code = -1
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for processes that a command starts
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
