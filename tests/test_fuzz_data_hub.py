"""Whatever the Hub answers, and whatever a card says: data, or an error of ours."""

import time

import pytest
from form_cases import packed
from fuzzing import EXAMPLES, changed_json, damaged, fuzz

from paligemma_lib.data.sources import splits_of
from paligemma_lib.data.sources.hub_card import read_card
from paligemma_lib.data.sources.hub_configs import chosen_config, configs_in_card, matching
from paligemma_lib.data.sources.hub_files import parts_of
from paligemma_lib.data.sources.hub_reference import HubReference

FILES = {"data/train-0.parquet": packed(2), "data/test-0.parquet": packed(2)}
CONFIGS = [
    {
        "config_name": "default",
        "data_dir": "data",
        "data_files": [{"split": "train", "path": ["train-*.parquet"]}],
        "default": True,
    },
    {"config_name": "other", "data_files": "data/*.parquet"},
]


@EXAMPLES
def test_configurations_of_a_card(examples):
    reference = HubReference("somebody/dogs", "main")

    def check(card):
        try:
            found = configs_in_card(card if isinstance(card, dict) else {"configs": card})
            config = chosen_config(found, "", "somebody/dogs")
            for patterns in config.patterns.values() if config else ():
                matching([*FILES], patterns)
            parts_of([*FILES], reference, found, "")
        except (ValueError, FileNotFoundError) as error:
            assert str(error)

    fuzz(examples, check, changed_json({"configs": CONFIGS}))


def tree():
    return [
        {"type": "file", "oid": "0" * 40, "size": len(data), "path": path}
        for path, data in FILES.items()
    ]


CARD = b"""---
license: mit
tags: &tags [dogs, 1, 2.5, 2024-01-01, ~]
configs:
- config_name: a
  data_files:
  - split: x
    path: data/*
  extra: {<<: {more: *tags}}
---
# Dogs
"""


@EXAMPLES
def test_cards_whose_bytes_are_damaged(examples, tmp_path):
    file = tmp_path / "README.md"

    def check(card):
        file.write_bytes(card)
        try:
            configs_in_card(read_card(file))
        except ValueError as error:
            assert str(error)

    fuzz(examples, check, damaged(CARD))


@EXAMPLES
def test_listings_of_the_hub(examples, hub, dogs, monkeypatch):
    made = iter(range(1_000_000))
    # A file that is missing is asked for again and again.
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def check(listing):
        dogs.commits.clear()
        dogs.commit(FILES | {"README.md": CARD, f"{next(made)}.txt": b""})
        dogs.tree = listing
        try:
            for source in splits_of("somebody/dogs").values():
                source.read(range(len(source)))
        except (ValueError, OSError) as error:
            assert str(error)

    fuzz(examples, check, changed_json(tree()))


def test_a_hub_that_is_down_says_also_that_there_is_no_such_path(hub, dogs):
    dogs.commit(FILES)
    hub.status = 503
    with pytest.raises(ConnectionError, match="no such local path, and .* did not send somebody/d"):
        splits_of("somebody/dogs")
    with pytest.raises(ConnectionError, match=r"^the Hugging Face Hub did not send somebody/dogs"):
        splits_of("hf://datasets/somebody/dogs")
