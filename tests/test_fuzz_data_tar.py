"""Whatever a tar file holds, its members are listed, or one sentence says what is wrong."""

import os
import tarfile

import pytest
from data_cases import photo
from fuzzing import EXAMPLES, damaged, fuzz
from hypothesis import strategies as st

from paligemma_lib.data.sources import despite_damage
from paligemma_lib.data.sources.tar_members import shards_of, tar_members
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource

PHOTO = photo(0, (4, 3))
FIELDS = {  # of a header: offset and length
    "name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12), "type": (156, 1),
    "link": (157, 100), "magic": (257, 8), "prefix": (345, 155),
}  # fmt: skip


def member(name: str, data: bytes, form=tarfile.PAX_FORMAT, **fields) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(form) + data + bytes(-len(data) % 512)


def whole(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


VALID = whole(
    member("a/1.png", PHOTO),
    member("a/1.txt", b"a dog"),
    member("ü" * 120 + ".png", PHOTO),
    member("ü" * 120 + ".json", b'{"caption": "a cat"}'),
    member("3.png", PHOTO, tarfile.GNU_FORMAT),
    member("x" * 150 + ".txt", b"a dog", tarfile.GNU_FORMAT),
)


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def check(folder, data: bytes) -> None:
    path = os.path.join(folder, "x.tar")
    with open(path, "wb") as file:
        file.write(data)
    samples, problem = tar_members(path)
    assert isinstance(problem, str)
    for members in samples.values():
        assert all(0 <= offset <= offset + size <= len(data) for offset, size in members.values())
    try:
        source = despite_damage(WebDatasetSource((path,)))
        count = len(source)
    except ValueError as error:
        assert str(error)
        return
    for number in range(count):
        try:
            source.read([number])
        except ValueError as error:
            assert path in str(error)


@EXAMPLES
def test_damaged_bytes(examples, tmp_path):
    fuzz(examples, lambda data: check(tmp_path, data), damaged(VALID))


@EXAMPLES
def test_fields_of_a_header(examples, tmp_path):
    starts = [at for at in range(0, len(VALID), 512) if VALID[at + 257 : at + 262] == b"ustar"]
    odd = st.one_of(
        st.sampled_from(
            [b"", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-1", b"7" * 12, b"../up.png", b"/x.png"]
        ),
        st.sampled_from([b"x", b"g", b"L", b"K", b"S", b"5", b"1", b"2"]),
        st.binary(max_size=12),
    )

    def changed(start, field, value):
        data = bytearray(VALID)
        at, length = FIELDS[field]
        data[start + at : start + at + length] = value[:length].ljust(length, b"\0")
        header = with_checksum(data[start : start + 512])
        check(tmp_path, bytes(data[:start]) + header + bytes(data[start + 512 :]))

    fields = st.sampled_from(sorted(FIELDS))
    fuzz(examples, changed, st.sampled_from(starts), fields, odd)


@EXAMPLES
def test_pax_headers(examples, tmp_path):
    def changed(key, value):
        data = whole(
            member("1.png", PHOTO, pax_headers={key: value}),
            member("2.png", PHOTO, size=len(PHOTO)),
        )
        check(tmp_path, data)

    keys = st.sampled_from(
        ["size", "path", "mtime", "GNU.sparse.size", "GNU.sparse.map", "hdrcharset"]
    )
    values = st.one_of(
        st.sampled_from(["-1536", "-1", "0", "9" * 30, "../../x.png", "1,2,3", "1e400", "BINARY"]),
        st.text(st.characters(codec="utf-8"), max_size=8),
    )
    fuzz(examples, changed, keys, values)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "data",
    [
        whole(member("1.png", b"", pax_headers={"size": "-1536"})),  # leads back to itself
        member("x", b"1" * 16_000, type=tarfile.XHDTYPE),  # a regular expression took minutes
        member("x", b"1 " * 5_000_000, type=tarfile.XHDTYPE),
        b"".join(member("x", b"", type=tarfile.XHDTYPE) for _ in range(5_000)),
        member("x", b"", tarfile.GNU_FORMAT, type=tarfile.GNUTYPE_LONGNAME, size=1 << 40),
    ],
)
def test_hostile_headers_end_soon(tmp_path, data):
    check(tmp_path, data)


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png"])
def test_a_member_whose_name_leads_out_is_damaged(tmp_path, name):
    (tmp_path / "x.tar").write_bytes(whole(member("1.png", PHOTO), member(name, PHOTO)))
    source = WebDatasetSource((str(tmp_path / "x.tar"),))
    assert source.read([0])[0].image_id == "1"
    with pytest.raises(ValueError, match="its name leads out of the archive"):
        source.read([1])


def test_keys_of_several_shards_have_ids_of_their_own(tmp_path):
    for shard in ("a", "b"):
        for folder in ("", "deep"):
            (tmp_path / folder).mkdir(exist_ok=True)
            data = whole(member("1.png", PHOTO), member(f"{shard}{folder}.png", PHOTO))
            (tmp_path / folder / f"{shard}.tar").write_bytes(data)
    paths = [tmp_path / "a.tar", tmp_path / "b.tar", tmp_path / "deep" / "a.tar"]
    source = WebDatasetSource(tuple(map(str, paths)))
    ids = [record.image_id for record in source.read(range(len(source)))]
    assert ids == ["a#1/1", "a", "b/1", "b", "a#2/1", "adeep"]
    assert source.images_of_records() == ["1", "a", "1", "b", "1", "adeep"]


def test_ranges_of_files_are_bounded():
    for pattern in ("{0..99999999999}.tar", "{5..3}.tar"):
        with pytest.raises(ValueError, match="expected 1 to 1,000,000"):
            shards_of(pattern)
