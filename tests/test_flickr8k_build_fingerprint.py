"""A data set that exists is used only if it is what would be built now."""

import json
import os
import re
import shutil

import pytest
import tensorflow_datasets as tfds
from flickr8k_builds import IMAGES, build, examples, own_images
from flickr8k_sources import TRAIN, csv_table, image, kaggle_files, write_tree, write_zip

import flickr8k_tfds
from flickr8k_tfds import build_fingerprint, image_tasks
from flickr8k_tfds.trees import DatasetError

FILES = kaggle_files(IMAGES)
OVERWRITE = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "in", FILES)


@pytest.fixture
def built(tmp_path, source):
    """Builds the source, and returns the folder of what was built."""
    return build(source, tmp_path / "data").data_path


def add(source):
    write_tree(source, {"Images/new.jpg": image("blue")})


def replace(source):
    data = IMAGES[TRAIN]
    (source / "Images" / TRAIN).write_bytes(data[:-3] + b"x" + data[-2:])  # of the same size


def rename(source):
    os.rename(source / "Images" / TRAIN, source / "Images" / ("x" + TRAIN[1:]))


def reword(source):
    captions = {name: ["Another caption ."] for name in IMAGES}
    (source / "captions.txt").write_bytes(csv_table(captions))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add, r"images were 3 files of [\d,]+ bytes and are 4 files of"),
        (replace, "images have changed, though their names and sizes have not"),
        (rename, "names or sizes of images have changed"),
        (reword, "in/captions.txt has changed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_source_that_has_changed_is_told_with_the_cure(tmp_path, source, built, change, told):
    change(source)
    with pytest.raises(DatasetError, match=told) as error:
        build(source, tmp_path / "data")
    assert "--overwrite" in str(error.value) and str(built) in str(error.value)
    build(source, tmp_path / "data", download_mode=OVERWRITE)
    build(source, tmp_path / "data")


def test_other_options_are_told(tmp_path, source):
    shares = {"train": 0.8, "validation": 0.2}
    build(source, tmp_path / "data", flickr8k_tfds.Config(name="mine"))
    other = flickr8k_tfds.Config(name="mine", fractions=shares, apply_exif=False)
    with pytest.raises(DatasetError) as error:
        build(source, tmp_path / "data", other, max_examples_per_split=2)
    told = str(error.value)
    assert f"fractions was {json.dumps(flickr8k_tfds.Config(name='x').fractions)}" in told
    assert f"and is {json.dumps(shares)}; max_examples_per_split was null and is 2" in told
    assert "apply_exif was true and is false" in told


def test_what_is_the_same_is_used(tmp_path, source, built, monkeypatch, capsys):
    monkeypatch.setattr(build_fingerprint, "_read", None)  # without reading an image
    capsys.readouterr()
    before = sorted((path.name, os.stat(path).st_mtime_ns) for path in built.iterdir())
    build(source, tmp_path / "data")
    assert sorted((path.name, os.stat(path).st_mtime_ns) for path in built.iterdir()) == before
    assert "Verified" not in capsys.readouterr().out


def test_a_copy_is_the_same_wherever_it_lies(tmp_path, source, built):
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    build(tmp_path / "copy", tmp_path / "data")
    build(write_zip(tmp_path / "in.zip", FILES), tmp_path / "data")


def test_a_zip_that_has_changed_is_told(tmp_path):
    source = write_zip(tmp_path / "in.zip", kaggle_files(own_images(3)))
    build(source, tmp_path / "data")
    write_zip(source, kaggle_files(own_images(4)))
    with pytest.raises(DatasetError, match="images were 3 files"):
        build(source, tmp_path / "data")


@pytest.mark.parametrize("given", ["not given", "gone", "empty"])
def test_without_its_source_a_data_set_is_used_as_it_is(tmp_path, source, built, given):
    shutil.rmtree(source)
    (tmp_path / "empty").mkdir()
    builder = build(None if given == "not given" else tmp_path / given, tmp_path / "data")
    assert examples(builder).keys() == IMAGES.keys()


@pytest.mark.parametrize(
    "report", [None, "{}", "no JSON", "[]", "[" * 100_000, '{"fingerprint": {"table": 1}}']
)
def test_a_data_set_without_a_fingerprint_may_be_anything(tmp_path, source, built, report):
    path = built / "verification.json"
    path.unlink()
    if report is not None:
        path.write_text(report)
    with pytest.raises(DatasetError, match=re.escape("no fingerprint of what it was built from")):
        build(source, tmp_path / "data")


def test_an_image_that_changes_during_the_build_stops_it(tmp_path, monkeypatch):
    source = write_tree(tmp_path / "in", kaggle_files(own_images(3)))
    first_reading = image_tasks.digest

    def read_and_change(file):
        found = first_reading(file)
        (source / file.name).write_bytes(image("white"))
        return found

    monkeypatch.setattr(image_tasks, "digest", read_and_change)
    with pytest.raises(DatasetError, match="has changed since the build began"):
        build(source, tmp_path / "data")
    assert not flickr8k_tfds.Builder(data_dir=tmp_path / "data").is_prepared()
