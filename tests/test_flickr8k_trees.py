import os
import struct
import zipfile

import pytest
from flickr8k_sources import closed, write_tree, write_zip

from flickr8k_tfds.trees import DatasetError, Folder, UnreadableFile, Zip, is_escape, open_tree


@pytest.fixture(params=["folder", "zip"])
def tree(request, tmp_path):
    files = {"a.txt": b"a" * 10, "in/b.txt": b"b", ".hidden": b"h"}
    if request.param == "folder":
        return Folder(write_tree(tmp_path / "root", files))
    return Zip(write_zip(tmp_path / "root.zip", {**files, "__MACOSX/._a.txt": b"m"}))


def test_names_and_bytes(tree):
    assert sorted(tree.names()) == ["a.txt", "in/b.txt"]
    assert tree.read("in/b.txt", limit=1) == b"b"


def test_a_file_that_grows_while_it_is_read_is_read_whole(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"0123456789")
    real = os.stat

    def before_it_grew(path, **options):
        found = real(path, **options)
        return os.stat_result((found.st_mode, *found[1:6], 4, *found[7:]))

    monkeypatch.setattr("os.stat", before_it_grew)
    assert Folder(tmp_path).read("a.txt", limit=10) == b"0123456789"
    with pytest.raises(UnreadableFile, match="larger than the limit"):
        Folder(tmp_path).read("a.txt", limit=9)


def test_the_limit_is_kept(tree):
    assert len(tree.read("a.txt", limit=10)) == 10
    with pytest.raises(UnreadableFile, match="larger than the limit"):
        tree.read("a.txt", limit=9)


def test_folder_stops_at_three_levels(tmp_path):
    write_tree(tmp_path, {"a/b/c.txt": b"", "a/b/c/d.txt": b""})
    assert list(Folder(tmp_path).names()) == ["a/b/c.txt"]


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableFile, match="not a regular file"):
        Folder(tmp_path).read("pipe.jpg", limit=10)


@pytest.mark.parametrize("name", ["../../x.jpg", "/x.jpg", "a/../../x.jpg", "C:/x.jpg"])
def test_a_zip_with_a_member_outside_is_refused(tmp_path, name):
    path = write_zip(tmp_path / "evil.zip", {"captions.txt": b"", name: b"x"})
    with pytest.raises(DatasetError, match="points outside the archive"):
        Zip(path)


def test_a_zip_cut_off_is_refused(tmp_path):
    path = write_zip(tmp_path / "cut.zip", {"a.txt": os.urandom(5000)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="not a complete zip file.*download it again"):
        Zip(path)


def test_a_zip_bomb_is_not_inflated(tmp_path):
    path = write_zip(tmp_path / "bomb.zip", {"bomb.jpg": bytes(50 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UnreadableFile, match="larger than the limit of 1 MiB"):
        Zip(path).read("bomb.jpg", limit=1 << 20)


def test_a_zip_bomb_that_lies_about_its_size_is_not_inflated(tmp_path):
    path = write_zip(tmp_path / "bomb.zip", {"bomb.jpg": bytes(50 << 20)})
    honest, lie = struct.pack("<I", 50 << 20), struct.pack("<I", 100)
    path.write_bytes(path.read_bytes().replace(honest, lie))
    with pytest.raises(UnreadableFile, match="damaged"):
        Zip(path).read("bomb.jpg", limit=1 << 20)


def test_a_damaged_member_is_unreadable(tmp_path):
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"A" * 1000)
    path.write_bytes(path.read_bytes().replace(b"A" * 1000, b"B" * 1000))
    with pytest.raises(UnreadableFile, match="damaged in the zip.*CRC"):
        Zip(path).read("a.txt", limit=2000)


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(DatasetError, match="neither a folder nor a .zip"):
        open_tree(tmp_path / "a.tar")
    with pytest.raises(DatasetError, match="does not exist"):
        open_tree(tmp_path / "nowhere")


def test_a_closed_folder_is_noted_and_the_rest_is_listed(tmp_path):
    write_tree(tmp_path, {"a.txt": b"", "closed/b.txt": b""})
    with closed(tmp_path / "closed"):
        folder = Folder(tmp_path)
        assert list(folder.names()) == ["a.txt"]
        assert folder.closed == [tmp_path / "closed"]


def test_a_link_in_a_circle_is_no_folder(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    assert list(Folder(tmp_path).names()) == ["circle"]


def test_an_encrypted_member_is_unreadable(tmp_path):
    path = write_zip(tmp_path / "locked.zip", {"a.txt": b"secret"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the member's own header
    data[data.index(b"PK\1\2") + 8] |= 1  # and in the directory
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match="cannot be unpacked: .*encrypted"):
        Zip(path).read("a.txt", limit=100)


def test_a_damaged_lzma_member_is_unreadable(tmp_path):
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.txt", bytes(range(256)) * 10)
    data = bytearray(path.read_bytes())
    data[60:80] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match="damaged in the zip"):
        Zip(path).read("a.txt", limit=10_000)


def test_odd_member_names_are_passed_over(tmp_path):
    path = write_zip(
        tmp_path / "odd.zip", {".": b"", "in/": b"", "__MACOSX/a.txt": b"", "b.txt": b""}
    )
    assert list(Zip(path).names()) == ["b.txt"]


@pytest.mark.parametrize(
    ("name", "escapes"),
    [("1:2.jpg", False), ("a..b.jpg", False), ("C:\\a.jpg", True), ("a/../b.jpg", True)],
)
def test_what_counts_as_an_escape(name, escapes):
    assert is_escape(name) == escapes


def test_a_name_that_is_too_long_for_the_file_system(tmp_path):
    with pytest.raises(DatasetError, match="cannot be accessed: File name too long"):
        open_tree(tmp_path / ("x" * 300))
