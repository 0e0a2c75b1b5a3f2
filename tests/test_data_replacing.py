"""Damaged records: a whole one stands in, always the same, and what is wrong is told once."""

import pytest
from data_cases import write_captions
from flickr8k_builds import build, own_images
from flickr8k_sources import kaggle_files, write_tree
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.data import from_tfds, from_tfrecords, replace_corrupt
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.replacing import check_share
from paligemma_lib.data.sources import Record, despite_damage


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
    assert replace_corrupt(replace_corrupt(source)).source == despite_damage(source)


def test_of_a_file_that_is_cut_off_other_records_stand_in(tmp_path, caplog):
    images = write_tree(tmp_path / "in", kaggle_files(own_images(40)))
    build(images, tmp_path)
    (file,) = tmp_path.rglob("*-train.tfrecord*")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    source = from_tfds("flickr8k_tfds", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="is truncated: record"):
        len(source)
    replaced = replace_corrupt(source)
    names = [record.image_id for record in replaced.read(range(len(replaced)))]
    whole = len(replaced) - len(replaced.damaged)
    assert 0 < whole < len(replaced)
    assert len(set(names)) == len(set(names[:whole])) == whole
    assert max(names.count(name) for name in names) <= 4  # none stands in for very many
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("damaged", "records", "most", "stops"),
    [
        (1, 10, 0.01, False),  # one of ten says next to nothing
        (2, 10, 0.01, True),
        (0, 10, 0.0, False),
        (1, 10, 0.0, True),
        (10, 10, 1.0, False),
        (80, 8000, 0.01, False),
        (81, 8000, 0.01, True),  # where every record is damaged, after 1 % of an epoch
    ],
)
def test_a_share_is_of_all_records_and_of_a_hundred_at_least(damaged, records, most, stops):
    found = {number: f"record {number} is damaged" for number in range(damaged)}
    if not stops:
        check_share(found, records, most)
        return
    with pytest.raises(ValueError, match="records are damaged so far") as caught:
        check_share(found, records, most)
    assert len(str(caught.value).splitlines()) == 1 + min(damaged, 3)


def test_above_the_share_nothing_more_is_read(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 40, broken=(3, 13, 14)))
    limited = replace_corrupt(source, max_corrupt=0.02)
    assert limited.verify([3, 5, 13]) == [3, 13]
    assert limited.read([3, 13])
    with pytest.raises(ValueError, match="3 of 40 records are damaged so far; the limit is 2.00%"):
        limited.verify([14])
    with pytest.raises(ValueError, match=r"(?s)The first are:.*image 3.png.*image 14.png"):
        limited.read([0])


def test_a_substitute_that_does_not_decode_is_replaced_by_the_next(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 20))
    first = replace_corrupt(source)
    first.damaged[3] = "damaged"
    number = int(first.read([3])[0].image_id.partition(".")[0])
    (tmp_path / "more").mkdir()
    source = from_tfrecords(write_captions(tmp_path / "more", 20, broken=(3, number)))
    replaced = replace_corrupt(source)
    while replaced.verify([3]):
        pass
    assert sorted(replaced.damaged) == sorted([3, number])
    (record,) = replaced.read([3])
    other = replace_corrupt(source)  # that finds them the other way round
    while other.verify([number, 3]):
        pass
    assert other.read([3]) == [record]


class Numbers:
    """Records that are their numbers; some are damaged."""

    def __init__(self, count, damaged):
        self.count, self.lost = count, damaged

    def __len__(self):
        return self.count

    def read(self, numbers):
        if found := self.lost & {*numbers}:
            raise CorruptRecord(f"record {min(found)} is damaged")
        return [Record(b"", ("a",), str(number)) for number in numbers]

    def where(self, number):
        return f"record {number}"

    def fingerprint(self):
        return ""


@given(st.integers(2, 60), st.data())
def test_a_substitute_depends_on_the_number_alone(count, data):
    numbers = st.integers(0, count - 1)
    lost = data.draw(st.sets(numbers, max_size=count - 1))
    source = Numbers(count, lost)
    expected = [replace_corrupt(source).read([number])[0] for number in range(count)]
    replaced = replace_corrupt(source)
    for chunk in data.draw(st.lists(st.lists(numbers, max_size=9), max_size=9)):
        assert replaced.read(chunk) == [expected[number] for number in chunk]
    names = [record.image_id for record in replaced.read(range(count))]
    assert replaced.read(range(count)) == expected and {*replaced.damaged} == lost
    assert {*names} == {str(number) for number in {*range(count)} - lost}


def test_a_storage_that_fails_is_no_damage(source, monkeypatch):
    replaced = replace_corrupt(source)
    len(replaced)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(source), "read", fail)
    with pytest.raises(OSError, match="Input/output error"):
        replaced.read([0, 1])
    assert not replaced.damaged
