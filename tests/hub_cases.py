"""Servers on this machine in the place of Google Cloud Storage and Kaggle."""

import base64
import contextlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import google_crc32c
import kagglesdk.kaggle_env
import pytest

CONTENT = bytes(range(256)) * 20_000  # five blocks
HANDLE = "google/paligemma/jax/paligemma-3b-pt-224"
GIB = 2**30


class Server(http.server.ThreadingHTTPServer):
    """Answers on a port of its own; tests change the attributes."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextlib.contextmanager
    def answering(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Self]:
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        with self:
            threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
            yield self
            self.shutdown()


class Handler(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # a body that follows its head would wait for 40 ms

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Bucket(Server):
    """Answers like Google Cloud Storage.

    Attributes:
      content, status: what is sent.
      size, hashed: what the headers tell of it; None: nothing.
      cut: how many bytes come before the end; None: all.
      reset: whether the connection then breaks.
      paths: what was asked for.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BucketHandler)
        self.content, self.status, self.cut, self.hashed = CONTENT, 200, None, CONTENT
        self.size, self.reset = len(CONTENT), False
        self.paths = []


class BucketHandler(Handler):
    def do_GET(self):
        server, headers = self.server, []
        server.paths.append(self.path)
        if server.size is not None:
            headers.append(("Content-Length", str(server.size)))
        if server.hashed is not None:
            digest = google_crc32c.Checksum(server.hashed).digest()
            headers.append(("x-goog-hash", f"crc32c={base64.b64encode(digest).decode()}"))
            headers.append(("x-goog-hash", "md5=AAAAAAAAAAAAAAAAAAAAAA=="))
        self.answer(server.status, headers, server.content[: server.cut])
        if server.reset:  # closes with RST
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()


class Kaggle(Server):
    """Answers like Kaggle, which has version 3 of HANDLE.

    Attributes:
      status: of its answers to requests whose names contain `refused`.
      refused: part of a name; "" is in all.
      files: of the model.
      asked: names of requests.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), KaggleHandler)
        self.status, self.refused, self.asked = 200, "", []
        self.files = [{"name": "paligemma.npz", "size": 6 * GIB}, {"name": "README.md", "size": 9}]


class KaggleHandler(Handler):
    def do_POST(self):
        server, name = self.server, self.path.rpartition("/")[2]
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        server.asked.append(name)
        status, kind, found = 200, "application/json", {}
        if server.status != 200 and server.refused in name:
            status, found = server.status, {"code": server.status, "message": "no"}
        elif name == "GetModelInstance":
            found = {"versionNumber": 3}
        elif name == "ListModelInstanceVersionFiles":
            found = {"files": server.files}
        elif name == "DownloadModelInstanceVersion":
            assert (request["versionNumber"], request["path"]) == (3, "paligemma.npz")
            kind = "application/octet-stream"
        body = b"weights" if kind.endswith("stream") else json.dumps(found).encode()
        self.answer(status, [("Content-Type", kind), ("Content-Length", str(len(body)))], body)


@contextlib.contextmanager
def kaggle_here(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Kaggle]:
    """Kaggle on this machine, asked by somebody without credentials whose home is this folder."""
    with Kaggle().answering(monkeypatch) as server:
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        ask_kaggle_at(monkeypatch, server.url)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(home / "cache"))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / ".kaggle"))
        for name in ("API_TOKEN", "USERNAME", "KEY", "API_V1_TOKEN_PATH"):
            monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
        yield server


def ask_kaggle_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    endpoints = kagglesdk.kaggle_env._env_to_endpoint
    monkeypatch.setitem(endpoints, kagglesdk.kaggle_env.KaggleEnv.LOCAL, url)


def log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "secret")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
