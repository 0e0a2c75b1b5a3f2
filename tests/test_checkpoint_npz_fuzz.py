"""`.npz` files after any change of their structure: read or refused, in bounded memory."""

import resource
import time

import numpy as np
import pytest
from fuzzing import EXAMPLES, ODD_NUMBERS, damaged, fuzz
from hypothesis import strategies as st
from npz_cases import npy, npz, zipped

from paligemma_lib.checkpoint.npz import NpzReader
from paligemma_lib.runtime.visible_text import visible


def read_or_refused(path, content):
    """Reads a file: nothing but ValueError, in bounded memory and time."""
    path.write_bytes(content)
    started, size = time.process_time(), len(content)
    try:
        with NpzReader(path) as file:
            for name, shape in file.shapes.items():
                if file.dtypes[name] in (np.float32, np.float16):
                    assert file.read(name).nbytes <= 2000 * size and 0 not in shape
            file.verify()
    except ValueError as error:
        assert str(path) in str(error) and str(error) == visible(str(error))
    assert time.process_time() - started < 5


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB


@EXAMPLES
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damage_is_refused_or_read(tmp_path, examples, save):
    before = memory()
    fuzz(
        examples, lambda data: read_or_refused(tmp_path / "a.npz", data), damaged(bytes(npz(save)))
    )
    assert memory() - before < 200 << 10


FIELDS = {"central": (b"PK\1\2", 46), "local": (b"PK\3\4", 30), "end": (b"PK\5\6", 22)}


@EXAMPLES
def test_any_field_of_the_zip_structure(tmp_path, examples):
    valid = npz()

    def check(changes):
        content = bytearray(valid)
        for kind, nth, offset, size, value in changes:
            mark, length = FIELDS[kind]
            place = -1
            for _ in range(nth % max(1, content.count(mark)) + 1):
                place = content.find(mark, place + 1)
            if place >= 0:
                at = place + offset % (length - size + 1)
                content[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        read_or_refused(tmp_path / "a.npz", bytes(content))

    change = st.tuples(
        st.sampled_from(sorted(FIELDS)),
        st.integers(0, 1),
        st.integers(4, 45),
        st.sampled_from([1, 2, 4]),
        st.one_of(ODD_NUMBERS, st.integers(0, 3000)),
    )
    fuzz(examples, check, st.lists(change, min_size=1, max_size=3))


@EXAMPLES
def test_any_header_of_an_array(tmp_path, examples):
    descr = st.one_of(
        st.sampled_from(["'<f4'", "'<f2'", "'<V2'", "'|O'", "'<U9'", "'V0'", "'>f8'", "'<M8[ns]'"]),
        st.text(max_size=12).map(repr),
        st.lists(st.tuples(st.text(max_size=2), st.sampled_from(["<f4", "V2"])), max_size=2).map(
            repr
        ),
    )
    shape = st.one_of(st.lists(ODD_NUMBERS, max_size=4).map(tuple).map(repr), st.text(max_size=9))

    def check(descr, shape, data):
        try:
            content = npy(descr, shape, data)
        except UnicodeEncodeError:
            return
        read_or_refused(tmp_path / "a.npz", zipped(w=content))

    fuzz(examples, check, descr, shape, st.binary(max_size=16))
