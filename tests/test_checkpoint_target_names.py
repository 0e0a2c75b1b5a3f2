"""Which kind of checkpoint a name asks for, by one rule wherever one is written."""

from pathlib import Path

import pytest
from checkpoint_cases import CONFIG, PARAMS

from paligemma_lib.checkpoint import huggingface, save_params, target_kind
from paligemma_lib.checkpoint.conversion import convert


@pytest.mark.parametrize("name", ["a.npz", "runs/a.f16.npz", "gs://b/a.npz", Path("x/a.b.npz")])
def test_names_of_files(name):
    assert target_kind(name) == "npz"


@pytest.mark.parametrize(
    "name", ["a", "runs/a/", "./a", "v1.5/a", "captioner-v1.5", "2026.11", ".hidden-not.1", "a b"]
)
def test_names_of_folders(name):
    assert target_kind(name) == "folder"


OTHERS = ["a.safetensors", "a.bin", "a.NPZ", "a.npy", "b.npz.gz", "a.ckpt/", ".npz", "a.\x1b[2J.pt"]


@pytest.mark.parametrize("name", [*OTHERS, "gs://bucket/a.bin"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"ends in \.\S+, expected a name that ends in .npz") as e:
        target_kind(name)
    assert str(e.value).isprintable()


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/.."])
def test_no_name_is_refused(name):
    with pytest.raises(ValueError, match="names no file or folder"):
        target_kind(name)


def test_a_remote_folder_is_refused():
    with pytest.raises(ValueError, match="gs://bucket/a is not a local path"):
        target_kind("gs://bucket/a")


@pytest.mark.parametrize("name", OTHERS)
def test_the_rule_holds_wherever_a_checkpoint_is_written(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_params(tmp_path / "source.npz", PARAMS)
    for write in (
        lambda: save_params(name, PARAMS),
        lambda: huggingface.export(PARAMS, CONFIG, name),
        lambda: convert("source.npz", name),
    ):
        with pytest.raises(ValueError, match="expected a name that ends in .npz"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["source.npz"]


def test_each_writer_refuses_what_the_other_one_writes(tmp_path):
    with pytest.raises(ValueError, match="model does not end in .npz.*call .*huggingface.export"):
        save_params(tmp_path / "model", PARAMS)
    with pytest.raises(ValueError, match="a.npz ends in .npz, .*call save_params"):
        huggingface.export(PARAMS, CONFIG, tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())
