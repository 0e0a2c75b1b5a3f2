"""WebDataset's tar files, read by number."""

import io
import json
import tarfile

import pytest
from data_cases import photo

from paligemma_lib.data.sources.tar_members import shards_of
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource


def write(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def damaged(path, place):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[place] ^= 0xFF
    return bytes(data)


def sample(key, **members):
    return [(f"{key}.{extension}", data) for extension, data in members.items()]


def test_samples_of_several_shards(tmp_path):
    told = json.dumps({"caption": ["x", "y"], "question": "what?"}).encode()
    first = write(tmp_path / "a.tar", sample("a/01", jpg=photo(1), txt="one\n\ntwo é\n".encode()))
    second = write(
        tmp_path / "b.tar",
        [*sample("02", json=told, png=photo(2)), *sample("03", jpg=photo(3)), ("04.txt", b"x")],
    )
    source = WebDatasetSource((first, second))
    found = source.read([2, 0, 1])
    assert [(r.image_id, r.captions, r.prefix) for r in found] == [
        ("03", (), None),
        ("a/01", ("one", "two é"), None),
        ("02", ("x", "y"), "what?"),
    ]
    assert [r.image for r in found] == [photo(3), photo(1), photo(2)]
    assert len(source) == 3 and source.where(1) == f"{second}, 02"
    assert source.images_of_records() == ["a/01", "02", "03"]


def test_a_list_of_shards(tmp_path):
    for number in (7, 8, 10):
        write(tmp_path / f"s-{number:03d}.tar", [])
    folder = str(tmp_path)
    assert shards_of(f"{folder}/s-{{007..010}}.tar") == tuple(
        f"{folder}/s-{number:03d}.tar" for number in (7, 8, 9, 10)
    )
    assert shards_of(f"{folder}/s-*.tar") == tuple(
        f"{folder}/s-{number:03d}.tar" for number in (7, 8, 10)
    )
    with pytest.raises(FileNotFoundError, match="no file matches"):
        shards_of(f"{folder}/t-*.tar")


def test_what_is_no_tar_file_of_images_is_told(tmp_path):
    whole = write(tmp_path / "a.tar", sample("01", jpg=photo(1) * 3))
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:1500])
    (tmp_path / "short.tar").write_bytes(data[: 512 + len(photo(1) * 3) // 512 * 512 + 512])
    two = write(tmp_path / "two.tar", [("01.jpg", b"x"), ("02.jpg", b"y")])
    (tmp_path / "header.tar").write_bytes(damaged(two, 1024 + 10))
    (tmp_path / "other.tar").write_bytes(b"nonsense" * 200)
    write(tmp_path / "packed.tar", sample("01", jpg=photo(1)), "w:gz")
    texts = write(tmp_path / "texts.tar", [("01.txt", b"x")])
    for name, message in (
        ("cut.tar", "is truncated in 01.jpg|not a complete, uncompressed tar"),
        ("short.tar", "is truncated or damaged at byte"),
        ("header.tar", "is truncated or damaged at byte"),
        ("other.tar", "not a complete, uncompressed tar file"),
        ("packed.tar", "not a complete, uncompressed tar file"),
    ):
        with pytest.raises(ValueError, match=message):
            len(WebDatasetSource((str(tmp_path / name),)))
    with pytest.raises(ValueError, match="has no images"):
        len(WebDatasetSource((texts,)))
    assert len(WebDatasetSource((whole,))) == 1


def test_captions_that_are_no_text_are_told(tmp_path):
    for number, told in enumerate((b"{", b'{"caption": 3}', b"[1]")):
        path = write(tmp_path / f"{number}.tar", sample("01", jpg=photo(1), json=told))
        with pytest.raises(ValueError, match=f"{number}.tar, 01: "):
            WebDatasetSource((path,)).read([0])


@pytest.mark.parametrize(
    ("members", "captions", "prefix"),
    [
        ({"cls": b"7", "json": b'{"caption": "a dog"}'}, ("a dog",), None),
        ({"cls": b"7"}, ("7",), None),
        ({"txt": b" ", "json": b'{"caption": "a dog"}'}, ("a dog",), None),
        ({"json": b'{"question": "what?"}'}, (), "what?"),
        ({"json": b'{"answers": [{"answer": "yes"}]}'}, ("yes",), None),
    ],
)
def test_the_first_member_with_captions_is_used(tmp_path, members, captions, prefix):
    path = write(tmp_path / "a.tar", sample("01", jpg=photo(1), **members))
    (record,) = WebDatasetSource((path,)).read([0])
    assert (record.captions, record.prefix) == (captions, prefix)


def test_texts_without_an_image_are_told(tmp_path, caplog):
    odd = "02\x1b\udcff"  # an escape, and a byte that is no UTF-8: seen, and never sent
    path = write(tmp_path / "a.tar", [*sample("01", jpg=photo(1)), (f"{odd}.txt", b"x")])
    assert len(WebDatasetSource((path,))) == 1
    told = r"1 samples have text but no image and are left out, the first is 02\x1b\udcff"
    assert told in caplog.text
