import pickle

import pytest
from flickr8k_sources import exif_rotated, image, write_tree, write_zip

from flickr8k_tfds import image_tasks
from flickr8k_tfds.image_checks import sha256
from flickr8k_tfds.image_tasks import Checked
from flickr8k_tfds.layout import File
from flickr8k_tfds.trees import DatasetError, open_tree

FILES = {
    "plain.jpg": image(),
    "turned.jpg": exif_rotated(),
    "still.gif": image(form="GIF"),
    "bad.jpg": b"bad",
}


@pytest.fixture(params=["folder", "zip"])
def tree(request, tmp_path):
    write = write_zip if request.param == "zip" else write_tree
    return open_tree(write(tmp_path / f"in.{request.param}", FILES))


@pytest.mark.parametrize("side", [None, 8])
@pytest.mark.parametrize("apply_exif", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_one_reading_gives_what_two_by_another_process_give(tree, name, side, apply_exif):
    there = pickle.loads(pickle.dumps(File(tree, name)))  # as Beam sends it
    facts, data = image_tasks.load(File(tree, name), side=side, apply_exif=apply_exif)
    assert image_tasks.check(there, apply_exif=apply_exif) == facts
    assert image_tasks.digest(there) == facts.sha256 == sha256(FILES[name])
    assert bool(facts.fault) == (name == "bad.jpg") == (data == b"")
    if data:
        checked = Checked(name, there, ["A ."], facts)
        found = image_tasks.load_checked(checked, side=side, apply_exif=apply_exif)
        assert found == (name, image_tasks.example(name, ["A ."], facts, data))


def test_a_file_that_cannot_be_read_has_that_fault(tmp_path):
    file = File(open_tree(write_tree(tmp_path, {"a.txt": b""})), "gone.jpg")
    facts, data = image_tasks.load(file, side=None, apply_exif=True)
    assert "cannot be read" in facts.fault and data == b""
    assert image_tasks.check(file, apply_exif=True) == facts
    assert image_tasks.digest(file) == facts.sha256 == ""


@pytest.mark.parametrize("change", ["other bytes", "gone"])
def test_a_file_that_changed_after_its_check_is_an_error(tmp_path, change):
    file = File(open_tree(write_tree(tmp_path, FILES)), "plain.jpg")
    checked = Checked(file.name, file, [], image_tasks.check(file, apply_exif=True))
    path = tmp_path / file.name
    path.unlink() if change == "gone" else path.write_bytes(image("white"))
    with pytest.raises(DatasetError, match="plain.jpg has changed since the build began"):
        image_tasks.load_checked(checked, side=None, apply_exif=True)


def test_a_zip_that_was_written_again_is_opened_again(tmp_path):
    read = []
    for colour in ("red", "white"):
        tree = open_tree(write_zip(tmp_path / "in.zip", {"a.jpg": image(colour)}))
        read.append(image_tasks.digest(pickle.loads(pickle.dumps(File(tree, "a.jpg")))))
    assert read == [sha256(image("red")), sha256(image("white"))]
