"""The index of TFRecord files: made once, kept, made anew when something changed."""

import os

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
