"""All checks, one after the other: told one by one, or the first that fails raised.

for finding in examine(setup, patience=10):
    print(finding.name, finding.text)
require(setup)
"""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread

from paligemma_lib.doctor.checks import CHECKS
from paligemma_lib.doctor.setup import Setup

_ASK_A_NETWORK = ("kaggle", "tokenizer")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
      name: of the check.
      passed: whether all is well.
      text: what was found, or what is wrong and its cure.
    """

    name: str
    passed: bool
    text: str


def examine(setup: Setup, patience: float) -> Iterator[Finding]:
    """Makes all checks, whether others pass or not.

    Args:
      setup: the run.
      patience: seconds for each that asks a network. What takes longer has failed.
    """
    told: dict[str, str] = {}  # problem -> the first check that met it
    for name, check in CHECKS.items():
        try:
            asks = name in _ASK_A_NETWORK
            said = _within(patience, check, setup) if asks else check(setup)
            yield Finding(name, True, said)
        except TimeoutError:
            yield Finding(name, False, f"no answer within {patience:g} s: check the network")
        except Exception as error:  # the checks' own, or whatever a library raises
            known = isinstance(error, (ValueError, OSError, ImportError))
            text = str(error) if known else f"{type(error).__name__}: {error}"
            first = told.setdefault(text, name)
            yield Finding(name, False, text if first == name else f"cannot be told: see {first}")


def require(setup: Setup) -> None:
    """Makes the same checks, and raises the first ValueError, OSError or ImportError."""
    for check in CHECKS.values():
        check(setup)


def _within(seconds: float, check: Callable[[Setup], str], setup: Setup) -> str:
    """Runs a check in a thread that is left behind when it takes too long."""
    outcome: Future[str] = Future()

    def run() -> None:
        try:
            outcome.set_result(check(setup))
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(seconds)
