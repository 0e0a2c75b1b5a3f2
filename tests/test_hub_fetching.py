"""One name for what lies here, or comes with the library."""

import pytest

from paligemma_lib import hub
from paligemma_lib.hub import fetching


def test_the_folder_of_a_run_stands_for_the_model_that_it_exported(tmp_path):
    assert hub.fetch(tmp_path) == tmp_path
    (tmp_path / "a.npz").touch()
    assert hub.fetch(tmp_path) == tmp_path / "a.npz"
    (tmp_path / "b.npz").touch()
    with pytest.raises(ValueError, match=r"several .npz files: give one of a.npz, b.npz"):
        hub.fetch(tmp_path)
    (tmp_path / "config.json").touch()
    assert hub.fetch(tmp_path) == tmp_path


def test_a_run_may_have_exported_a_folder(tmp_path):
    for name in ("state", ".former", "captioner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    for name in (".former", "captioner"):
        (tmp_path / name / "model.safetensors").touch()
    assert hub.fetch(tmp_path) == tmp_path / "captioner"
    (tmp_path / "state" / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(
        ValueError, match="several folders of safetensors: give one of captioner, s"
    ):
        hub.fetch(tmp_path)
    (tmp_path / "a.npz").touch()
    assert hub.fetch(tmp_path) == tmp_path / "a.npz"


def test_nano_is_the_model_of_the_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "NANO", tmp_path / "nano.params.f16.npz")
    with pytest.raises(FileNotFoundError, match="f16.npz does not exist: this installation lacks"):
        hub.fetch("nano")
    fetching.NANO.write_bytes(b"1")
    assert hub.fetch("nano") == fetching.NANO


def test_a_local_file_or_folder_needs_no_network(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"1")
    assert hub.fetch(tmp_path / "a.npz") == tmp_path / "a.npz"
    assert hub.fetch_tokenizer(tmp_path / "a.npz") == tmp_path / "a.npz"


def test_what_is_nothing_says_what_is_expected():
    with pytest.raises(FileNotFoundError, match="Expected a local file or folder, gs://"):
        hub.fetch("no/such.npz")
