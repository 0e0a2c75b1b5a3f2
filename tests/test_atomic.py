"""Files on gs:// are there whole or not at all; local ones are tested where they are written."""

import contextlib
import errno
import io
import subprocess
import sys
import textwrap

import pytest
from gcs_cases import Storage

from paligemma_lib.runtime import retries
from paligemma_lib.runtime.atomic import (
    atomic_folder,
    atomic_write,
    is_remote,
    path_of,
    remove_partial,
)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    with Storage(tmp_path) as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        yield storage


def test_a_remote_file_appears_when_the_block_ends(storage):
    path = path_of("gs://bucket/folder/file")
    assert is_remote(path) and not is_remote(path_of("folder/file"))
    with atomic_write(path) as file:
        file.write(b"one, ")
        file.write(b"three")
        file.seek(5)
        file.write(b"two")
        assert storage.objects == {}
    assert storage.objects == {"bucket/folder/file": b"one, twoee"}
    assert path.read_bytes() == b"one, twoee"


def test_an_empty_remote_file_is_there_too(storage):
    with atomic_write(path_of("gs://bucket/empty")):
        pass
    assert storage.objects == {"bucket/empty": b""}


def test_nothing_of_a_block_that_fails_is_sent(storage):
    storage.put("bucket/file", b"before")
    with pytest.raises(OSError, match="no room"), atomic_write(path_of("gs://bucket/file")) as file:
        file.write(b"after")
        raise OSError("no room")
    assert storage.objects == {"bucket/file": b"before"}


def test_what_a_killed_process_leaves_can_be_removed(tmp_path):
    program = """
        import os, sys
        from pathlib import Path
        from paligemma_lib.runtime.atomic import atomic_write, atomic_folder

        folder = Path(sys.argv[1])
        with atomic_write(folder / "file") as file, atomic_folder(folder / "folder") as partial:
            file.write(b"1")
            (partial / "part").touch()
            os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_write(tmp_path / "kept.partial"), atomic_folder(tmp_path / "kept"):
        pass
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "kept.partial"]


class Unsteady:
    """A remote path whose storage fails at first."""

    def __init__(self, *errors):
        self.errors, self.sent = list(errors), io.BytesIO()

    def __fspath__(self):
        return "gs://bucket/file"

    __str__ = __fspath__

    @contextlib.contextmanager
    def open(self, mode):
        if self.errors:
            raise self.errors.pop(0)
        yield self.sent


def test_storage_that_fails_now_and_then_gets_the_file_all_the_same(monkeypatch, caplog):
    monkeypatch.setattr(retries, "_sleep", lambda seconds: None)
    path = Unsteady(OSError(errno.EIO, "broken pipe"), TimeoutError(errno.ETIMEDOUT, "late"))
    with atomic_write(path) as file:
        file.write(b"all of it")
    assert path.sent.getvalue() == b"all of it"
    assert "gs://bucket/file: [Errno 5] broken pipe; trying again" in caplog.text


def test_storage_that_refuses_is_told_at_once():
    refusing = Unsteady(RuntimeError("403: no permission"))
    with (
        pytest.raises(OSError, match="file could not be written: 403"),
        atomic_write(refusing) as f,
    ):
        f.write(b"data")
    assert refusing.sent.getvalue() == b""
