"""Building from good data: every form, config, split and file format gives the same examples."""

import hashlib
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from flickr8k_builds import IMAGES, SKIP, build, examples, own_images, report_of
from flickr8k_sources import (
    TEST,
    TRAIN,
    VALIDATION,
    kaggle_files,
    token_table,
    write_tree,
    write_zip,
)
from flickr8k_sources import (
    image as photo,
)
from PIL import Image

import flickr8k_tfds
from flickr8k_tfds.trees import DatasetError


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks, on the dummy data."""

    DATASET_CLASS = flickr8k_tfds.Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ("original", "square224", "square448")
    SPLITS = {"train": 3, "validation": 1, "test": 1, "unused": 1}  # noqa: RUF012


def test_examples_hold_the_files_bytes_and_all_captions_in_order(tmp_path):
    captions = {name: ["First , of two .", 'Second "one" .'] for name in IMAGES}
    source = write_tree(tmp_path / "in", kaggle_files(IMAGES, captions))
    builder = build(source, tmp_path / "data")
    for split, name in [("train", TRAIN), ("validation", VALIDATION), ("test", TEST)]:
        (example,) = examples(builder, split).values()
        assert example["image_id"].decode() == name
        assert example["image"] == IMAGES[name]
        assert [c.decode() for c in example["captions"]] == captions[name]
    assert (example["height"], example["width"]) == (12, 16)


def test_decoded_images_have_three_channels(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files({TEST: IMAGES[TEST]}))
    build(source, tmp_path / "data")
    (example,) = tfds.load("flickr8k_tfds", data_dir=tmp_path / "data", split="test")
    assert example["image"].shape == (12, 16, 3)


def test_every_form_gives_the_same_examples(tmp_path):
    captions = {name: ["First .", "Second ."] for name in IMAGES}
    kaggle = kaggle_files(IMAGES, captions)
    uiuc = {
        "Flickr8k.token.txt": token_table(captions),
        **{f"Flicker8k_Dataset/{name}": data for name, data in IMAGES.items()},
    }
    forms = [
        write_tree(tmp_path / "kaggle", kaggle),
        write_zip(tmp_path / "kaggle.zip", kaggle),
        write_tree(tmp_path / "uiuc", uiuc),
        write_zip(tmp_path / "uiuc.zip", uiuc),
    ]
    built = [examples(build(form, tmp_path / f"data{i}")) for i, form in enumerate(forms)]
    for other in built[1:]:
        for name in IMAGES:
            np.testing.assert_equal(other[name], built[0][name])


def test_array_record_holds_the_same_examples(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(IMAGES))
    record = build(source, tmp_path / "data", file_format="tfrecord")
    array = build(source, tmp_path / "array", file_format="array_record")
    for split, name in [("train", TRAIN), ("validation", VALIDATION), ("test", TEST)]:
        (example,) = array.as_data_source(split=split, decoders=SKIP)
        np.testing.assert_equal(example, examples(record)[name])


def split_of(builder) -> dict[str, str]:
    return {name: split for split in builder.info.splits for name in examples(builder, split)}


def test_own_images_keep_their_split_when_others_come(tmp_path):
    few = build(write_tree(tmp_path / "few", kaggle_files(own_images(40))), tmp_path / "1")
    many = build(write_tree(tmp_path / "many", kaggle_files(own_images(60))), tmp_path / "2")
    assert set(split_of(few).values()) == {"train", "validation", "test"}
    assert split_of(few).items() <= split_of(many).items()


def test_identical_images_fall_on_one_side(tmp_path):
    images = {f"copy{i}.jpg": photo() for i in range(20)}
    builder = build(write_tree(tmp_path / "in", kaggle_files(images)), tmp_path / "data")
    assert len(set(split_of(builder).values())) == 1


def test_fractions_are_configurable_and_the_data_loads_by_the_configs_name(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(own_images(30)))
    config = flickr8k_tfds.Config(name="recipe", fractions={"train": 0.8, "validation": 0.2})
    built = build(source, tmp_path / "data", config=config)
    assert set(built.info.splits) == {"train", "validation"}
    loaded = tfds.builder("flickr8k_tfds/recipe", data_dir=tmp_path / "data")
    assert loaded.info.splits["train"].num_examples > loaded.info.splits["validation"].num_examples


def test_shards_and_slices(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(own_images(30)))
    config = flickr8k_tfds.Config(name="one", fractions={"train": 1.0})
    builder = build(source, tmp_path / "data", config=config, num_shards=3)
    assert builder.info.splits["train"].num_shards == 3
    halves = [examples(builder, "train[:50%]"), examples(builder, "train[50%:]")]
    assert len(halves[0]) == len(halves[1]) == 15
    assert not halves[0].keys() & halves[1].keys()


def test_square_configs_keep_png_of_that_side(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(IMAGES))
    for side in (224, 448):
        builder = build(source, tmp_path / "data", config=f"square{side}")
        example = examples(builder)[TRAIN]
        image = Image.open(io.BytesIO(example["image"]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (side, side))
        assert (example["height"], example["width"]) == (12, 16)


def test_some_examples_only(tmp_path, capsys):
    source = write_tree(tmp_path / "in", kaggle_files(own_images(9)))
    config = flickr8k_tfds.Config(name="one", fractions={"train": 1.0})
    builder = build(source, tmp_path / "data", config=config, max_examples_per_split=2)
    assert len(examples(builder)) == 2
    assert report_of(builder)["not_written"] == 7
    nothing = flickr8k_tfds.Config(name="none", fractions={"train": 1.0})
    build(source, tmp_path / "data", config=nothing, max_examples_per_split=0)


def test_without_data_it_comes_from_kaggle(tmp_path, monkeypatch):
    import kagglehub

    source = write_tree(tmp_path / "in", kaggle_files(IMAGES))
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(source))
    builder = build(None, tmp_path / "data")
    assert examples(builder).keys() == IMAGES.keys()


@pytest.mark.parametrize("given", ["empty", "missing"])
def test_a_folder_without_data_is_an_error_and_no_download(tmp_path, monkeypatch, given):
    import kagglehub

    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: pytest.fail("downloads"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no data set|does not exist"):
        build(tmp_path / given, tmp_path / "data")


def test_bad_configs():
    with pytest.raises(ValueError, match="must add up to 1"):
        flickr8k_tfds.Config(name="bad", fractions={"train": 0.5})
    for side in (0, "224"):
        with pytest.raises(ValueError, match="side is"):
            flickr8k_tfds.Config(name="bad", side=side)
    with pytest.raises(ValueError, match="strict is 'false'"):
        flickr8k_tfds.Config(name="bad", strict="false")


@pytest.mark.slow
def test_real_photographs(shared, tmp_path):
    source = shared / "flickr8k" / "full"
    builder = build(source, tmp_path)
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 400, "validation": 119, "unused": 10}
    for name, example in examples(builder).items():
        original = (source / "Images" / name).read_bytes()
        assert hashlib.sha256(example["image"]).digest() == hashlib.sha256(original).digest()
    report = report_of(builder)
    assert not report["left_out"]
    assert (report["flickr8k"]["images"], report["flickr8k"]["captions"]) == (529, 2645)


def test_an_empty_path_is_no_wish_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr("flickr8k_tfds.flickr8k_tfds_dataset_builder.fetch_from_kaggle", None)
    with pytest.raises(DatasetError, match="manual_dir is empty, expected a folder or a zip"):
        build("", tmp_path)
