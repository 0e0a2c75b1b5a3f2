"""Which files of a repository are needed to open its data."""

import pytest

from paligemma_lib.data.sources.hub_configs import HubConfig
from paligemma_lib.data.sources.hub_files import Part, parts_of, told
from paligemma_lib.data.sources.hub_reference import HubReference

OTHERS = [".gitattributes", "README.md", "LICENSE", "model.bin", "clips/a.mp4", "__pycache__/a.csv"]


def parts(files, path="", split="", configs=(), config=""):
    reference = HubReference("o/n", "main", path, config)
    return parts_of([*OTHERS, *files], reference, configs, split)


@pytest.mark.parametrize(
    "files",
    [
        ["metadata.csv", "a.jpg", "b/c.png"],
        ["train/metadata.jsonl", "train/a.jpg", "test/metadata.jsonl", "test/a.jpg"],
        ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
        ["dataset_dict.json", "train/data-00000-of-00001.arrow", "train/dataset_info.json"],
        ["train-0.tar", "train-1.tar"],
        ["dataset_info.json", "features.json", "x-train.tfrecord-00000-of-00001"],
        ["a.jpg", "a.txt", "b.jpg"],
    ],
)
def test_a_repository_without_configurations_is_opened_as_a_folder(files):
    (part,) = parts(files).values()
    assert sorted(part.files) == sorted(files) and part.opened == ""


def test_of_several_forms_the_one_that_is_opened_is_downloaded():
    tables, packed = ["metadata.csv", "1.jpg"], ["x.parquet"]
    assert parts([*tables, *packed, "y.tar"])[""].files == tables
    assert parts([*packed, "y.tar", "1.jpg", "1.txt"])[""].files == packed


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["train/metadata.csv", "train/test.jpg", "test/metadata.csv", "test/1.jpg"], [0, 1]),
        (["data/train-0.parquet", "data/test-0.parquet", "data/training-1.parquet"], [0, 2]),
        (["train/test-0.parquet", "test/train-0.parquet"], [0]),
        # Nothing tells for all files which split they belong to.
        (["metadata.csv", "train/1.jpg", "test/1.jpg"], [0, 1, 2]),
        (["train-0.parquet", "more.parquet"], [0, 1]),
        (["metadata.csv", "train_1.jpg", "test_1.jpg"], [0, 1, 2]),
    ],
)
def test_files_of_other_splits_stay_where_all_names_tell_their_split(files, wanted):
    assert parts(files, split="train")[""].files == [files[k] for k in wanted]
    assert sorted(parts(files)[""].files) == sorted(files)


def test_the_card_says_which_files_are_of_which_split():
    files = ["en/0.parquet", "en/train.parquet", "de/0.parquet"]
    english = HubConfig("en", {"train": ["en/0*"], "val": ["en/t*"]}, is_default=True)
    configs = [HubConfig("de", {"": ["de/*"]}), english]
    assert parts(files, configs=configs) == {"train": Part(files[:1]), "val": Part(files[1:2])}
    assert parts(files, configs=configs, config="de") == {"": Part(files[2:])}
    assert parts(files, configs=configs, config="de", split="test") == {"": Part(files[2:])}
    assert [*parts(files, configs=configs, split="validation")] == ["val"]
    with pytest.raises(ValueError, match="o/n@main has no split 'test'; it has train, val"):
        parts(files, configs=configs, split="test")
    with pytest.raises(FileNotFoundError, match="names files of dev that do not exist: x/\\*"):
        parts(files, configs=[HubConfig("en", {"train": ["en/*"], "dev": ["x/*"]})])


def test_a_table_comes_with_its_images():
    files = ["a/train.csv", "a/1.jpg", "b/2.jpg", "notes/c.json"]

    def of(*patterns):
        return parts(files, configs=[HubConfig("x", {"train": patterns})])["train"]

    assert of("a/*.csv") == of("a/*.csv", "a/1.jpg") == Part(files[:2], "a/train.csv")
    assert of("a/*.csv", "b/2.jpg") == Part(["a/train.csv", "b/2.jpg"], "a/train.csv")
    # COCO's way: the annotations in one folder, the images in another.
    assert of("notes/*") == Part(["notes/c.json", "a/1.jpg", "b/2.jpg"], "notes/c.json", "")
    assert parts(files, "notes/c.json")[""] == of("notes/*")


def test_a_path_in_the_repository():
    files = ["x/train-0.parquet", "x/train-1.parquet", "y/metadata.csv", "y/1.jpg"]
    configs = [HubConfig("other", {"train": ["nothing"]})]
    assert parts(files, "x/train-1.parquet", configs=configs) == {"": Part(files[1:2])}
    assert parts(files, "x/train-*.parquet") == {"": Part(files[:2])}
    assert parts(files, "y") == {"": Part(files[2:], "y")}
    with pytest.raises(FileNotFoundError, match="has no file or folder z; it has LICENSE, model"):
        parts(files, "z")


def test_a_loading_script_is_not_run():
    with pytest.raises(ValueError, match="a loading script only, n.py, .* o/n@refs/convert/parq"):
        parts(["n.py", "images.zip", "captions.csv"])


@pytest.mark.parametrize(
    ("files", "cure"),
    [
        (["images.zip"], "try its Parquet export, o/n@refs/convert/parquet"),
        (["a.jpg"], "try its Parquet export"),
        (["a.jpg", "notes.json"], "give one of its tables, as hf://datasets/o/n@main/notes.json"),
    ],
)
def test_what_is_nothing_known_is_told_before_anything_is_downloaded(files, cure):
    with pytest.raises(
        ValueError, match="has no data in a known format among its files: LICENSE"
    ) as e:
        parts(files)
    assert cure in str(e.value)


@pytest.mark.parametrize("path", ["model.bin", "clips/a.mp4"])
def test_a_file_of_no_known_form_is_not_downloaded(path):
    with pytest.raises(ValueError, match="has no data in a known format among its files: " + path):
        parts(["1.jpg"], path)
    with pytest.raises(ValueError, match="has no data in a known format among its files: " + path):
        parts(["1.jpg"], configs=[HubConfig("x", {"train": [path]})])


def test_forms_are_not_mixed_in_a_split():
    with pytest.raises(ValueError, match="files of several forms in a split: a.parquet, b.tar"):
        parts(["a.parquet", "b.tar"], configs=[HubConfig("x", {"train": ["*"]})])


def test_a_text_that_is_named_is_a_table():
    assert parts(["list.txt", "1.jpg"], "list.txt")[""] == Part(["list.txt", "1.jpg"], "list.txt")


def test_files_are_counted_by_suffix():
    assert told(["a/b.jpg", "c.jpg", "d.csv"]) == "2 .jpg, 1 .csv"
