"""A folder is one job's at a time, and who holds it is told."""

import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from process_cases import ENVIRONMENT

from paligemma_lib.runtime import locks
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.locks import LOCK, locked


def test_a_second_job_is_told_who_holds_the_folder(tmp_path):
    folder, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(folder)
    with locked(folder):
        for name in (folder, link):  # by any name
            told = rf"{name} is in use by process {os.getpid()} on \S+ since \d+-\d+-\d+ \d+:\d+"
            with pytest.raises(OSError, match=told), locked(name):
                pass
        (folder / "result").touch()
    with locked(folder):  # it is free again
        pass
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_job_that_writes_nothing_leaves_nothing(tmp_path):
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass
    assert tmp_path.exists()  # it was there before


def test_a_file_of_the_user_is_left_alone(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"


def test_a_forked_child_does_not_hold_it(tmp_path):
    program = """
        import os, pathlib, sys, time
        from paligemma_lib.runtime.locks import locked
        with locked(pathlib.Path(sys.argv[1])):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os._exit(7)  # as after a kill
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    assert process.wait(30) == 7
    for _ in range(50):  # until the child has run at all
        with contextlib.suppress(OSError), locked(tmp_path):
            return
        time.sleep(0.1)
    pytest.fail("the child holds the lock")


def test_a_holder_that_has_ended_is_said_to_have(tmp_path):
    with locked(tmp_path):
        text = (tmp_path / LOCK).read_text()
        (tmp_path / LOCK).write_text(text.replace(f"process {os.getpid()}", "process 999999999"))
        with pytest.raises(OSError, match="a child of process 999999999 .*, which has ended"):
            locks._acquired(tmp_path)


def test_a_job_that_is_killed_leaves_the_folder_free(tmp_path):
    program = """
        import os, pathlib, signal, sys
        from paligemma_lib.runtime.locks import locked
        with locked(pathlib.Path(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    assert subprocess.run(command, env=ENVIRONMENT).returncode < 0
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass


def test_of_many_at_once_one_holds_it(tmp_path):
    """Also while a holder removes the file and others open it."""
    held, most = [], []

    def job(number):
        for _ in range(50):
            try:
                with locked(tmp_path / "run"):
                    held.append(number)
                    most.append(len(held))
                    held.remove(number)
            except OSError as error:
                assert re.search("is in use by", str(error))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(job, range(8)))
    assert set(most) == {1}


def test_where_nothing_can_be_locked_the_job_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locked(tmp_path):
        assert "cannot be locked ([Errno 37] No locks available)" in caplog.text
    (tmp_path / "file").touch()
    monkeypatch.setattr(locks, "_TRIES", 3)
    with locked(Path("/proc/nowhere")):
        pass
    with locked(tmp_path / "file"), locked(path_of("gs://bucket/run")):
        pass  # the job itself says what is wrong with its folder
