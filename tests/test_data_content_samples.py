"""Files of the same names and sizes have fingerprints of their own, and earlier runs go on."""

import pytest
from data_cases import photo, write_captions
from form_cases import NAMES, as_captions_txt, as_parquet, as_sidecars, as_webdataset

from paligemma_lib.data import from_image_files, from_tfrecords, open_source
from paligemma_lib.data.content_samples import MAX_SMALL, sampled, sampled_images, spread
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


@pytest.fixture
def images(tmp_path):
    """A folder with the images in its folder Images."""
    (tmp_path / "Images").mkdir()
    for number, name in enumerate(NAMES):
        (tmp_path / "Images" / name).write_bytes(photo(number))
    return tmp_path


def changes(open_it, file, data: bytes) -> None:
    """Checks that new bytes of a file change the second part of a fingerprint, and it alone."""
    first, second = open_it().fingerprint().split("+")
    assert open_it().fingerprint() == f"{first}+{second}"
    file.write_bytes(data)
    again, other = open_it().fingerprint().split("+")
    assert again == first and other != second


@pytest.mark.parametrize("form", [as_captions_txt, as_sidecars])
def test_another_image_of_the_same_name_changes_the_fingerprint(images, form):
    path, file = str(form(images)), images / "Images" / NAMES[0]
    flipped = bytearray(file.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    changes(lambda: open_source(path), file, bytes(flipped))
    changes(lambda: open_source(path, split="train"), images / "Images" / NAMES[1], photo(9))
    changes(lambda: from_image_files([str(images / "Images")]), file, photo(0))


def test_another_caption_beside_an_image_changes_the_fingerprint(images):
    path, file = str(as_sidecars(images)), images / "Images" / NAMES[0].replace(".jpg", ".txt")
    same_size = file.read_bytes().replace(b"c ", b"d ")
    changes(lambda: open_source(path), file, same_size)
    changes(lambda: open_source(path), file, b"")


def test_what_cannot_be_read_is_told_by_whoever_reads_it(images):
    path, file = str(as_sidecars(images)), images / "Images" / NAMES[0]
    changes(lambda: open_source(path), file.with_suffix(".txt"), b"\xff\xff")
    file.unlink()
    file.symlink_to(images / "nowhere")
    found = {open_source(path).fingerprint()}
    file.unlink()
    (images.parent / "private").write_bytes(photo(9))
    file.symlink_to(images.parent / "private")
    found.add(open_source(path).fingerprint())
    assert len(found) == 1
    assert open_source(path, allow_outside=True).fingerprint() not in found


def test_the_sample_of_images_is_bounded(monkeypatch):
    from paligemma_lib.data import content_samples

    asked, read = [], []
    monkeypatch.setattr(content_samples, "stat", lambda path: asked.append(path) or (5, 0))
    monkeypatch.setattr(content_samples, "_ends", lambda path: read.append(path) or b"")
    sampled_images("0", [str(k) for k in range(1_000_000)], within=(".",))
    assert len(asked) == MAX_SMALL and len(read) == 256
    assert spread(range(10), 5) == [0, 2, 4, 6, 8] and spread("ab", 5) == ["a", "b"]


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
