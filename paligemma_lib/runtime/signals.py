"""Ends a process on SIGTERM and Ctrl-C, also where Python or a library would swallow them.

with exit_on_signals():
    prepare()                               # a signal ends the process at once
    stop_if_asked()                         # between parts, in case something swallowed it

The first signal ends the process with exit code 130 (Ctrl-C) or 143 (SIGTERM), or is noted by a
block of `termination.Termination`, which saves first. A second Ctrl-C ends it at once.
"""

import _thread
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from paligemma_lib.runtime.retries import skip_delays

SIGNALS = (signal.SIGTERM, signal.SIGINT)

asked: list[int] = []  # signals that the handler of `exit_on_signals` has received

ONE_PRESS = 0.4  # seconds in which further SIGINTs are the same: some programs send two at a time
_PAUSE = 0.05  # seconds after which a signal that would be swallowed is sent again
_latest = 0.0  # when the last signal in `asked` came, by the monotonic clock
_again: list[int] = []  # signals that are sent again: no further press of Ctrl-C

# Python ignores an exception in a destructor, in a callback of the garbage collector, such as the
# one that JAX installs, and in a callback of a weak reference, such as those of the import system
# and of weakref, and prints its traceback.
_DESTRUCTORS = ("__del__", "_xla_gc_callback")
_CALLBACKS = (
    "_get_module_lock.<locals>.cb",
    "WeakSet.__init__.<locals>._remove",
    "WeakKeyDictionary.__init__.<locals>.remove",
    "WeakValueDictionary.__init__.<locals>.remove",
)
# Where a module in C++ begins, an exception in what it calls of Python ends the process by SIGABRT
# or SIGSEGV.
_FATAL = ("ExtensionFileLoader.create_module", "ExtensionFileLoader.exec_module")

_FIRST = b"\nCtrl-C: ending when it is safe; press Ctrl-C again to end at once\n"
_SECOND = b"\nCtrl-C again: ended at once\n"


def exit_code(number: int) -> int:
    """Returns the exit code of a process that a signal ended, as shells report it."""
    return 128 + number


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Makes SIGTERM and Ctrl-C end the process with their exit codes, while nothing is to save.

    A library may swallow the exception that ends the process. It then continues, and
    `stop_if_asked` or the next `Termination` ends it. A signal that is ignored, as Ctrl-C is in the
    background of a shell, stays ignored. In other threads than the main one, the block changes
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        each: signal.signal(each, _leave)
        for each in SIGNALS
        if signal.getsignal(each) is not signal.SIG_IGN
    }
    asked.clear()
    skip_delays(False)
    try:
        with _second_ctrl_c_ends_at_once() if signal.SIGINT in before else contextlib.nullcontext():
            yield
    except Exception as error:
        if asked:  # a library has turned the exception of a signal into one of its own
            raise SystemExit(exit_code(asked[0])) from error
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)
        # After a signal, retries still skip their delays: threads that read end with the process.
        skip_delays(bool(asked))
        asked.clear()


def stop_if_asked() -> None:
    """Raises SystemExit if a signal came whose exception was swallowed."""
    if asked:
        raise SystemExit(exit_code(asked[0]))


def _leave(number: int, frame: FrameType | None) -> None:
    if not _may_raise(frame):
        _thread.start_new_thread(_send_again, (number,))
        return
    global _latest
    now = time.monotonic()
    if asked and now - _latest < ONE_PRESS:
        return
    _latest = now
    asked.append(number)
    skip_delays(True)
    sys.exit(exit_code(number))


def _may_raise(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name in _DESTRUCTORS or code.co_qualname in _CALLBACKS + _FATAL:
            return False
        frame = frame.f_back
    return True


def _send_again(number: int) -> None:
    time.sleep(_PAUSE)
    if number == signal.SIGINT:
        _again.append(number)
    signal.raise_signal(number)


@contextlib.contextmanager
def _second_ctrl_c_ends_at_once() -> Iterator[None]:
    # Python runs a handler only between two of its own instructions. While XLA compiles, perhaps
    # for minutes, none runs. But the number of a signal is written to this socket at once, and a
    # thread that reads it needs no more than the interpreter's lock.
    read, write = socket.socketpair()
    write.setblocking(False)
    before = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_count, args=(read,), name="ctrl-c", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        write.shutdown(socket.SHUT_RDWR)  # ends the thread, even if a forked child has the socket
        thread.join(1.0)
        write.close()
        read.close()


def _count(read: socket.socket) -> None:
    first = 0.0  # when Ctrl-C was pressed first; 0: not yet
    while data := read.recv(64):
        presses = data.count(signal.SIGINT)
        while presses and _again:
            _again.pop()
            presses -= 1
        if not presses:
            continue
        now = time.monotonic()
        if not first:
            first = now
            os.write(2, _FIRST)
        elif now - first > ONE_PRESS:
            os.write(2, _SECOND)
            os._exit(exit_code(signal.SIGINT))


def _forget_wakeup() -> None:
    with contextlib.suppress(ValueError):  # forked in another thread
        signal.set_wakeup_fd(-1)


# A forked child would write its own signals to the socket of this process.
os.register_at_fork(after_in_child=_forget_wakeup)
