"""Runs all checks of a run: yields each finding, or raises one error with all failures.

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

_ASK_A_NETWORK = ("kaggle", "hugging_face", "tokenizer")


class ChecksFailed(ValueError):
    """Raised for a run that cannot start; the message lists everything to fix."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
      name: name of the check.
      passed: whether the check passed.
      text: what the check found, or what is wrong and how to fix it.
      first: name of the earlier check that failed with the same error; empty if there is none.
    """

    name: str
    passed: bool
    text: str
    first: str = ""


def run_checks(setup: Setup, timeout: float = math.inf) -> Iterator[Finding]:
    """Runs all checks and yields their findings; a failure does not stop later checks.

    Args:
      setup: the run.
      timeout: seconds for each check that uses the network. A check that takes longer fails.
    """
    # Several checks fail with one error when they open the same broken file. Only the first of them
    # reports it.
    told: dict[str, str] = {}  # message of an error -> the first check that raised it
    for name, check in CHECKS.items():
        try:
            limited = timeout < math.inf and name in _ASK_A_NETWORK
            said = _within(timeout, check, setup) if limited else check(setup)
            yield Finding(name, True, said)
        except Exception as error:  # a library may raise anything
            known = isinstance(error, (ValueError, OSError, ImportError))
            text = str(error) if known else f"{type(error).__name__}: {error}"
            first = told.setdefault(text, name)
            if first == name:
                yield Finding(name, False, text)
            else:
                yield Finding(name, False, f"same error as {first}", first)


def require(setup: Setup) -> None:
    """Runs the same checks; raises ChecksFailed with all failures, each cause once."""
    failed = [each for each in run_checks(setup) if not each.passed and not each.first]
    if failed:
        count = f"{len(failed)} checks fail" if len(failed) > 1 else "a check fails"
        lines = "".join(f"\n  {each.name}: {each.text}" for each in failed)
        raise ChecksFailed(f"the run cannot start, since {count}:{lines}")


def _within(seconds: float, check: Callable[[Setup], str], setup: Setup) -> str:
    """Runs a check with a timeout, in a thread that is abandoned when the time is over."""
    outcome: Future[str] = Future()

    def run() -> None:
        try:
            outcome.set_result(check(setup))
        except BaseException as error:
            outcome.set_exception(error)

    # Python cannot stop a thread. A daemon thread does not keep the program from exiting.
    Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise  # the check itself raised TimeoutError, as a network library may
        raise TimeoutError(f"no answer within {seconds:g} s: check the network") from None
