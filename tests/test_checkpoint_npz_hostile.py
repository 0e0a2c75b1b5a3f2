"""`.npz` files that were made to do harm: their structure contradicts itself."""

import struct
import zipfile

import numpy as np
import pytest
from npz_cases import A, B, npy, npz, zipped

from paligemma_lib.checkpoint.npz import NpzReader


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


def central(content, nth):
    """Offset of the nth entry in the table of contents."""
    place = -1
    for _ in range(nth + 1):
        place = content.index(b"PK\1\2", place + 1)
    return place


def lying_over(content):
    first = struct.unpack_from("<I", content, central(content, 0) + 42)
    struct.pack_into("<I", content, central(content, 1) + 42, *first)
    name = slice(central(content, 1) + 46, central(content, 1) + 46 + len("params/b.npy"))
    content[name] = b"params/a.npy"  # as a's local header says
    content[name.start + len("params/")] = ord("a")


def inside_another(content):
    struct.pack_into("<I", content, central(content, 1) + 42, 700)
    content[700:742] = content[content.index(b"params/b.npy") - 30 :][:42]


def into_the_table(content):
    for place in (20, 24):
        struct.pack_into("<I", content, central(content, 1) + place, 1 << 20)


def another_name_in_the_member(content):
    place = content.index(b"params/b.npy")
    content[place : place + 12] = b"params/c.npy"


def a_name_with_an_end(content):
    for place in (content.index(b"params/b.npy"), content.rindex(b"params/b.npy")):
        content[place : place + 12] = b"params/b\0npy"


def sizes_of_zip64_without_them(content):
    for place in (20, 24):
        struct.pack_into("<I", content, central(content, 1) + place, 0xFFFFFFFF)


def no_member_there(content):
    struct.pack_into("<I", content, central(content, 1) + 42, 100)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lying_over, "lie over each other|stored twice"),
        (inside_another, "params/a.npy and params/b.npy lie over each other"),
        (into_the_table, "params/b.npy ends after the table of contents begins"),
        (another_name_in_the_member, "params/b.npy .*differ"),
        (a_name_with_an_end, "another name in part of the file|is not a .npy"),
        (sizes_of_zip64_without_them, "ends after the table of contents|zip64"),
        (no_member_there, "params/b.npy begins at byte 100, where no member is"),
    ],
)
def test_members_that_are_elsewhere_than_they_say(path, change, reason):
    content = npz()
    change(content)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        NpzReader(path)


@pytest.mark.parametrize(
    ("descr", "shape", "reason"),
    [
        ("'<V2'", "(0, 1000000000000)", r"w.npy has the shape \[0, 10000000"),
        ("'<f4'", "(0, 4)", "w.npy has the shape .*, which holds no values"),
        ("'V0'", "(9223372036854775807, 9223372036854775807)", "w.npy has the shape"),
        ("'<f4'", "(4294967296, 4294967296, 1)", "w.npy has the shape"),
        ("'<f4'", f"({'9' * 4000},)", "w.npy has the shape"),
        ("'<f4'", f"({'9' * 5000},)", "w.npy "),
        ("'<f4'", f"({'1,' * 1000})", "w.npy has the shape"),
        ("'<f4'", "(True, 1)", "w.npy has the shape"),
        ("'|i1'", "(1000000,)", "w.npy has the shape"),
        ("'|O'", "(1000000,)", "w.npy has the shape"),
        ("'<f4'", "[1]", "w.npy shape is not valid"),
        ("[('a', '<V2')]", "(2,)", "w.npy has 74 bytes|w.npy has"),
        ("('<f4', (1000000000,))", "(1,)", "w.npy "),
        ("'V99999999999999'", "(1,)", "w.npy "),
        ("3", "(1,)", "w.npy descr is not a valid"),
        ("-" * 5000 + "1", "(1,)", "w.npy "),
        ("(" * 500 + ")" * 500, "(1,)", "w.npy "),
    ],
)
def test_headers_that_claim_too_much_are_named(path, descr, shape, reason):
    path.write_bytes(zipped(w=npy(descr, shape, bytes(8))))
    with pytest.raises(ValueError, match=f"{path}: .*{reason}"):
        NpzReader(path)


def test_a_single_value_has_no_rows(path):
    path.write_bytes(zipped(w=npy("'<f4'", "()", bytes(4))))
    with NpzReader(path) as file, pytest.raises(ValueError, match="w is a single value"):
        file.read("w")


@pytest.mark.parametrize("descr", ["'<V2'", "'|V2'", "'V2'", "'>V2'"])
def test_bfloat16_by_any_of_its_names(path, descr):
    path.write_bytes(zipped(w=npy(descr, "(2,)", b"\x80\x3f\0\0")))
    with NpzReader(path) as file:
        assert file.read("w").astype(float).tolist() == [1, 0]


def test_a_huge_table_of_contents_is_not_read(path):
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 1 << 31, 0, 0)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no disk
        file.seek(0, 2)
        file.write(end)
    with pytest.raises(ValueError, match="a table of contents of 2,147,483,648 bytes"):
        NpzReader(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><head><title>Sign in</title>", "Accept the conditions"),
        (b"GGUF\3\0\0\0" + bytes(90), "GGUF file of llama.cpp"),
        (b'\x40\0\0\0\0\0\0\0{"a":' + bytes(90), "give the folder that holds it"),
    ],
)
def test_what_is_there_instead_is_named(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        NpzReader(path)


def test_a_pytorch_file_is_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\2.")
    with pytest.raises(ValueError, match="PyTorch's, a pickle"):
        NpzReader(path)


def test_of_a_training_state_only_the_parameters_are_read(path, caplog):
    caplog.set_level("INFO")
    others = {
        "opt/0/count": np.zeros((), np.int32),
        "opt/1/mu/img/w": A,
        "chrono/steps": np.zeros(()),
    }
    path.write_bytes(npz(**others, **{"params/img/w": A, "params/llm/b": B}))
    with NpzReader(path) as file:
        assert file.shapes == {"img/w": A.shape, "llm/b": B.shape}
        np.testing.assert_array_equal(file.read("img/w"), A)
        assert file.verify().startswith("2 arrays, all checksums match")
    assert "left out what is no parameter: chrono; opt" in caplog.text
