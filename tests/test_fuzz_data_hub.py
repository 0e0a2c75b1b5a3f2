"""Whatever the Hub answers, and whatever a card says: data, or an error of ours."""

import time

import pytest
from form_cases import packed
from fuzzing import EXAMPLES, changed_json, damaged, fuzz

from paligemma_lib.data.sources import splits_of
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


@EXAMPLES
@pytest.mark.parametrize("what", ["listing", "card"])
def test_answers_of_the_hub(examples, hub, dogs, what, monkeypatch):
    made = iter(range(1_000_000))
    # A file that is missing is asked for again and again.
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def check(changed):
        card = b"---\nconfigs:\n- config_name: a\n  data_files: data/*.parquet\n---\n# Dogs\n"
        card = changed if what == "card" else card
        dogs.commits.clear()
        dogs.commit(FILES | {"README.md": card, f"{next(made)}.txt": b""})
        dogs.tree = changed if what == "listing" else None
        try:
            for source in splits_of("somebody/dogs").values():
                source.read(range(len(source)))
        except (ValueError, OSError) as error:
            assert str(error)

    card = b"---\nconfigs:\n- config_name: a\n  data_files:\n  - split: x\n    path: data/*\n---\n"
    inputs = damaged(card) if what == "card" else changed_json(tree())
    fuzz(examples, check, inputs)


def test_a_hub_that_is_down_says_also_that_there_is_no_such_path(hub, dogs):
    dogs.commit(FILES)
    hub.status = 503
    with pytest.raises(ConnectionError, match="no such local path, and .* did not send somebody/d"):
        splits_of("somebody/dogs")
    with pytest.raises(ConnectionError, match=r"^the Hugging Face Hub did not send somebody/dogs"):
        splits_of("hf://datasets/somebody/dogs")
