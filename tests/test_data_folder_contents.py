"""Data one level deeper, as in a zip that was unpacked into a folder of its own; COCO's folder."""

import shutil

import pytest
from data_cases import photo
from form_cases import NAMES, as_captions_txt, as_coco

from paligemma_lib.data import open_source
from paligemma_lib.data.sources import splits_of


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "here"
    (folder / "Images").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / "Images" / name).write_bytes(photo(number))
    return folder


def test_data_in_the_one_folder_of_a_zip_are_found(images, tmp_path, caplog):
    inner = tmp_path / "download" / "archive"
    inner.mkdir(parents=True)
    (images / "Images").rename(inner / "Images")
    as_captions_txt(inner)
    with caplog.at_level("INFO"):
        source = open_source(str(tmp_path / "download"))
    assert len(source.read(range(6))) == 6
    assert "download: the data are in its folder archive" in caplog.text


def test_data_in_two_folders_are_told(images, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(images / "Images", tmp_path / "both" / name / "Images")
        as_captions_txt(tmp_path / "both" / name)
    with pytest.raises(ValueError, match="but there is a/captions.txt, b/captions.txt"):
        open_source(str(tmp_path / "both"))


@pytest.mark.parametrize("place", ["coco", "coco/annotations", "download/coco/annotations"])
def test_the_folder_of_coco(images, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    home = tmp_path / place.removesuffix("/annotations")
    for name in ("train2017", "val2017"):
        shutil.copytree(images / "Images", home / name)
        as_coco(images).rename(tmp_path / place / f"captions_{name}.json")
    found = splits_of(str(tmp_path / place.partition("/")[0]))
    assert {name: len(source.read(range(6))) for name, source in found.items()} == {
        "train": 6,
        "val": 6,
    }
