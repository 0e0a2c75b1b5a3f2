"""Retries storage operations after transient errors, and reports operations that stall.

    data = retry(lambda: read(path), path)

An operation that fails with a transient error is retried at growing intervals for about two
minutes; the first failure is logged as a warning. An operation that stalls is logged with its name.
Tenacity could do the retries, in more lines, but no library knows which of these errors are
transient, or reports a stall without an error.
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

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)  # seconds between attempts

_STALL = 30.0  # seconds until the first warning of a stall; then 60, 120, ...
_LOOK = 1.0  # seconds between checks for stalls

# Permanent errors. All other errors of the operating system may come from a storage server.
_LASTING = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EEXIST, errno.EINVAL),
    *(errno.ELOOP, errno.ENXIO, errno.ENODEV),  # links in a circle; a socket; no such device
}
_PASSING_CODES = (2, 4, 10, 14)  # TensorFlow's UNKNOWN, DEADLINE_EXCEEDED, ABORTED, UNAVAILABLE
_PASSING_NAMES = re.compile(r"\b(DEADLINE_EXCEEDED|ABORTED|UNAVAILABLE):")  # as TensorStore says

_skipping = False  # whether the process has been asked to end; see `skip_delays`
_running: dict[int, tuple[float, str]] = {}  # thread -> start time and name of its operation
_start_lock = threading.Lock()
_reminder: threading.Thread | None = None
_log = logging.getLogger(__name__)

T = TypeVar("T")


def retry(function: Callable[[], T], what: str, delays: Sequence[float] = DELAYS) -> T:
    """Returns the function's result; calls it again after a transient error.

    Args:
      function: operation to retry; calling it again must do no harm.
      what: name of the operation for messages, such as a path.
      delays: seconds between the attempts; each is shortened at random by up to half.

    Raises:
      Exception: the error of the last attempt, or the first error that is not transient.
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
        _sleep(delay * random.uniform(0.5, 1.0))  # spreads the processes out
    # The last attempt: its error is raised.
    with watched(what):
        return function()


def skip_delays(asked: bool) -> None:
    """Makes all threads retry without delays while `asked`, as the process has been asked to end.

    Otherwise a reader in another thread could delay the end by two minutes. A signal handler may
    call this, because it takes no lock; `threading.Event.set` takes one, which the interrupted
    thread might hold.
    """
    global _skipping
    _skipping = asked


def is_transient(error: Exception) -> bool:
    """Returns whether an error is transient, so that a retry may succeed."""
    if isinstance(error, OSError):
        # Libraries raise an OSError without errno for bad content, such as Pillow's
        # UnidentifiedImageError, which no retry changes.
        return error.errno is not None and error.errno not in _LASTING
    if (code := getattr(error, "error_code", None)) is not None:
        return code in _PASSING_CODES
    return bool(_PASSING_NAMES.search(str(error)))


def _sleep(seconds: float) -> None:
    # In pieces of at most _LOOK seconds, so that `skip_delays` takes effect soon.
    end = time.monotonic() + seconds
    while not _skipping and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK))


@contextlib.contextmanager
def watched(what: str) -> Iterator[None]:
    """Logs a warning, and repeats it ever less often, while the block takes long."""
    _start_reminder()
    key = threading.get_ident()
    before = _running.get(key)  # of an outer `watched`, which this one hides
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
    # Checked again under the lock: two threads may both have found None.
    if _reminder is None:
        with _start_lock:
            if _reminder is None:
                _reminder = threading.Thread(target=_remind, name="stalls", daemon=True)
                _reminder.start()


def _remind() -> None:
    due: dict[tuple[float, str], float] = {}  # operation -> its age at the next warning
    while True:
        time.sleep(_LOOK)
        now = time.monotonic()
        # dict.copy is one step under the GIL; other threads change the dict all the time.
        going_on = set(_running.copy().values())
        due = {each: due.get(each, _STALL) for each in going_on}
        for each in going_on:
            start, what = each
            if now - start >= due[each]:
                _log.warning("still waiting for %s, after %.0f s", what, now - start)
                due[each] *= 2
