"""The launcher: who each process is, ends and signals, with scripts that need no JAX."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from process_cases import ENVIRONMENT

from paligemma_lib.runtime import launch


@pytest.fixture
def script(tmp_path):
    """Writes a script; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def test_the_launcher_tells_each_process_who_it_is(script, tmp_path):
    path = script("""
        import pathlib, sys
        pathlib.Path(sys.argv[1], sys.argv[-1]).write_text(" ".join(sys.argv[2:]))
    """)
    assert launch.main(["--count", "3", path, str(tmp_path), "--config=a"]) == 0
    given = [(tmp_path / f"--process={number}").read_text().split() for number in range(3)]
    assert len({tuple(arguments[:-1]) for arguments in given}) == 1
    assert given[0][0] == "--config=a"
    assert given[0][1].startswith("--coordinator=127.0.0.1:")
    assert given[0][2] == "--processes=3"


@pytest.mark.parametrize(
    ("how", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_when_one_process_dies_the_launcher_ends_the_others(
    script, tmp_path, monkeypatch, how, code
):
    monkeypatch.setattr(launch, "_GRACE", 0.5)
    path = script(f"""
        import os, pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: None)  # as if it were waiting for the other
        pathlib.Path({str(tmp_path)!r}, sys.argv[-1]).write_text(str(os.getpid()))
        while not pathlib.Path({str(tmp_path)!r}, "--process=1").exists():
            time.sleep(0.01)
        if sys.argv[-1] == "--process=0":
            {how}
        time.sleep(60)
    """)
    start = time.monotonic()
    assert launch.main(["--count", "2", path]) == code
    assert time.monotonic() - start < 30
    other = int((tmp_path / "--process=1").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)


def test_a_process_that_never_ends_is_not_waited_for(script, monkeypatch, capfd):
    monkeypatch.setattr(launch, "_PARTING", 0.5)
    path = script("""
        import os, signal, sys
        if sys.argv[-1] == "--process=0":
            os.kill(os.getpid(), signal.SIGSTOP)
    """)
    assert launch.main(["--count", "2", path]) == 1
    assert "process 0 of 2 hangs: another process succeeded" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_launcher_passes_signals_on(script, tmp_path, number, code):
    path = script(f"""
        import pathlib, signal, sys, time
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        pathlib.Path({str(tmp_path)!r}, sys.argv[-1]).touch()
        time.sleep(60)
    """)
    command = [sys.executable, "-m", "paligemma_lib.runtime.launch", "--count", "2", path]
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) as launcher:
        while not all((tmp_path / f"--process={k}").exists() for k in range(2)):
            assert launcher.poll() is None
            time.sleep(0.05)
        time.sleep(0.1)
        launcher.send_signal(number)
        assert launcher.wait(30) == code


def test_a_wrong_command_of_the_launcher_is_told(capsys):
    for arguments, message in (
        (["--count", "0", __file__], "expected at least 1"),
        (["--count", "2", "no.py"], "no.py is not a file"),
    ):
        with pytest.raises(SystemExit):
            launch.main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_asked_to_end_may_save_first(script, tmp_path, number):
    """`subprocess.run` would kill it a quarter of a second later."""
    saving = script("""
        import pathlib, signal, sys, time
        def save(number, _):
            time.sleep(1)
            pathlib.Path(sys.argv[1], "saved").touch()
            sys.exit(128 + number)
        signal.signal(signal.SIGINT, save)
        signal.signal(signal.SIGTERM, save)
        pathlib.Path(sys.argv[1], "ready").touch()
        time.sleep(60)
    """)
    program = """
        import signal, sys
        from paligemma_lib.runtime.launch import run_one
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(run_one([sys.executable, *sys.argv[1:]]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), saving, str(tmp_path)]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert (tmp_path / "saved").exists()
