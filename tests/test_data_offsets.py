"""The index of TFRecord files: made once, kept, made anew when something changed."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from data_cases import DATA, write_records, write_tfrecord

from paligemma_lib.data import offsets
from paligemma_lib.data.records import open_records


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The user's cache, for indexes that cannot lie beside the data."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def paths(tmp_path):
    return write_records(tmp_path)


def scans(monkeypatch) -> list[str]:
    """The files that are walked through from now on."""
    scanned = []
    scan = offsets._scan
    monkeypatch.setattr(offsets, "_scan", lambda item: (scanned.append(item[0]), scan(item))[1])
    return scanned


def test_the_index_is_made_once_and_kept(paths, monkeypatch):
    scanned = scans(monkeypatch)
    open_records(paths)
    assert scanned == paths
    again = open_records(paths)
    assert scanned == paths
    assert again.read(range(20)) == DATA


def test_files_that_changed_are_noticed(paths, monkeypatch):
    open_records(paths)
    scanned = scans(monkeypatch)
    write_tfrecord(paths[0], DATA[:7][::-1])  # as long as before
    os.utime(paths[0], ns=(1, 1))
    assert open_records(paths).read([0]) == [DATA[6]]
    write_tfrecord(paths[2], DATA[:3])
    assert len(open_records(paths)) == 10
    assert len(scanned) == 6


def test_a_damaged_index_is_made_anew(paths, tmp_path):
    open_records(paths)
    (index,) = tmp_path.glob(".offsets-*")
    whole = index.read_bytes()
    for damaged in (whole[:-9], b"", whole[:50] + b"\xff" + whole[51:]):
        index.write_bytes(damaged)
        assert open_records(paths).read(range(20)) == DATA
        assert index.read_bytes() == whole


def test_no_half_written_index_is_left(paths, tmp_path):
    open_records(paths)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[1:] == ["a.tfrecord", "b.tfrecord", "c.tfrecord"]
    assert names[0].startswith(".offsets-") and len(names[0]) == len(".offsets-") + 16


def test_an_index_that_cannot_lie_beside_the_data_lies_in_the_cache(paths, cache, monkeypatch):
    write = offsets._write_index
    monkeypatch.setattr(
        offsets,
        "_write_index",
        lambda place, *rest: str(cache) in place and write(place, *rest),
    )
    open_records(paths)
    assert len(list((cache / "paligemma_lib").iterdir())) == 1
    scanned = scans(monkeypatch)
    assert open_records(paths).read(range(20)) == DATA
    assert not scanned


def test_an_index_that_can_be_kept_nowhere_is_still_made(paths, monkeypatch):
    monkeypatch.setattr(offsets, "_index_places", lambda _: ["/proc/nothing/index"])
    assert open_records(paths).read(range(20)) == DATA


def test_records_that_were_added_are_seen(paths, monkeypatch):
    open_records(paths)
    scanned = scans(monkeypatch)
    write_tfrecord(paths[1], DATA[:4])
    assert open_records(paths).read(range(24)) == DATA[:7] + DATA[:4] + DATA[7:]
    assert scanned


def test_a_file_of_the_same_size_and_time_is_seen_by_its_last_record(paths):
    open_records(paths)
    before = os.stat(paths[2])
    write_tfrecord(paths[2], DATA[7:][::-1])
    os.utime(paths[2], ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert os.path.getsize(paths[2]) == before.st_size
    assert open_records(paths).read(range(7, 20)) == DATA[7:][::-1]


def test_times_are_compared_by_the_nanosecond(paths, monkeypatch):
    os.utime(paths[0], ns=(10**18, 10**18))
    open_records(paths)
    scanned = scans(monkeypatch)
    os.utime(paths[0], ns=(10**18, 10**18 + 1000))
    open_records(paths)
    assert scanned


@pytest.mark.parametrize(
    "change",
    [
        lambda table, found: (table, -found),
        lambda table, found: (table, found[::-1]),
        lambda table, found: (table, found + 1),
        lambda table, found: (table * [1, 1, 2], found),
        lambda table, found: (table * [1, 1, 0], found),
        lambda table, found: (table, found[:-1]),
    ],
)
def test_an_index_with_offsets_that_cannot_be_is_made_anew(paths, tmp_path, change):
    open_records(paths)
    (index,) = tmp_path.glob(".offsets-*")
    numbers = np.frombuffer(index.read_bytes()[:-4], "<i8")
    table, found = change(numbers[:9].reshape(3, 3), numbers[9:])
    body = np.concatenate([table.ravel(), found]).astype("<i8").tobytes()
    index.write_bytes(body + offsets.masked_crc(body))
    assert open_records(paths).read(range(20)) == DATA


def test_what_a_killed_writer_left_is_removed_by_the_next(paths, tmp_path):
    open_records(paths)
    (index,) = tmp_path.glob(".offsets-*")
    old, young = (tmp_path / f"{index.name}.{digit * 32}" for digit in "ab")
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (1, 1))
    write_tfrecord(paths[1], DATA[:4])
    open_records(paths)
    assert not old.exists() and young.exists()


def test_many_that_make_one_index_at_once_read_the_same(paths, monkeypatch):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: open_records(paths).read(range(20)), range(64)))
    assert all(each == DATA for each in found)
    left = [name for name in os.listdir(os.path.dirname(paths[0])) if name[:9] == ".offsets-"]
    assert len(left) == 1
    scanned = scans(monkeypatch)
    open_records(paths)
    assert scanned == []
