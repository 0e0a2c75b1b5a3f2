"""Names of images that do not meet byte for byte: one rule, which never guesses between files."""

import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.data.sources.image_folder import ImageFolder, differing


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "Café 1.JPG", "sub/b.png", "sub/c.jpg", "other/c.jpg", ".hidden.jpg"):
        path = tmp_path / unicodedata.normalize("NFC", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("A.JPG", "a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("Images/a.jpg", "a.jpg"),  # a leading folder that is not there
        ("/somewhere/else/a.jpg", "a.jpg"),
        ("Caf%C3%A9%201.jpg", "Café 1.JPG"),
        (unicodedata.normalize("NFD", "café 1.jpg"), "Café 1.JPG"),
        ("sub\\b.png", "sub/b.png"),
        ("b.png", "sub/b.png"),  # the table leaves the folder out
        ("b", "sub/b.png"),  # and the suffix
        ("sub/c", None),  # in no folder by its path, and in two by its name
        ("sub/c.jpg", "sub/c.jpg"),
        ("c.jpg", None),
        (".hidden.jpg", None),
        ("", None),
        ("..", None),
    ],
)
def test_a_name_finds_one_file_or_none(folder, name, found):
    assert folder.find(name) == found


def test_an_absolute_path_within_the_folder_is_found(folder):
    assert folder.find(os.path.join(folder.folder, "sub", "c.jpg")) == "sub/c.jpg"


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30))
def test_whatever_the_name_only_listed_files_are_found(tmp_path_factory, name):
    place = tmp_path_factory.getbasetemp() / "listed"
    place.mkdir(exist_ok=True)
    (place / "a.jpg").write_bytes(b"x")
    assert ImageFolder(str(place)).find(name) in (None, "a.jpg")


def test_folders_that_are_not_there_or_are_empty_are_told(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="is not a folder with images"):
            ImageFolder(str(path)).find("a.jpg")


def test_what_was_matched_loosely_is_told_with_three_examples():
    assert differing([("a", "a")]) == ""
    told = differing([(f"{k}.JPG", f"{k}.jpg") for k in range(1000)])
    assert told.startswith("1,000 names were matched loosely: '0.JPG' is '0.jpg', ")
    assert told.endswith("'2.JPG' is '2.jpg', ...") and len(told) < 200


def test_links_that_loop_end(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert ImageFolder(str(tmp_path)).files == ["a.jpg", "loop"] or ImageFolder(
        str(tmp_path)
    ).files == ["a.jpg"]
