"""Which files belong to which split, as the card of a data set says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.data.sources.hub_configs import (
    chosen_config,
    configs_in_card,
    configs_of_export,
    matching,
)


def test_each_way_to_write_data_files():
    entries = [
        {"config_name": "text", "data_files": "a.parquet"},
        {"config_name": "list", "data_files": ["a.parquet", "b.parquet"]},
        {
            "config_name": "splits",
            "data_files": [
                {"split": "train", "path": ["a-*", "b-*"]},
                {"split": "restval", "path": "c-*"},
            ],
        },
        {"config_name": "folder", "data_dir": "./en/", "data_files": "a.csv"},
        {"data_dir": "de"},
    ]
    found = configs_in_card({"configs": entries})
    assert [config.patterns for config in found] == [
        {"": ["a.parquet"]},
        {"": ["a.parquet", "b.parquet"]},
        {"train": ["a-*", "b-*"], "restval": ["c-*"]},
        {"": ["en/a.csv"]},
        {},
    ]
    assert [config.folder for config in found] == ["", "", "", "en", "de"]
    assert found[-1].name == "default"
    assert configs_in_card({"license": "mit"}) == []


@pytest.mark.parametrize(
    ("configs", "why"),
    [
        ("x", "'?x'? is not a list of configurations|x is no list"),
        ([3], "is not a list of configurations"),
        ([{"config_name": 3}], "has no config_name or data_dir of text"),
        ([{"config_name": "a", "data_files": 3}], "configs, a: 3 is not a split with paths"),
        ([{"config_name": "a", "data_files": [{"split": "train"}]}], "is not a split with paths"),
    ],
)
def test_a_card_of_another_form_is_told(configs, why):
    with pytest.raises(ValueError, match=why):
        configs_in_card({"configs": configs})


def test_the_default_configuration_is_the_marked_one_or_the_one_of_that_name():
    def chosen(*names, wanted="", marked=""):
        entries = [{"config_name": name, "default": name == marked} for name in names]
        found = chosen_config(configs_in_card({"configs": entries}), wanted, "o/n@main")
        return found and found.name

    assert chosen() is None
    assert chosen("en") == "en"
    assert chosen("en", "default") == "default"
    assert chosen("en", "default", marked="en") == "en"
    assert chosen("en", "de", wanted="de") == "de"
    with pytest.raises(ValueError, match="o/n@main has 4 configurations and no default one: a, b"):
        chosen("a", "b", "c", "d")
    with pytest.raises(ValueError, match="no configuration 'x'; it has a, b, c, ...$"):
        chosen("a", "b", "c", "d", wanted="x")
    with pytest.raises(ValueError, match="no configuration 'x'; it has none"):
        chosen(wanted="x")


def test_the_parquet_export_has_its_configurations_as_folders(caplog):
    files = [".gitattributes", "en/train/0000.parquet", "en/train/0001.parquet"]
    files += ["en/test/0000.parquet", "d*/partial-train/0000.parquet"]
    english, german = configs_of_export(files)
    assert (english.name, german.name) == ("en", "d*")
    assert matching(files, english.patterns["train"]) == files[1:3]
    assert matching(files, german.patterns["train"]) == files[4:]
    assert "has only the first 5 GB of d*/partial-train" in caplog.text
    assert configs_of_export([*files, "README.txt"]) == []


def test_a_star_stays_in_its_folder_and_two_go_through_all():
    files = ["a.csv", "x/a.csv", "x/y/a.csv", "x/y/b.txt", "x/[1].csv"]
    assert matching(files, ["*.csv"]) == ["a.csv"]
    assert matching(files, ["x/**"]) == files[1:]
    assert matching(files, ["**/a.csv"]) == files[:3]
    assert matching(files, ["x/y/*", "./a.csv", "x/y/a.csv"]) == [*files[2:4], "a.csv"]
    assert matching(files, ["x/[1].csv"]) == ["x/[1].csv"]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("https://elsewhere/a.csv", "is outside the repository"),
        ("hf://datasets/o/other/a.csv", "is outside the repository"),
        ("/etc/passwd", "is outside the repository"),
        ("../x", "is outside the repository"),
        ("a**", "'\\*\\*' can only be an entire path component"),
        ("*a" * 30, "has more than 4 wildcards"),
    ],
)
def test_a_pattern_that_leads_elsewhere_or_takes_too_long_is_told(pattern, why):
    with pytest.raises(ValueError, match=why):
        matching(["a" * 200], [pattern])


@given(st.lists(st.text("ab/.-[*?", min_size=1, max_size=8), max_size=8))
def test_a_name_matches_itself_whatever_its_characters(names):
    clean = [n for n in names if not n.startswith(("/", "./")) and ".." not in n.split("/")]
    clean = [name for name in clean if name.count("*") <= 4]
    assert matching(clean, clean) == list(dict.fromkeys(clean))
