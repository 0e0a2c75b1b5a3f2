"""Models on Kaggle before a run: kept here, refused or allowed, by kagglehub and a server here."""

import json
import shutil
from types import SimpleNamespace

import pytest
from hub_cases import GIB, HANDLE, kaggle_here, log_in

import paligemma_lib as pg
from paligemma_lib.checkpoint.configuration import published
from paligemma_lib.hub import kaggle_access
from paligemma_lib.run import ModelConfig, RunConfig, Setup, checks, download_checks


def naming(checkpoint):
    """A run of such a checkpoint."""
    return Setup(RunConfig(model=ModelConfig(checkpoint=checkpoint)))


@pytest.fixture
def server(monkeypatch, tmp_path):
    with kaggle_here(monkeypatch, tmp_path) as server:
        log_in(monkeypatch)
        server.usage = SimpleNamespace(free=100 * GIB)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: server.usage)
        yield server


def test_what_this_account_may_have_is_not_downloaded(server, tmp_path):
    assert download_checks.kaggle(naming(HANDLE)) == "licence accepted, 6.0 GiB to download"
    assert server.asked[-1] == "DownloadModelInstanceVersion"
    assert not (tmp_path / "cache").exists()
    assert download_checks.kaggle(naming("nano")) == "not needed"


def test_a_licence_not_accepted(server):
    server.status, server.refused = 403, "DownloadModelInstanceVersion"
    with pytest.raises(PermissionError, match="kaggle.com/models/google/paligemma .* accept the"):
        download_checks.kaggle(naming(HANDLE))


def test_no_credentials(server, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    with pytest.raises(PermissionError, match="no valid Kaggle credentials"):
        download_checks.kaggle(naming(HANDLE))
    assert server.asked == []


def test_credentials_that_others_can_read_or_that_are_damaged(server, tmp_path, monkeypatch):
    file = tmp_path / ".kaggle" / "kaggle.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"username": "somebody", "key": "secret"}))
    monkeypatch.delenv("KAGGLE_USERNAME")
    file.chmod(0o644)
    assert download_checks.kaggle(naming(HANDLE)).endswith(f"your credentials: chmod 600 {file}")
    file.chmod(0o600)
    assert download_checks.kaggle(naming(HANDLE)).endswith("to download")
    file.write_text("{")
    with pytest.raises(ValueError, match="Invalid Kaggle credentials file"):
        download_checks.kaggle(naming(HANDLE))


def test_a_model_without_one_file_of_weights_or_without_room(server):
    server.usage.free = 5 * GIB
    with pytest.raises(OSError, match="6.0 GiB, and 5.0 GiB are free"):
        download_checks.kaggle(naming(HANDLE))
    server.files = server.files[1:]
    with pytest.raises(FileNotFoundError, match="has 0 .npz files, expected one: README.md"):
        download_checks.kaggle(naming(HANDLE))


def test_a_model_that_is_not_here_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(kaggle_access, "cached_path", lambda handle: None)
    away = naming(HANDLE)
    assert away.pending
    assert away.model.language == pg.model.variants.paligemma_3b().language
    assert "will be downloaded" in checks.checkpoint(away)
    two = published("google/paligemma-2/jax/paligemma2-10b-ft-docci-448/2")
    assert two == pg.model.variants.paligemma2_10b(448)
    with pytest.raises(ValueError, match="is not the name of a published model"):
        published("me/mine/jax/best")


def test_what_kagglehub_has_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    assert kaggle_access.cached_path(HANDLE) is None
    versions = tmp_path / "models" / HANDLE
    for version in ("2", "10"):
        (versions / version).mkdir(parents=True)
        (versions / f"{version}.complete").touch()
    (versions / "11").mkdir()  # not whole
    assert kaggle_access.cached_path(HANDLE) == versions / "10"
    assert kaggle_access.cached_path(f"{HANDLE}/2") == versions / "2"
    assert kaggle_access.cached_path(f"{HANDLE}/3") is None
