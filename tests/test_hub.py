"""Fetching files: from a real HTTP server on this machine, whole or not at all."""

import base64
import errno
import hashlib
import http.server
import os
import re
import socket
import struct
import threading

import google_crc32c
import kagglehub
import kagglesdk.kaggle_env
import pytest
import requests

from paligemma_lib import hub

CONTENT = bytes(range(256)) * 20_000  # five blocks
NAME = "gs://bucket/some folder/weights.npz"


class Server(http.server.ThreadingHTTPServer):
    """Answers like Google Cloud Storage; tests change the attributes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.cut, self.hashed = CONTENT, 200, None, CONTENT
        self.size, self.reset = len(CONTENT), False
        self.paths = []

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        self.send_response(server.status)
        if server.size is not None:
            self.send_header("Content-Length", str(server.size))
        if server.hashed is not None:
            digest = google_crc32c.Checksum(server.hashed).digest()
            self.send_header("x-goog-hash", f"crc32c={base64.b64encode(digest).decode()}")
            self.send_header("x-goog-hash", "md5=AAAAAAAAAAAAAAAAAAAAAA==")
        self.end_headers()
        self.wfile.write(server.content[: server.cut])
        if server.reset:  # closes with RST
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def do_POST(self):  # Kaggle
        self.server.paths.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"code": %d, "message": "no"}' % self.server.status
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(hub, "_GCS", server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        yield server
        server.shutdown()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_whole_file_is_fetched_once(server, tmp_path):
    path = hub.fetch(NAME, tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.paths == ["/bucket/some%20folder/weights.npz"]
    assert hub.fetch(NAME, tmp_path) == path
    assert len(server.paths) == 1
    assert files(tmp_path) == [path]


def test_the_folder_of_a_run_stands_for_the_model_that_it_exported(tmp_path):
    assert hub.fetch(tmp_path) == tmp_path
    (tmp_path / "a.npz").touch()
    assert hub.fetch(tmp_path) == tmp_path / "a.npz"
    (tmp_path / "b.npz").touch()
    with pytest.raises(ValueError, match=r"several .npz files: give one of a.npz, b.npz"):
        hub.fetch(tmp_path)
    (tmp_path / "config.json").touch()
    assert hub.fetch(tmp_path) == tmp_path


def test_nano_is_the_model_of_the_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "NANO", tmp_path / "nano.params.f16.npz")
    with pytest.raises(FileNotFoundError, match="f16.npz is not there: this installation lacks"):
        hub.fetch("nano")
    hub.NANO.write_bytes(b"1")
    assert hub.fetch("nano") == hub.NANO


def test_a_local_file_or_folder_needs_no_network(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"1")
    assert hub.fetch(tmp_path / "a.npz") == tmp_path / "a.npz"
    assert hub.fetch_tokenizer(tmp_path / "a.npz") == tmp_path / "a.npz"


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ({"cut": 1_000_000}, ConnectionError, "broke off: 1,000,000 of 5,120,000 bytes"),
        (
            {"cut": 1_000_000, "reset": True},
            ConnectionError,
            "(reset|broke off).*run (it|this) again",
        ),
        ({"hashed": b"other"}, ConnectionError, "was damaged on its way: its crc32c is"),
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
            "no room for .* bytes are free .needs 1,000,000,000,000,000,000",
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
    with pytest.raises(ConnectionError, match="run it again"):
        hub.fetch(NAME, tmp_path)
    server.cut = None
    assert hub.fetch(NAME, tmp_path).read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_an_error(server, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub, "_GCS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "_TIMEOUT", 0.2)
        with pytest.raises(ConnectionError, match="timed out.*Check the network"):
            hub.fetch(NAME, tmp_path)
    with pytest.raises(ConnectionError, match="refused.*Check the network"):
        hub.fetch(NAME, tmp_path)
    assert files(tmp_path) == []


def test_a_full_disk_says_so(server, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no room for gs://.*make room, or set `cache`"):
        hub.fetch(NAME, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["gs://", "gs://bucket", "gs://bucket/../../x", "gs://b//x"])
def test_a_name_cannot_leave_the_cache(name, tmp_path):
    with pytest.raises(ValueError, match="names no file"):
        hub.fetch(name, tmp_path)


def test_what_is_nothing_says_what_is_expected():
    with pytest.raises(FileNotFoundError, match="Expected a local file or folder, gs://"):
        hub.fetch("no/such.npz")


# --- The tokenizer


@pytest.fixture
def official(monkeypatch):
    """Makes CONTENT the official tokenizer."""
    monkeypatch.setattr(hub, "_TOKENIZER_BYTES", len(CONTENT))
    found = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(hub, "TOKENIZER_SHA256", re.compile(f"{found[:8]}.*{found[-6:]}"))


def test_the_tokenizer_is_checked(server, tmp_path, official):
    path = hub.fetch_tokenizer(cache=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.paths == ["/big_vision/paligemma_tokenizer.model"]
    path.write_bytes(CONTENT[:-1] + b"?")  # damaged since: fetched again
    assert hub.fetch_tokenizer(cache=tmp_path).read_bytes() == CONTENT
    assert len(server.paths) == 2


@pytest.mark.parametrize("other", [CONTENT[:-1], CONTENT[:-1] + b"?"])
def test_another_tokenizer_is_not_kept(server, tmp_path, official, other):
    server.content = server.hashed = other
    server.size = len(other)
    with pytest.raises(ConnectionError, match=r"bytes, expected 5,120,000|sha256.*expected 8986bb"):
        hub.fetch_tokenizer(cache=tmp_path)
    assert files(tmp_path) == []


def test_the_official_size_and_hash():
    assert hub._TOKENIZER_BYTES == 4_264_023
    assert hub.TOKENIZER_SHA256.fullmatch("8986bb4f" + "0" * 50 + "168fc6")
    assert not hub.TOKENIZER_SHA256.fullmatch("8986bb4f" + "0" * 50 + "168fc7")


# --- Kaggle: kagglehub itself, with the server in Kaggle's place

HANDLE = "google/paligemma/jax/paligemma-3b-pt-224"


@pytest.fixture
def kaggle(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    endpoints = kagglesdk.kaggle_env._env_to_endpoint
    monkeypatch.setitem(endpoints, kagglesdk.kaggle_env.KaggleEnv.LOCAL, server.url)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_V1_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_without_credentials_kaggle_says_how_to_get_them(kaggle):
    kaggle.status = 403
    with pytest.raises(PermissionError, match=r"HTTP 403.*no valid Kaggle credentials.*api") as e:
        hub.fetch(HANDLE)
    assert "licence at https://www.kaggle.com/models/google/paligemma," in str(e.value)
    assert kaggle.paths  # it really asked


def test_a_licence_not_accepted_names_the_page(kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    kaggle.status = 403
    with pytest.raises(
        PermissionError, match="sign in at https://www.kaggle.com/models/google/pal"
    ):
        hub.fetch(HANDLE)
    kaggle.status = 401
    with pytest.raises(PermissionError, match="no valid Kaggle credentials"):
        hub.fetch(HANDLE)


def test_a_model_that_kaggle_has_not(kaggle):
    kaggle.status = 404
    with pytest.raises(FileNotFoundError, match="Kaggle has no model google/paligemma/jax"):
        hub.fetch(HANDLE)


def test_kaggle_out_of_order_or_out_of_reach(kaggle, monkeypatch):
    kaggle.status = 500
    with pytest.raises(ConnectionError, match="Try again later"):
        hub.fetch(HANDLE)
    endpoints = kagglesdk.kaggle_env._env_to_endpoint
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setitem(endpoints, kagglesdk.kaggle_env.KaggleEnv.LOCAL, f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match="did not come whole from Kaggle.*network"):
        hub.fetch(HANDLE)


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (
            requests.exceptions.ChunkedEncodingError("IncompleteRead(7 bytes read)"),
            ConnectionError,
            "did not come whole from Kaggle: IncompleteRead",
        ),
        (
            kagglehub.exceptions.DataCorruptionError("MD5"),
            ConnectionError,
            "did not come whole from Kaggle: MD5",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            OSError,
            "no room for .*KAGGLEHUB_CACHE",
        ),
    ],
)
def test_a_download_from_kaggle_that_fails(monkeypatch, raised, error, message):
    def model_download(handle):
        raise raised

    monkeypatch.setattr(kagglehub, "model_download", model_download)
    with pytest.raises(error, match=message):
        hub.fetch(HANDLE)


@pytest.mark.parametrize(("names", "count"), [([], 0), (["a.npz", "b.npz"], 2), (["a.npz"], 1)])
def test_the_one_npz_of_a_kaggle_model(monkeypatch, tmp_path, names, count):
    for name in [*names, "tokenizer.model"]:
        (tmp_path / name).touch()
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: str(tmp_path))
    if count == 1:
        assert hub.fetch(HANDLE) == tmp_path / "a.npz"
        return
    with pytest.raises(FileNotFoundError, match=f"has {count} .npz files, expected one"):
        hub.fetch(HANDLE)
