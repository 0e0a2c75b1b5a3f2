"""Links out of the folder of images are not followed, unless the configuration says so."""

import pytest
from flickr8k_builds import IMAGES, build, examples, report_of
from flickr8k_sources import TRAIN, image, kaggle_files, write_tree, write_zip

import flickr8k_tfds
from flickr8k_tfds.layout import locate
from flickr8k_tfds.trees import DatasetError

ALLOWING = flickr8k_tfds.Config(name="allowing", allow_outside=True)


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "in", kaggle_files(IMAGES))


def link(path, target):
    path.rename(target)
    path.symlink_to(target)


def test_an_image_elsewhere_is_left_out_and_told_or_built_if_allowed(source, tmp_path):
    link(source / "Images" / TRAIN, tmp_path / "elsewhere.jpg")
    builder = build(source, tmp_path / "data")
    assert len(examples(builder)) == len(IMAGES) - 1
    (defect,) = report_of(builder)["left_out"]
    assert defect["what"] == TRAIN and "a link that leads out of" in defect["why"]
    assert len(examples(build(source, tmp_path / "data", config=ALLOWING))) == len(IMAGES)


def test_links_within_the_folder_are_followed(source, tmp_path):
    (source / "real").mkdir()
    link(source / "Images" / TRAIN, source / "real" / "x.jpg")
    assert len(examples(build(source, tmp_path / "data"))) == len(IMAGES)


def test_the_folder_itself_may_be_a_link(source, tmp_path):
    (tmp_path / "here").symlink_to(source)
    assert len(locate(tmp_path / "here").images) == len(IMAGES)


@pytest.mark.parametrize("name", ["Images", "captions.txt"])
def test_a_table_or_folder_elsewhere_is_told(source, tmp_path, name):
    link(source / name, tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="a link that leads out of .*allow_outside"):
        build(source, tmp_path / "data")
    assert len(examples(build(source, tmp_path / "data", config=ALLOWING))) == len(IMAGES)


def test_a_zip_elsewhere_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    zipped = write_zip(tmp_path / "x.zip", kaggle_files(IMAGES))
    (tmp_path / "in" / "x.zip").symlink_to(zipped)
    with pytest.raises(DatasetError, match="x.zip is a link that leads out of the folder"):
        locate(tmp_path / "in")
    assert len(locate(tmp_path / "in", allow_outside=True).images) == len(IMAGES)


def test_what_was_built_with_links_is_not_taken_for_what_is_built_without(source, tmp_path):
    config = {"name": "mine", "fractions": {"train": 1.0}}
    build(source, tmp_path / "data", config=flickr8k_tfds.Config(**config, allow_outside=True))
    with pytest.raises(DatasetError, match="allow_outside was true and is null"):
        build(source, tmp_path / "data", config=flickr8k_tfds.Config(**config))


def test_names_in_messages_do_not_act_on_a_terminal(tmp_path):
    name = "\x1b[2Jred.jpg"
    source = write_tree(tmp_path / "in", kaggle_files({name: image(), "b.jpg": b"no image"}))
    error = DatasetError(f"{source}/{name}\nsecond line")
    assert "\x1b" not in str(error) and "\nsecond line" in str(error)
    builder = build(source, tmp_path / "data")
    assert "\x1b" not in builder._report.text()
