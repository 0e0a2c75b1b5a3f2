"""Local files that may be anything: nothing blocks, and nothing without an end is read."""

import os
import socket

import pytest

from paligemma_lib.runtime import regular_files
from paligemma_lib.runtime.regular_files import check_regular, open_regular, read_bounded
from paligemma_lib.runtime.retries import retry


@pytest.fixture
def odd(tmp_path):
    """What is no regular file, by kind."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "link").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        yield tmp_path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [check_regular, open_regular, lambda path: read_bounded(path, 99)])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("pipe", ValueError, "pipe is a named pipe, expected a regular file"),
        ("folder", ValueError, "folder is a folder, expected"),
        ("link", ValueError, "link is a device, expected"),
        ("socket", ValueError, "socket is a socket, expected"),
        ("loop", OSError, "loop"),
        ("broken", FileNotFoundError, "broken does not exist"),
        ("none", FileNotFoundError, "none does not exist"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(odd, name, error, message, read):
    with pytest.raises(error, match=message):
        retry(lambda: read(odd / name), name)


def test_a_file_within_the_limit_is_read_whole_and_a_larger_one_not_at_all(tmp_path):
    path = tmp_path / "file"
    for size in (0, 1, 99):
        path.write_bytes(b"x" * size)
        assert read_bounded(path, 99) == b"x" * size
    path.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="file is larger than the limit of 0 MiB"):
        read_bounded(path, 99)
    os.truncate(path, 1 << 42)  # sparse
    with pytest.raises(ValueError, match="larger than the limit"):
        read_bounded(path, 1 << 41)


def test_of_a_file_that_grows_only_what_it_had_is_read(tmp_path, monkeypatch):
    path, read = tmp_path / "log", regular_files.read_up_to
    path.write_bytes(b"x" * 10)

    def grown(file, count):
        with path.open("ab") as more:
            more.write(b"y" * 1000)
        return read(file, count)

    monkeypatch.setattr(regular_files, "read_up_to", grown)
    assert read_bounded(path, 99) == b"x" * 10


def test_a_remote_file_is_read_within_the_limit_too(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(regular_files, "path_of", lambda name: path)
    assert read_bounded("gs://bucket/file", 100) == b"x" * 100
    with pytest.raises(ValueError, match="gs://bucket/file is larger than the limit"):
        read_bounded("gs://bucket/file", 99)


def _npz(path):
    from paligemma_lib.checkpoint.stored import read_config

    read_config(path)


def _tokenizer(path):
    from paligemma_lib import tokenizer

    tokenizer.load(path)


def _predictions(path):
    from paligemma_lib.metrics import read_predictions

    read_predictions(path)


def _captions(path):
    from paligemma_lib.metrics.caption_rows import read_captions

    read_captions(path)


def _thumbnail(path):
    from paligemma_lib.report.thumbnails import thumbnail

    thumbnail(path, 8)


def _source(path):
    from paligemma_lib.data.sources import open_source

    len(open_source(str(path)))


def _images(path):
    from paligemma_lib.data import from_images

    from_images([path]).read([0])


def _files(path):
    from paligemma_lib.data import from_image_files

    from_image_files([str(path)]).read([0])


def _records(path):
    from paligemma_lib.data import from_tfrecords

    len(from_tfrecords(str(path)))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.npz", _npz),
        ("tokenizer.model", _tokenizer),
        ("x.json", _predictions),
        ("x.csv", _captions),
        ("x.png", _thumbnail),
        ("x.png", _images),
        ("x.png", _files),
        ("x.tfrecord", _records),
        *((f"x.{form}", _source) for form in ("csv", "json", "jsonl", "parquet", "arrow", "tar")),
    ],
)
def test_no_reader_of_the_library_waits_for_a_pipe(tmp_path, name, read):
    os.mkfifo(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        read(tmp_path / name)
