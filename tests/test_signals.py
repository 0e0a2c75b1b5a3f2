"""Signals end a process with their exit codes, wherever they come."""

import contextlib
import importlib.machinery
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
import weakref

import pytest
from process_cases import ENVIRONMENT

from paligemma_lib.runtime import signals


@pytest.fixture
def unasked(monkeypatch):
    """Both signals end the process."""
    with signals.exit_on_signals():
        yield
    signals.skip_delays(False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_with_its_code(unasked, number, code):
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == code


class Fragile:
    """Gets a signal where Python drops what is raised."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # here the handler runs


def test_a_signal_in_a_destructor_comes_again(unasked):
    with pytest.raises(SystemExit) as ended:
        Fragile()
        time.sleep(10)
    assert ended.value.code == 130
    time.sleep(0.2)  # it does not count as a second one, which would end this process


def _get_module_lock(thing):
    """As the import system's, whose locks have such callbacks."""

    def cb(_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # here the handler runs

    return weakref.ref(thing, cb)


def test_a_signal_in_a_callback_of_a_weak_reference_comes_again(unasked):
    thing = set()
    reference = _get_module_lock(thing)
    with pytest.raises(SystemExit) as ended:
        del thing
        time.sleep(10)
    assert (ended.value.code, reference()) == (130, None)
    time.sleep(0.2)


def names_within(code) -> set[str]:
    """Names of a function and of the functions that it defines."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return {code.co_qualname}.union(*map(names_within, inner))


def test_callbacks_have_these_names_in_this_python():
    functions = [
        importlib._bootstrap._get_module_lock,
        *(each.__init__ for each in (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)),
        weakref.WeakSet.__init__,
        *(
            getattr(importlib.machinery.ExtensionFileLoader, n)
            for n in ("create_module", "exec_module")
        ),
    ]
    found = set().union(*(names_within(function.__code__) for function in functions))
    assert {*signals._CALLBACKS, *signals._FATAL} <= found


class ExtensionFileLoader:
    """As the import system's, within which an exception ends the process in another way."""

    def exec_module(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # here the handler runs
        return "whole"


def test_a_signal_while_a_module_in_c_begins_comes_behind_it(unasked):
    assert ExtensionFileLoader().exec_module() == "whole"
    with pytest.raises(SystemExit) as ended:
        time.sleep(10)
    assert ended.value.code == 130
    time.sleep(0.2)


IMPORTING = """
    import signal
    from paligemma_lib.runtime.signals import exit_on_signals

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with exit_on_signals():
        print("ready", flush=True)
        import jax, tensorflow
        print("imported", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("begin", range(0, 480, 60))
def test_ctrl_c_while_large_libraries_are_imported(begin):
    for delay in range(begin, begin + 60, 12):  # ms
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(IMPORTING)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay / 1000)
        process.send_signal(signal.SIGINT)
        said, warned = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, ""), f"after {delay} ms: {warned}"


def test_a_signal_that_was_swallowed_ends_the_process_between_its_parts(unasked):
    signals.stop_if_asked()
    with contextlib.suppress(SystemExit):  # as a library may
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
    with pytest.raises(SystemExit) as ended:
        signals.stop_if_asked()
    assert ended.value.code == 143


BUSY = """
    import ctypes, signal, sys, time
    from paligemma_lib.runtime.signals import exit_on_signals

    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the tests' shell ignores it
    ending = exit_on_signals()
    ending.__enter__()
    try:
        print("ready", flush=True)
        if sys.argv[1] == "busy":  # as in XLA's compiler: in C, without the interpreter's lock
            end = time.monotonic() + 60
            while time.monotonic() < end:
                ctypes.CDLL(None).pause()
        time.sleep(60)
    except SystemExit as error:
        print("left with", error.code, flush=True)
        time.sleep(60)                          # something that takes long to end
"""


def started(what: str) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(BUSY), what]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_behind_the_block_signals_are_handled_as_before():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    with signals.exit_on_signals():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals.exit_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_ends_at_once_what_takes_long_to_end():
    process = started("idle")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "left with 130\n"
    time.sleep(signals.ONE_PRESS + 0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert "press Ctrl-C again to end at once" in process.stderr.read()


def test_a_second_ctrl_c_ends_at_once_where_no_handler_runs():
    process = started("busy")
    time.sleep(0.5)  # it is in C by now
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(signals.ONE_PRESS + 0.2)
    assert process.wait(10) == 130


def test_two_at_a_time_are_one_press():
    """`timeout -s INT` sends them to the process and to its group."""
    process = started("busy")
    time.sleep(0.5)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.kill()
    process.wait()


FORKED = """
    import os, signal, sys, time
    from paligemma_lib.runtime.signals import exit_on_signals

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with exit_on_signals():
        if os.fork() == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(20)
            os._exit(0)
        print("forked", flush=True)
        time.sleep(0.5)
    print("over", flush=True)
    os._exit(0)
"""


def test_the_end_does_not_wait_for_a_forked_child():
    command = [sys.executable, "-c", textwrap.dedent(FORKED)]
    begun = time.monotonic()
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "forked\n"
        assert process.stdout.readline() == "over\n"
        process.wait()
        assert time.monotonic() - begun < 10
        process.stdout.close()


def test_a_library_that_makes_its_own_error_of_a_signal_does_not_hide_it():
    with pytest.raises(SystemExit) as ended, signals.exit_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except SystemExit as error:
            raise ImportError("initialization failed") from error
    assert ended.value.code == 143
    signals.skip_delays(False)
