"""Models on Kaggle before a run: kept here, refused or allowed, by kagglehub and a server here."""

import http.server
import json
import shutil
import threading
from types import SimpleNamespace

import kagglesdk.kaggle_env
import pytest

import paligemma_lib as pg
from paligemma_lib.doctor import Setup, checks, kaggle

HANDLE = "google/paligemma/jax/paligemma-3b-pt-224"
GIB = 2**30


class Server(http.server.ThreadingHTTPServer):
    """Answers like Kaggle; tests change the attributes.

    Attributes:
      refused: what is answered to a request for the weights.
      files: of the model.
      asked: names of requests.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.refused, self.asked = 200, []
        self.files = [{"name": "paligemma.npz", "size": 6 * GIB}, {"name": "README.md", "size": 9}]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        server, name = self.server, self.path.rpartition("/")[2]
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        server.asked.append(name)
        answers = {
            "GetModelInstance": {"versionNumber": 3},
            "ListModelInstanceVersionFiles": {"files": server.files},
        }
        status, kind, body = 200, "application/json", json.dumps(answers.get(name, {})).encode()
        if name == "DownloadModelInstanceVersion":
            assert (request["versionNumber"], request["path"]) == (3, "paligemma.npz")
            status, kind, body = server.refused, "application/octet-stream", b"weights"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        endpoints = kagglesdk.kaggle_env._env_to_endpoint
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(endpoints, kagglesdk.kaggle_env.KaggleEnv.LOCAL, url)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
        monkeypatch.setenv("KAGGLE_KEY", "secret")
        usage = SimpleNamespace(free=100 * GIB)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        server.usage = usage
        yield server
        server.shutdown()


def test_what_this_account_may_have_is_not_downloaded(server, tmp_path):
    assert checks.kaggle(Setup(checkpoint=HANDLE)) == "licence accepted, 6.0 GiB to download"
    assert server.asked[-1] == "DownloadModelInstanceVersion"
    assert not (tmp_path / "cache").exists()
    assert checks.kaggle(Setup(checkpoint="nano")) == "not needed"


def test_a_licence_not_accepted(server):
    server.refused = 403
    with pytest.raises(PermissionError, match="kaggle.com/models/google/paligemma .* accept the"):
        checks.kaggle(Setup(checkpoint=HANDLE))


def test_no_credentials(server, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    with pytest.raises(PermissionError, match="no valid Kaggle credentials"):
        checks.kaggle(Setup(checkpoint=HANDLE))
    assert server.asked == []


def test_credentials_that_others_can_read_or_that_are_damaged(server, tmp_path, monkeypatch):
    file = tmp_path / ".kaggle" / "kaggle.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"username": "somebody", "key": "secret"}))
    monkeypatch.delenv("KAGGLE_USERNAME")
    file.chmod(0o644)
    assert checks.kaggle(Setup(checkpoint=HANDLE)).endswith(f"your credentials: chmod 600 {file}")
    file.chmod(0o600)
    assert checks.kaggle(Setup(checkpoint=HANDLE)).endswith("to download")
    file.write_text("{")
    with pytest.raises(ValueError, match="Invalid Kaggle credentials file"):
        checks.kaggle(Setup(checkpoint=HANDLE))


def test_a_model_without_one_file_of_weights_or_without_room(server):
    server.usage.free = 5 * GIB
    with pytest.raises(OSError, match="6.0 GiB, and 5.0 GiB are free"):
        checks.kaggle(Setup(checkpoint=HANDLE))
    server.files = server.files[1:]
    with pytest.raises(FileNotFoundError, match="has 0 .npz files, expected one: README.md"):
        checks.kaggle(Setup(checkpoint=HANDLE))


def test_a_model_that_is_not_here_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(kaggle, "kept", lambda handle: None)
    away = Setup(checkpoint=HANDLE)
    assert away.to_come
    assert away.model.language == pg.model.config.paligemma_3b().language
    assert "to be downloaded" in checks.checkpoint(away)
    two = kaggle.published("google/paligemma-2/jax/paligemma2-10b-ft-docci-448/2")
    assert two == pg.model.config.paligemma2_10b(448)
    with pytest.raises(ValueError, match="its name is of no published model"):
        kaggle.published("me/mine/jax/best")


def test_what_kagglehub_has_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    assert kaggle.kept(HANDLE) is None
    versions = tmp_path / "models" / HANDLE
    for version in ("2", "10"):
        (versions / version).mkdir(parents=True)
        (versions / f"{version}.complete").touch()
    (versions / "11").mkdir()  # not whole
    assert kaggle.kept(HANDLE) == versions / "10"
    assert kaggle.kept(f"{HANDLE}/2") == versions / "2"
    assert kaggle.kept(f"{HANDLE}/3") is None
