"""Files from anywhere: damaged, cut short, or made to do harm."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.checkpoint.npz import NpzReader

ARRAYS = {
    "params/a": np.arange(600, dtype=np.float32).reshape(3, 200),
    "params/b/c": np.linspace(0, 1, 50, dtype=np.float16),
}


def npz_bytes(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **(arrays or ARRAYS))
    return file.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A `.npy` file with any header."""
    text = header.encode("latin1")
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text + data


def header(shape: str, descr: str = "'<f4'", fortran: bool = False) -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_rows_in_any_order(path, save):
    path.write_bytes(npz_bytes(save))
    with NpzReader(path) as file:
        assert file.shapes == {"a": (3, 200), "b/c": (50,)}
        assert file.is_compressed == (save is np.savez_compressed)
        for rows in (slice(2, 3), slice(0, 2), slice(1, 3), None):
            want = ARRAYS["params/a"][rows or slice(None)]
            np.testing.assert_array_equal(file.read("a", rows), want)
        np.testing.assert_array_equal(file.read("b/c", slice(7, 9)), ARRAYS["params/b/c"][7:9])
        np.testing.assert_array_equal(file.read("a", slice(1, 2)), ARRAYS["params/a"][1:2])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_value_error_or_read_in_its_sizes(tmp_path_factory, save, data):
    content = bytearray(npz_bytes(save))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file.npz"
    path.write_bytes(content)
    try:
        with NpzReader(path) as file:
            for name in file.shapes:
                if file.dtypes[name] in (np.float32, np.float16):
                    assert file.read(name).nbytes <= 10 * len(content)
    except ValueError as error:
        assert str(path) in str(error)


def test_a_table_of_contents_outside_the_file_is_an_error(path):
    content = bytearray(npz_bytes(np.savez))
    content[-3] = 255  # the highest byte of where it begins; the system refuses to go there
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a complete .npz file"):
        NpzReader(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_short_is_an_error(path, save):
    content = npz_bytes(save)
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="not a complete .npz file.*download it again"):
            NpzReader(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_checksums(path, save):
    content = bytearray(npz_bytes(save, w=np.random.default_rng(0).random(20_000, np.float32)))
    path.write_bytes(content)
    with NpzReader(path) as file:
        file.verify()
    content[40_000] ^= 1
    path.write_bytes(content)
    with NpzReader(path) as file, pytest.raises(ValueError, match=f"{path}, w: not a complete"):
        file.verify()
    if save is np.savez_compressed:
        with NpzReader(path) as file, pytest.raises(ValueError, match="w: not a complete"):
            file.read("w")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_pickles_are_never_loaded(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(path, w=np.array([Evil()], dtype=object))
    with NpzReader(path) as file:
        assert file.dtypes["w"].hasobject
        with pytest.raises(ValueError, match="w has dtype object, which is never read"):
            file.read("w")
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not a complete .npz file"):
        NpzReader(path)
    assert not os.path.exists("unpickled")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(header("(4,)"), b"\0" * 12), "its shape [4] needs"),
        (npy(header("(10**15,)"), b"\0" * 16), "not a complete"),
        (npy(header("(1000000000000000,)"), b"\0" * 16), "has the shape [1000000000000000], but "),
        (npy(header("(-1, -4)"), b"\0" * 16), "has the shape [-1, -4], but "),
        (npy(header("(2, 2)", fortran=True), b"\0" * 16), "Fortran order"),
        (npy(header("(1,)") + " " * 20_000, b"\0" * 4), "not a complete"),
        (npy(header("(1,)"), b"\0" * 4, b"\x02\x00"), "version (2, 0)"),
        (npy("__import__('os').mkdir('evaluated')"), "not a complete"),
        (b"text", "not a complete"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_does_not_fit_is_an_error(path, content, reason, method):
    write_zip(path, [("params/w.npy", content)], compression=method)
    tracemalloc.start()
    with pytest.raises(ValueError) as caught:
        NpzReader(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert reason in str(caught.value) and str(path) in str(caught.value)


def test_a_zip_bomb_is_not_unpacked(path):
    write_zip(path, [("w.npy", npy(header("(1,)"), bytes(50 << 20)))], compression=8)
    tracemalloc.start()
    with pytest.raises(ValueError, match="52,428,8.* bytes, but its shape"):
        NpzReader(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("readme.txt", b"hello")], "'readme.txt' is not a .npy array"),
        ([("w.npy", npy(header("()"), b"1234"))] * 2, "w is stored twice"),
        (
            [("w.npy", npy(header("()"), b"1234")), ("params/w.npy", npy(header("()"), b"1234"))],
            "w is stored twice",
        ),
        ([(f"{k}.npy", b"") for k in range(5000)], "5,000 members, expected at most 4,096"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_strange_members_are_an_error(path, members, reason):
    write_zip(path, members)
    with pytest.raises(ValueError, match=reason):
        NpzReader(path)


def test_names_are_names_and_no_paths(path, tmp_path):
    write_zip(path, [("../../evil.npy", npy(header("(1,)"), b"\0" * 4))])
    with NpzReader(path) as file:
        assert list(file.shapes) == ["../../evil"]
        file.read("../../evil")
    assert os.listdir(tmp_path) == ["file.npz"]


def test_other_compressions_and_encryption_are_an_error(path):
    content = npy(header("(1,)"), b"\0" * 4)
    write_zip(path, [("w.npy", content)], compression=zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="compression method that NumPy never uses"):
        NpzReader(path)
    write_zip(path, [("w.npy", content)])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="encrypted"):
        NpzReader(path)


def test_a_folder_and_no_file_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        NpzReader(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        NpzReader(tmp_path / "none.npz")
