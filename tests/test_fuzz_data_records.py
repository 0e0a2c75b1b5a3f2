"""Whatever a TFRecord file, its index, an example or TFDS's metadata holds: an error of ours."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from data_cases import caption_example, write_tfrecord
from flickr8k_builds import IMAGES, build
from flickr8k_sources import kaggle_files, write_tree
from fuzzing import EXAMPLES, changed_json, damaged, fuzz, read_all

from paligemma_lib.data import from_tfds, from_tfrecords, offsets
from paligemma_lib.data.sources import despite_damage
from paligemma_lib.data.sources.tfds_source import splits_of_tfds


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@EXAMPLES
def test_record_files(examples, tmp_path):
    path = write_tfrecord(tmp_path / "x.tfrecord", [caption_example(k, b"x") for k in range(4)])

    def check(data):
        Path(path).write_bytes(data)
        read_all(lambda: despite_damage(from_tfrecords(path)))

    fuzz(examples, check, damaged(Path(path).read_bytes()))


@EXAMPLES
def test_examples(examples, tmp_path):
    steps = tf.train.FeatureList(
        feature=[tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a dog"]))]
    )
    sequence = tf.train.SequenceExample.FromString(caption_example(1, b"x"))
    sequence.feature_lists.feature_list["captions"].CopyFrom(steps)
    path = str(tmp_path / "x.tfrecord")

    def check(data):
        write_tfrecord(path, [data])
        read_all(lambda: despite_damage(from_tfrecords(path)))

    for valid in (caption_example(0, b"x"), sequence.SerializeToString()):
        fuzz(examples, check, damaged(valid))


@EXAMPLES
def test_the_index_beside(examples, tmp_path):
    paths = [write_tfrecord(tmp_path / "x.tfrecord", [b"a", b"bc"])]
    expected, _ = offsets.offsets_of(paths)
    (index,) = tmp_path.glob(".offsets-*")
    valid = index.read_bytes()

    def check(data):
        index.write_bytes(data)
        found, problems = offsets.offsets_of(paths)
        assert problems == [""] and np.array_equal(found[0], expected[0])

    fuzz(examples, check, damaged(valid))


@pytest.mark.parametrize("kind", ["bytes", "folder", "pipe"])
def test_a_damaged_index_is_put_aside_and_made_again(tmp_path, caplog, kind):
    import os

    paths = [write_tfrecord(tmp_path / "x.tfrecord", [b"a", b"bc"])]
    offsets.offsets_of(paths)
    (index,) = tmp_path.glob(".offsets-*")
    valid = index.read_bytes()
    index.unlink()
    make = {"bytes": lambda: index.write_bytes(valid[:-1]), "folder": index.mkdir}
    make.get(kind, lambda: os.mkfifo(index))()
    offsets.offsets_of(paths)
    assert index.read_bytes() == valid
    assert (tmp_path / f"{index.name}.damaged").exists()
    assert f"put aside as {index.name}.damaged: " in caplog.text


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    source = write_tree(folder / "in", kaggle_files(IMAGES))
    return Path(str(build(source, folder / "data").data_path))


@EXAMPLES
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_metadata_of_tfds(examples, prepared, tmp_path, file):
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    valid = (prepared / file).read_bytes()

    def read():
        try:
            found = splits_of_tfds(str(folder))
        except (ValueError, OSError) as error:
            assert str(error)
            return
        for source in found.values():
            read_all(lambda source=source: source)

    def check(tree):
        (folder / file).write_text(json.dumps(tree))
        read()

    def check_bytes(data):
        (folder / file).write_bytes(data)
        read()

    fuzz(examples, check, changed_json(json.loads(valid)))
    fuzz(examples, check_bytes, damaged(valid))


def test_metadata_that_name_code_or_files_elsewhere(prepared, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    (tmp_path / "hostile.py").write_text("raise SystemExit")
    features = (prepared / "features.json").read_text()
    changed = features.replace("tensorflow_datasets.core.features.text", "hostile", 1)
    assert changed != features
    (folder / "features.json").write_text(changed)
    with pytest.raises(ValueError, match="it names code of hostile.*, which is not imported"):
        splits_of_tfds(str(folder))
    (folder / "features.json").write_text(features)
    info = json.loads((prepared / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["filepathTemplate"] = "../" + split["filepathTemplate"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="which is outside of it|has no split"):
        len(from_tfds(str(folder), "train"))
