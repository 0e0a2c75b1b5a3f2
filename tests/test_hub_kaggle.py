"""Models from Kaggle: kagglehub itself, with a server on this machine in Kaggle's place."""

import errno
import socket

import kagglehub
import pytest
import requests
from hub_cases import HANDLE, ask_kaggle_at, kaggle_here, log_in

from paligemma_lib import hub


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    with kaggle_here(monkeypatch, tmp_path) as server:
        yield server


def test_without_credentials_kaggle_says_how_to_get_them(kaggle):
    kaggle.status = 403
    with pytest.raises(PermissionError, match=r"HTTP 403.*no valid Kaggle credentials.*api") as e:
        hub.fetch(HANDLE)
    assert "licence at https://www.kaggle.com/models/google/paligemma," in str(e.value)
    assert kaggle.asked  # it really asked


def test_a_licence_not_accepted_names_the_page(kaggle, monkeypatch):
    log_in(monkeypatch)
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
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ask_kaggle_at(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match="was not downloaded completely from Kaggle.*network"):
        hub.fetch(HANDLE)


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (
            requests.exceptions.ChunkedEncodingError("IncompleteRead(7 bytes read)"),
            ConnectionError,
            "was not downloaded completely from Kaggle: IncompleteRead",
        ),
        (
            kagglehub.exceptions.DataCorruptionError("MD5"),
            ConnectionError,
            "was not downloaded completely from Kaggle: MD5",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            OSError,
            "not enough disk space for .*KAGGLEHUB_CACHE",
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
