"""Data sets of the Hub that cannot be had, or should not, and what users are told."""

import shutil
from collections import namedtuple

import pytest
from form_cases import packed
from hub_server import TOKEN
from huggingface_hub import constants

from paligemma_lib.data import open_source
from paligemma_lib.data.sources import splits_of

FILES = {f"data/{split}-0.parquet": packed(6) for split in ("train", "test")}
CARD = b"---\nlicense: mit\n%s---\n# Dogs\n"


def test_without_the_hub_the_cache_is_enough(hub, dogs, monkeypatch):
    commit = dogs.commit(FILES)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set, and the cache .* not hold"):
        splits_of("somebody/dogs")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    expected = open_source("somebody/dogs#test").read(range(6))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert open_source("somebody/dogs#test").read(range(6)) == expected
    assert open_source(f"somebody/dogs@{commit}#test").read(range(6)) == expected
    with pytest.raises(ConnectionError, match="or only parts of it. Run this once with a network"):
        open_source("somebody/dogs#train")
    assert hub.requests == []


def test_a_hub_that_is_down_is_told_and_the_cache_serves(hub, dogs):
    dogs.commit(FILES)
    hub.status = 503
    with pytest.raises(ConnectionError, match=r"did not send somebody/dogs@main \(HTTP 503"):
        splits_of("somebody/dogs")
    hub.status = 200
    splits_of("somebody/dogs")
    hub.status = 503
    assert len(splits_of("somebody/dogs")["train"]) == 6


def test_private_gated_and_missing_data_sets(hub, dogs, monkeypatch):
    dogs.commit(FILES)
    with pytest.raises(FileNotFoundError, match="^somebody/cats@main is not on the Hugging Face H"):
        splits_of("hf://datasets/somebody/cats")
    with pytest.raises(FileNotFoundError, match="^no such local path, and somebody/cats@"):
        splits_of("somebody/cats")
    dogs.gated = True
    with pytest.raises(PermissionError, match="gated .* accept its conditions at .*/somebody/dogs"):
        splits_of("somebody/dogs")
    dogs.private = True
    with pytest.raises(FileNotFoundError, match="or it is private .* No token was found"):
        splits_of("somebody/dogs")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(splits_of("somebody/dogs")["train"]) == 6
    assert not any(path.startswith("/cdn/") for path in hub.authorized)
    assert any("/resolve/" in path for path in hub.authorized)


@pytest.mark.parametrize("name", ["../../evil.parquet", "/evil.parquet", "a//b.parquet", "x\0.csv"])
def test_no_name_leads_out_of_the_cache(dogs, tmp_path, name):
    dogs.commit({"a.parquet": b"x"})
    dogs.tree = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40}]
    with pytest.raises(ValueError, match="somebody/dogs@main has a file of the name"):
        splits_of("somebody/dogs")
    assert list(tmp_path.rglob("*evil*")) == []


def test_a_folder_in_the_way_of_a_file_is_told(dogs):
    table = packed(6)
    dogs.commit({"a.parquet": table, "a.parquet/b.parquet": table})
    with pytest.raises(OSError, match="a.parquet"):
        splits_of("somebody/dogs")


def test_a_download_that_does_not_fit_does_not_begin(hub, dogs, monkeypatch):
    dogs.commit(FILES)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(
        OSError, match="not enough disk space for somebody/dogs@main in .* where 10 bytes are fr"
    ):
        splits_of("somebody/dogs")
    assert not any("/cdn/" in path for path in hub.requests)


@pytest.mark.parametrize(
    ("card", "why"),
    [
        (b"configs: [\n", "README.md, cannot be used: while parsing"),
        (b"configs: 3\n", "configs: 3 is not a list of configurations"),
        (b"x: !!python/object/apply:os.system ['exit']\n", "could not determine a constructor"),
        (b"# " + b"x" * (5 << 20) + b"\n", "README.md has 5,242,9.. bytes, too many to read"),
    ],
)
def test_a_card_that_cannot_be_used_is_told(dogs, card, why):
    dogs.commit({"README.md": CARD % card, "a.parquet": packed(6)})
    with pytest.raises(ValueError, match=why):
        splits_of("somebody/dogs")
    assert len(splits_of("hf://datasets/somebody/dogs/a.parquet")[""]) == 6
