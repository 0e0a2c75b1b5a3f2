"""Files of the same names and sizes have fingerprints of their own, and earlier runs go on."""

import pytest
from data_cases import photo, write_captions
from form_cases import as_parquet, as_webdataset

from paligemma_lib.data import from_tfrecords, open_source
from paligemma_lib.data.content_samples import sampled
from paligemma_lib.data.fingerprints import derived, fingerprint, same
from paligemma_lib.data.sources import Mixture
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.record import completed, record_of


def as_tfrecords(folder):
    return write_captions(folder, 6)


@pytest.mark.parametrize("form", [as_parquet, as_webdataset, as_tfrecords])
def test_a_change_of_contents_alone_changes_the_fingerprint(tmp_path, form):
    path = form(tmp_path)
    (file,) = [each for each in tmp_path.iterdir() if each.suffix != ""][:1]
    before = _open(path).fingerprint()
    assert before == _open(path).fingerprint()
    data = bytearray(file.read_bytes())
    at = data.index(photo(0)[-20:]) if photo(0)[-20:] in data else len(data) // 2
    data[at] ^= 1
    file.write_bytes(data)
    after = _open(path).fingerprint()
    assert after != before and after.partition("+")[0] == before.partition("+")[0]


def _open(path):
    return from_tfrecords(path) if isinstance(path, str) else open_source(str(path))


def test_the_sample_is_bounded(tmp_path, monkeypatch):
    from paligemma_lib.data import content_samples

    read = []
    monkeypatch.setattr(content_samples, "_ends", lambda path: read.append(path) or b"")
    paths = [str(k) for k in range(100_000)]
    sampled("0", paths)
    assert len(read) == 256 and read[0] == "0" and len(set(read)) == 256


def test_the_ends_of_a_file_are_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    marks = {sampled("0", [str(path)])}
    for at in (0, (64 << 10) - 1, -(64 << 10), -1):
        data = bytearray(1 << 20)
        data[at] = 1
        path.write_bytes(data)
        marks.add(sampled("0", [str(path)]))
    assert len(marks) == 5
    path.write_bytes(b"")
    assert sampled("0", [str(path)]) not in marks


def test_what_is_made_of_sources_keeps_the_parts_apart(tmp_path):
    def made(each):
        return derived(each, lambda firsts: fingerprint(*firsts, "train"))

    assert made(["a"]) == fingerprint("a", "train")
    assert made(["a+b"]).partition("+")[0] == made(["a"])
    assert made(["a+b"]) != made(["a+c"])
    source = open_source(str(as_parquet(tmp_path)), split="train")
    mixed = Mixture((source, source), (1.0, 2.0), ("", ""))
    assert source.fingerprint().count("+") == mixed.fingerprint().count("+") == 1


def test_runs_from_before_there_were_samples_go_on():
    assert same("a", "a") and same("a", "a+b") and same("a+b", "a+b")
    assert not same("a+b", "a") and not same("a+b", "a+c") and not same("a", "b+a")
    record = record_of(RunConfig(), "0") | {"data": {"train": "a", "validation": "x"}}
    now = {"train": "a+b", "validation": "c+d"}
    assert completed(record, {"data": now})["data"] == {"train": "a+b", "validation": "x"}
