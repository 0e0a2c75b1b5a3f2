"""Paths with names: which name each has, and a = in a path of its own."""

import pytest

from paligemma_lib.cli.named_paths import models_and_adapters, paths_by_name


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["nano"], {"nano": "nano"}),
        (["runs/mine", "base=a/b.npz"], {"mine": "runs/mine", "base": "a/b.npz"}),
        (["gs://bucket/run"], {"run": "gs://bucket/run"}),
        (["google/pt=a.npz"], {"google/pt": "a.npz"}),
        (["gs://bucket/rate=0.1", "b=gs://c"], {"rate=0.1": "gs://bucket/rate=0.1", "b": "gs://c"}),
    ],
)
def test_paths_have_the_names_that_are_asked_for(given, named):
    assert paths_by_name(given, "--checkpoint") == named


def test_a_folder_of_a_sweep_is_a_path_as_a_whole(tmp_path):
    folder = tmp_path / "sweep=1" / "rate=0.1"
    folder.mkdir(parents=True)
    assert paths_by_name([str(folder)], "--adapter") == {"rate=0.1": str(folder)}
    assert paths_by_name([f"mine={folder}"], "--adapter") == {"mine": str(folder)}


@pytest.mark.parametrize("text", ["=x", "x=", "=", "/"])
def test_what_has_no_name_or_no_path_is_told(text):
    with pytest.raises(ValueError, match=r"--adapter .*: expected PATH or NAME=PATH"):
        paths_by_name([text], "--adapter")


@pytest.mark.parametrize(
    ("checkpoints", "adapters", "message"),
    [
        (["a/x", "b/x"], [], "--checkpoint: two are named x: give names, as --checkpoint a=b/x"),
        (["a"], ["a/x", "x=c"], "--adapter: two are named x"),
        (["a"], ["b/a"], "a is the base model: give the adapter another name"),
        (["a", "b"], ["c"], "--adapter needs one --checkpoint"),
    ],
)
def test_a_name_is_one_model(checkpoints, adapters, message):
    with pytest.raises(ValueError, match=message):
        models_and_adapters(checkpoints, adapters)
