"""Damaged records: a whole one stands in, always the same, and what is wrong is told once."""

import pytest
from data_cases import write_captions
from flickr8k_builds import build, own_images
from flickr8k_sources import kaggle_files, write_tree

from paligemma_lib.data import from_tfds, from_tfrecords, replace_corrupt
from paligemma_lib.data.records import CorruptRecord


def flip(path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 8]))


@pytest.fixture
def source(tmp_path):
    """Ten records in two files, of which 4 (the last of its file), 5 and 9 are damaged."""
    source = from_tfrecords(write_captions(tmp_path, 10))
    records, _ = source._opened
    for number in (4, 5, 9):
        file, place = divmod(number, 5)
        flip(tmp_path / f"captions-{file}.tfrecord", int(records._offsets[file][place]) + 30)
    return source


def test_a_whole_record_stands_in(source, caplog):
    replaced = replace_corrupt(source)
    numbers = [9, 0, 4, 5, 6, 9]
    names = [record.image_id for record in replaced.read(numbers)]
    assert names[1] == "0.png" and names[4] == "6.png" and names[0] == names[5]
    assert not {"4.png", "5.png", "9.png"} & set(names)
    assert [record.image_id for record in replaced.read(numbers)] == names
    assert sorted(replaced.damaged) == [4, 5, 9]
    assert len(caplog.records) == 3
    assert "captions-0.tfrecord, record 4 (at byte " in caplog.text
    assert len(replaced) == 10 and replaced.where(4) == source.where(4)


def test_without_the_policy_it_is_an_error_with_file_and_record(source):
    with pytest.raises(CorruptRecord, match=r"captions-1.tfrecord, record 0 .* is damaged"):
        source.read([6, 5])


def test_what_is_read_wrong_once_is_read_again(source, monkeypatch):
    from paligemma_lib.data import records

    read, calls = records.read_parts, []

    def flaky(*args):
        data, checksum = read(*args)
        calls.append(1)
        return [b"?" + data[1:] if len(calls) == 1 else data, checksum]

    monkeypatch.setattr(records, "read_parts", flaky)
    assert source.read([0])[0].image_id == "0.png"
    assert len(calls) == 2


def test_nothing_but_damage_is_an_error(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 3, files=1))
    offsets = source._opened[0]._offsets[0]
    for place in range(3):
        flip(tmp_path / "captions-0.tfrecord", int(offsets[place]) + 30)
    with pytest.raises(ValueError, match=r"record 1 and 2 other records are damaged"):
        replace_corrupt(source).read([1])
    cut = tmp_path / "captions-0.tfrecord"
    cut.write_bytes(cut.read_bytes()[:-3])
    replaced = replace_corrupt(from_tfrecords(str(cut)))
    with pytest.raises(
        ValueError, match=r"2 other records are damaged: .* record 2 at byte .* needs"
    ):
        replaced.read([2])


def test_equal_sources_stay_equal(source):
    assert replace_corrupt(source) == replace_corrupt(source)
    assert replace_corrupt(source) != source


def test_of_a_file_that_is_cut_off_other_records_stand_in(tmp_path, caplog):
    images = write_tree(tmp_path / "in", kaggle_files(own_images(40)))
    build(images, tmp_path)
    (file,) = tmp_path.rglob("*-train.tfrecord*")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    source = from_tfds("flickr8k_tfds", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="is cut off: record"):
        len(source)
    replaced = replace_corrupt(source)
    names = [record.image_id for record in replaced.read(range(len(replaced)))]
    whole = len(replaced) - len(replaced.damaged)
    assert 0 < whole < len(replaced)
    assert len(set(names)) == len(set(names[:whole])) == whole
    assert max(names.count(name) for name in names) <= 4  # none stands in for very many
    assert len(caplog.records) == 1
