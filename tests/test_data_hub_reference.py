"""What is a data set of the Hub, and what a reference to one says."""

import pytest

from paligemma_lib.data.sources.hub_reference import HubReference, is_hub, parse


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("o/n", HubReference("o/n", "main")),
        ("hf://datasets/o/n", HubReference("o/n", "main")),
        ("hf://datasets/o/n/", HubReference("o/n", "main")),
        ("o/n@v1.0", HubReference("o/n", "v1.0")),
        ("o/n:en", HubReference("o/n", "main", config="en")),
        ("o/n@v1:en", HubReference("o/n", "v1", config="en")),
        ("hf://datasets/o/n/data/a.parquet", HubReference("o/n", "main", "data/a.parquet")),
        ("hf://datasets/o/n@v1/data", HubReference("o/n", "v1", "data")),
        ("hf://datasets/o/n@a%2Fb/data", HubReference("o/n", "a/b", "data")),
        ("o/n@~parquet", HubReference("o/n", "refs/convert/parquet")),
        ("o/n@refs/convert/parquet", HubReference("o/n", "refs/convert/parquet")),
        ("hf://datasets/o/n@refs/pr/3/data", HubReference("o/n", "refs/pr/3", "data")),
    ],
)
def test_a_reference_says_repository_revision_path_and_configuration(path, expected):
    assert is_hub(path) and parse(path) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (
            "hf://o/n",
            "is not a data set of the Hugging Face Hub: expected hf://datasets/OWNER/NAME",
        ),
        ("hf://spaces/o/n", "is not a data set of the Hugging Face Hub"),
        ("hf://datasets/squad", "must be 'namespace/name', got 'squad'"),
        ("hf://datasets/o/n@", "Empty revision after '@'"),
        ("hf://datasets/o/n@../../x", "leads out of the repository"),
        ("hf://datasets/o/n/a/../../b", "leads out of the repository"),
        ("hf://datasets/o/n/data:en", "a path in the repository, or a configuration, not both"),
        ("hf://datasets/o/n//a", "Path must not contain empty segments"),
    ],
)
def test_a_malformed_reference_is_told(path, why):
    assert is_hub(path)
    with pytest.raises(ValueError, match=why):
        parse(path)


@pytest.mark.parametrize(
    "path",
    [
        "train", "a/b/c", "./a", "../a", "/a/b", "a/", "gs://bucket/a", "train[:10]", "a*/b", "",
        "mine/data.csv", "mine/x.parquet", "mine/x.tfrecord-0-of-2", "mine/captions.txt",
        "mine/1.jpg",
    ],
)  # fmt: skip
def test_local_paths_are_not_looked_for_on_the_hub(path):
    assert not is_hub(path)


def test_what_is_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub("mine/train")
    (tmp_path / "mine").mkdir()
    assert not is_hub("mine/train") and not is_hub("mine/trian")
    assert is_hub("hf://datasets/mine/train")
