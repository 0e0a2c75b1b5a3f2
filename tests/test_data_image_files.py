"""A source of image files, folders and patterns."""

import logging
import os

import pytest
from data_cases import photo

from paligemma_lib.data import from_image_files


@pytest.fixture
def folders(tmp_path):
    for place in ("a", "b/deep"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/deep/2.jpg"):
        (tmp_path / name).write_bytes(photo(0))
    return tmp_path


def test_images_of_one_name_in_two_folders_have_ids_of_their_own(folders):
    a, b = str(folders / "a"), str(folders / "b")
    source = from_image_files([a, b])
    assert source.names == (f"{a}/1.jpg", "2.jpg", f"{b}/1.jpg", "deep/2.jpg")
    assert [record.image_id for record in source.read(range(4))] == list(source.names)


def test_ids_that_cannot_be_told_apart_are_an_error(folders, monkeypatch):
    monkeypatch.chdir(folders)
    os.makedirs("b/a")
    (folders / "b/a/1.jpg").write_bytes(photo(1))
    with pytest.raises(ValueError, match="b/a/1.jpg and a/1.jpg have the same image id, a/1.jpg"):
        from_image_files(["b", "a"])


def test_the_listing_is_sorted_and_leaves_out_what_is_hidden(folders):
    for name in (".hidden/1.jpg", "__MACOSX/1.jpg", "._1.jpg", "notes.txt"):
        (folders / name).parent.mkdir(exist_ok=True)
        (folders / name).write_bytes(b"")
    (folders / "folder.jpg").mkdir()
    (folders / "broken.jpg").symlink_to(folders / "nowhere")
    names = from_image_files([str(folders)]).names
    assert names == ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/deep/2.jpg", "broken.jpg")


def test_ids_here_are_the_paths(folders, monkeypatch):
    monkeypatch.chdir(folders)
    assert from_image_files([".", "a"]).paths == ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/deep/2.jpg")


@pytest.mark.parametrize(
    ("place", "problem"),
    [("c", "does not exist"), ("c/*.jpg", "has no images"), ("empty", "has no images")],
)
def test_what_is_missing_is_told(folders, place, problem):
    (folders / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{problem}: expected an image file"):
        from_image_files([str(folders / place)])


def test_a_folder_that_cannot_be_listed_is_told(folders, monkeypatch, caplog):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with caplog.at_level(logging.WARNING):
        assert len(from_image_files([str(folders)])) == 3
    assert "deep cannot be listed, and is left out: Permission denied" in caplog.text
