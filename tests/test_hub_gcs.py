"""Fetching from gs://: from a real HTTP server on this machine, whole or not at all."""

import errno
import os
import socket

import pytest
from hub_cases import CONTENT, Bucket, files

from paligemma_lib import hub
from paligemma_lib.hub import gcs

NAME = "gs://bucket/some folder/weights.npz"


@pytest.fixture
def server(monkeypatch):
    with Bucket().answering(monkeypatch) as server:
        monkeypatch.setattr(gcs, "_GCS", server.url)
        yield server


def test_a_whole_file_is_fetched_once(server, tmp_path):
    path = hub.fetch(NAME, tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.paths == ["/bucket/some%20folder/weights.npz"]
    assert hub.fetch(NAME, tmp_path) == path
    assert len(server.paths) == 1
    assert files(tmp_path) == [path]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ({"cut": 1_000_000}, ConnectionError, "interrupted after 1,000,000 of 5,120,000 bytes"),
        (
            {"cut": 1_000_000, "reset": True},
            ConnectionError,
            "(reset|interrupted).*run this again",
        ),
        ({"hashed": b"other"}, ConnectionError, "was damaged in transit: its crc32c is"),
        ({"hashed": None}, ConnectionError, "has no size or checksum"),
        ({"size": None}, ConnectionError, "has no size or checksum"),
        (
            {"status": 403},
            PermissionError,
            "is not public .HTTP 403.*gcloud storage cp gs://bucket",
        ),
        ({"status": 401}, PermissionError, "is not public .HTTP 401"),
        ({"status": 404}, FileNotFoundError, "does not exist .HTTP 404"),
        ({"status": 503}, ConnectionError, "could not be fetched .HTTP 503"),
        (
            {"size": 10**18},
            OSError,
            "not enough disk space for .* bytes are free .needs 1,000,000,000,000,000,000",
        ),
    ],
)
def test_nothing_but_a_whole_file_is_kept(server, tmp_path, answer, error, message):
    for name, value in answer.items():
        setattr(server, name, value)
    with pytest.raises(error, match=message) as caught:
        hub.fetch(NAME, tmp_path)
    assert NAME in str(caught.value)
    assert files(tmp_path) == []


def test_a_second_try_succeeds(server, tmp_path):
    server.cut = 7
    with pytest.raises(ConnectionError, match="run this again"):
        hub.fetch(NAME, tmp_path)
    server.cut = None
    assert hub.fetch(NAME, tmp_path).read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_an_error(server, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(gcs, "_GCS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(gcs, "_TIMEOUT", 0.2)
        with pytest.raises(ConnectionError, match="timed out.*Check the network"):
            hub.fetch(NAME, tmp_path)
    with pytest.raises(ConnectionError, match="refused.*Check the network"):
        hub.fetch(NAME, tmp_path)
    assert files(tmp_path) == []


def test_a_full_disk_says_so(server, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"not enough disk space for gs://.*Free disk space, or set `cache`"
    ):
        hub.fetch(NAME, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["gs://", "gs://bucket", "gs://bucket/../../x", "gs://b//x"])
def test_a_name_cannot_leave_the_cache(name, tmp_path):
    with pytest.raises(ValueError, match="does not name a file"):
        hub.fetch(name, tmp_path)
