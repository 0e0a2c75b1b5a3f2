"""Storage that fails or stalls now and then: tries again for a while, and says what is waited for.

    data = retry(lambda: read(path), path)

What fails for a reason that may pass is tried again, at growing intervals, for about two minutes;
a warning tells of the first failure. Whatever takes long is told too, with its name. Tenacity could
do the trying, in more lines; which errors may pass, and what stalls without one, no library knows.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)  # seconds between tries

_STALL = 30.0  # seconds until one is told what is waited for; then after twice as long, ...
_LOOK = 1.0  # seconds between looks for what takes long

# What trying again does not mend. All other errors of the operating system may be a server's.
_LASTING = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EEXIST, errno.EINVAL),
}
_PASSING_CODES = (2, 4, 10, 14)  # of TensorFlow: unknown, deadline exceeded, aborted, unavailable
_PASSING_NAMES = re.compile(r"\b(DEADLINE_EXCEEDED|ABORTED|UNAVAILABLE):")  # in TensorStore's words

_skipping = False  # whether the process has been asked to end, see `skip_delays`
_running: dict[int, tuple[float, str]] = {}  # what goes on: since when, and its name
_start_lock = threading.Lock()
_reminder: threading.Thread | None = None
_log = logging.getLogger(__name__)

T = TypeVar("T")


def retry(function: Callable[[], T], what: str, delays: Sequence[float] = DELAYS) -> T:
    """The function's result; tries again where it fails for a reason that may pass.

    Args:
      function: reads or writes something, and does no harm when it is called again.
      what: names that for people, such as a path.
      delays: seconds between the tries, each of which is shortened at random by up to half.

    Raises:
      Exception: the last try's.
    """
    for number, delay in enumerate(delays):
        try:
            with watched(what):
                return function()
        except Exception as error:
            if not is_transient(error):
                raise
            if number == 0:
                _log.warning("%s: %s; trying again for %.0f s", what, error, sum(delays))
        _sleep(delay * random.uniform(0.5, 1.0))  # not all processes at the same moment
    with watched(what):
        return function()


def skip_delays(asked: bool) -> None:
    """Has all threads try without delays, because the process has been asked to end; or not.

    A reader in another thread would have the end wait for two minutes. A signal handler may call
    this: nothing is locked, as a `threading.Event` would be.
    """
    global _skipping
    _skipping = asked


def is_transient(error: Exception) -> bool:
    """Whether an error is of a kind that trying again may mend."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _LASTING
    if (code := getattr(error, "error_code", None)) is not None:
        return code in _PASSING_CODES
    return bool(_PASSING_NAMES.search(str(error)))


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while not _skipping and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK))


@contextlib.contextmanager
def watched(what: str) -> Iterator[None]:
    """Says what is waited for, if the block takes long."""
    _start_reminder()
    key = threading.get_ident()
    before = _running.get(key)
    _running[key] = (time.monotonic(), what)
    try:
        yield
    finally:
        if before is None:
            del _running[key]
        else:
            _running[key] = before


def _start_reminder() -> None:
    global _reminder
    if _reminder is None:
        with _start_lock:
            if _reminder is None:
                _reminder = threading.Thread(target=_remind, name="stalls", daemon=True)
                _reminder.start()


def _remind() -> None:
    due: dict[tuple[float, str], float] = {}  # seconds after which one is told again
    while True:
        time.sleep(_LOOK)
        now = time.monotonic()
        going_on = set(_running.copy().values())
        due = {each: due.get(each, _STALL) for each in going_on}
        for each in going_on:
            start, what = each
            if now - start >= due[each]:
                _log.warning("still waiting for %s, since %.0f s", what, now - start)
                due[each] *= 2
