import os

import numpy as np
import pytest
import tensorflow as tf
from data_cases import DATA, write_records, write_tfrecord

from paligemma_lib.data import open_source
from paligemma_lib.data.records import CorruptRecord, open_records


@pytest.fixture
def paths(tmp_path):
    return write_records(tmp_path)


def flip(path: str, place: int) -> None:
    """Flips a bit of a file."""
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_records_are_read_by_number_from_several_files(paths):
    records = open_records(paths)
    numbers = [19, 0, 6, 7, 7, *range(20)]
    assert len(records) == 20
    assert records.counts.tolist() == [7, 0, 13]
    assert records.read(numbers) == [DATA[number] for number in numbers]
    assert records.where(7) == f"{paths[2]}, record 0"


def test_remote_files_read_as_local_ones_do():
    path = write_tfrecord("ram://records/a.tfrecord", DATA)
    records = open_records([path])
    assert records.read([19, 0, 7]) == [DATA[19], DATA[0], DATA[7]]
    assert any(name.startswith(".offsets-") for name in tf.io.gfile.listdir("ram://records"))


def test_a_flipped_bit_raises_with_file_and_record(paths):
    records = open_records(paths)
    flip(paths[2], 12 + 40)
    with pytest.raises(ValueError, match=r"c.tfrecord, record 0 \(at byte 0\) is damaged"):
        records.read([7])
    assert records.read([8]) == [DATA[8]]


def test_a_damaged_length_raises_with_file_and_place(paths):
    flip(paths[2], 12 + 70 + 4 + 1)  # in the length of the second record
    with pytest.raises(ValueError, match="c.tfrecord is not a TFRecord file, .* at byte 86"):
        open_records(paths)


@pytest.mark.parametrize("cut", [1, 5, 17, 200])
def test_a_file_cut_off_raises(paths, cut):
    os.truncate(paths[2], os.path.getsize(paths[2]) - cut)
    with pytest.raises(ValueError, match=r"c.tfrecord is truncated: record 1[12] at byte \d+"):
        open_records(paths)


@pytest.mark.parametrize("cut", [1, 200, 16 + 190])  # the last: between two records
def test_a_file_cut_off_opens_where_it_is_known_what_it_held(paths, cut):
    os.truncate(paths[2], os.path.getsize(paths[2]) - cut)
    records = open_records(paths, [7, 0, 13])
    assert len(records) == 20
    assert records.read(range(18)) == DATA[:18]
    with pytest.raises(CorruptRecord, match=r"c.tfrecord is truncated: "):
        records.read([19])


def test_what_comes_behind_a_damaged_length_is_lost(paths):
    flip(paths[2], 12 + 70 + 4 + 1)
    records = open_records(paths, [7, 0, 13])
    assert records.read(range(8)) == DATA[:8]
    with pytest.raises(CorruptRecord, match="c.tfrecord is not a TFRecord file, .* at byte"):
        records.read([8])


def test_a_file_cut_off_after_it_was_opened_raises(paths):
    records = open_records(paths)
    os.truncate(paths[2], os.path.getsize(paths[2]) - 50)
    with pytest.raises(ValueError, match="c.tfrecord, record 12 .* is damaged"):
        records.read([19])


@pytest.mark.parametrize("content", [b"image,caption\na.jpg,A dog .\n", b"\x1f\x8b" + bytes(50)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a TFRecord file.* Compressed files cannot be"):
        open_records([str(path)])


def test_files_that_are_not_there_raise(tmp_path):
    for name in ("a.tfrecord", "a.array_record"):
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
            open_records([str(tmp_path / name)])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="needs Linux")
def test_reading_some_records_reads_their_bytes_alone(tmp_path):
    def bytes_read() -> int:
        with open("/proc/self/io") as counters:
            return int(counters.readline().split()[1])

    data = [os.urandom(50_000) for _ in range(100)]
    path = write_tfrecord(tmp_path / "a.tfrecord", data)
    start = bytes_read()
    records = open_records([path])
    opened = bytes_read()
    records.read(range(0, 100, 4))
    assert opened - start < 10_000  # the index
    assert 25 * 50_000 <= bytes_read() - opened < 1.01 * 25 * 50_000


def test_array_records_are_read_by_their_own_reader(tmp_path):
    module = pytest.importorskip("array_record.python.array_record_module")
    paths = []
    for name, part in (("a", DATA[1:7]), ("b", DATA[7:])):
        paths.append(str(tmp_path / f"{name}.array_record-00000-of-00001"))
        writer = module.ArrayRecordWriter(paths[-1], "group_size:1")
        for record in part:
            writer.write(record)
        writer.close()
    records = open_records(paths)
    numbers = np.random.default_rng(0).permutation(19)
    assert records.counts.tolist() == [6, 13]
    assert records.read(numbers) == [DATA[1 + number] for number in numbers]
    assert records.where(6) == f"{paths[1]}, record 0"


def test_array_records_that_are_damaged_or_remote_raise(tmp_path):
    pytest.importorskip("array_record.python.array_record_module")
    path = tmp_path / "a.array_record"
    path.write_bytes(b"no records")
    with pytest.raises(ValueError, match="a.array_record is not an ArrayRecord file, or is"):
        open_records([str(path)])
    with pytest.raises(ValueError, match="opens local files only"):
        open_records(["gs://bucket/a.array_record"])


def test_a_flipped_bit_in_array_records_raises_with_file_and_record(tmp_path):
    module = pytest.importorskip("array_record.python.array_record_module")
    path = str(tmp_path / "a.array_record")
    writer = module.ArrayRecordWriter(path, "group_size:1")
    for number in range(20):
        writer.write(np.random.default_rng(number).bytes(3000))
    writer.close()
    flip(path, 9000)
    with pytest.raises(ValueError, match=r"a.array_record, record 2 is damaged: .* hash mismatch"):
        open_records([path]).read(range(20))


@pytest.mark.parametrize(
    "path",
    ["s3://b/x.csv", "s3://b/x.parquet", "s3://b/x.tar", "s3://b/x-*.tar", "s3://b/x.tfrecord"],
)
def test_storage_that_cannot_be_read_is_told(path):
    with pytest.raises(ValueError, match=r"cannot read from s3://. Use a local path, gs:// or hf"):
        len(open_source(path))
