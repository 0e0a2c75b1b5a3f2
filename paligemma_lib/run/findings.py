"""All checks of a run, one after the other: each told, or everything that fails raised together.

for finding in run_checks(setup, timeout=10):
    print(finding.name, finding.text)
require(setup)
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread

from paligemma_lib.run.checks import CHECKS
from paligemma_lib.run.setup import Setup

_ASK_A_NETWORK = ("kaggle", "tokenizer")


class ChecksFailed(ValueError):
    """A run that cannot start; says all that has to be mended first."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
      name: of the check.
      passed: whether all is well.
      text: what was found, or what is wrong and its cure.
      first: the check that met the same problem before this one; empty: none.
    """

    name: str
    passed: bool
    text: str
    first: str = ""


def run_checks(setup: Setup, timeout: float = math.inf) -> Iterator[Finding]:
    """Makes all checks, whether others pass or not.

    Args:
      setup: the run.
      timeout: seconds for each that asks a network. What takes longer has failed.
    """
    told: dict[str, str] = {}  # problem -> the first check that met it
    for name, check in CHECKS.items():
        try:
            limited = timeout < math.inf and name in _ASK_A_NETWORK
            said = _within(timeout, check, setup) if limited else check(setup)
            yield Finding(name, True, said)
        except Exception as error:  # the checks' own, or whatever a library raises
            known = isinstance(error, (ValueError, OSError, ImportError))
            text = str(error) if known else f"{type(error).__name__}: {error}"
            first = told.setdefault(text, name)
            if first == name:
                yield Finding(name, False, text)
            else:
                yield Finding(name, False, f"cannot be told: see {first}", first)


def require(setup: Setup) -> None:
    """Makes the same checks; raises ChecksFailed with all that fail, each cause once."""
    failed = [each for each in run_checks(setup) if not each.passed and not each.first]
    if failed:
        count = f"{len(failed)} checks fail" if len(failed) > 1 else "a check fails"
        lines = "".join(f"\n  {each.name}: {each.text}" for each in failed)
        raise ChecksFailed(f"the run cannot start, since {count}:{lines}")


def _within(seconds: float, check: Callable[[Setup], str], setup: Setup) -> str:
    """Runs a check in a thread that is left behind when it takes too long."""
    outcome: Future[str] = Future()

    def run() -> None:
        try:
            outcome.set_result(check(setup))
        except BaseException as error:
            outcome.set_exception(error)

    # A thread cannot be stopped. As a daemon it does not keep the program from ending.
    Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise  # the check's own
        raise TimeoutError(f"no answer within {seconds:g} s: check the network") from None
