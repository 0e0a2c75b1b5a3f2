"""Damage in files of many records: what is lost is replaced, and the rest is read."""

import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage_cases import COUNT, all_read, check_replaced
from data_cases import caption_example, photo, write_captions, write_tfrecord

from paligemma_lib.data import from_tfrecords, replace_corrupt
from paligemma_lib.data.sources import despite_damage, splits_of
from paligemma_lib.data.sources.hashed_splits import FRACTIONS, HashedSplit
from paligemma_lib.data.sources.json_forms import USUAL
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource


def write_tar(path, first=0, count=COUNT):
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + count):
            for extension, data in (("png", photo(number)), ("txt", b"a dog")):
                info = tarfile.TarInfo(f"{number:03d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_a_shard_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path):
    whole = write_tar(tmp_path / "a.tar", 0, 4)
    cut = write_tar(tmp_path / "b.tar", 4, 4)
    with tarfile.open(cut) as archive:
        members = archive.getmembers()
    sources = {
        "in an image": members[4].offset_data + 100,  # of the third sample
        "in a caption": members[5].offset_data + 2,
        "in a header": members[4].offset + 100,
    }
    data = cut.read_bytes()
    for where, end in sources.items():
        cut.write_bytes(data[:end])
        source = WebDatasetSource((str(whole), str(cut)))
        with pytest.raises(ValueError, match=r"b.tar is (truncated|not a complete)"):
            len(source)
        records, problems = all_read(despite_damage(source))
        assert [r.image_id for r in records] == [f"{n:03d}" for n in range(6)], where
        assert len(problems) == 1 and "b.tar, its lost end" in problems[0], where
        check_replaced(source, 1)


def test_a_tfrecord_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path):
    pattern = write_captions(tmp_path, 7)
    path = tmp_path / "captions-1.tfrecord"
    path.write_bytes(path.read_bytes()[:-3])
    source = from_tfrecords(pattern)
    with pytest.raises(ValueError, match="captions-1.tfrecord is truncated: record 2"):
        len(source)
    records, problems = all_read(despite_damage(source))
    assert len(records) == COUNT and "captions-1.tfrecord is truncated" in problems[0]
    check_replaced(source, 1)


def test_an_example_that_cannot_be_used_is_replaced(tmp_path):
    examples = [*map(caption_example, range(COUNT)), b"no example", caption_example(9)[:-50]]
    source = from_tfrecords(write_tfrecord(tmp_path / "a", examples))
    with pytest.raises(ValueError, match="record 6 cannot be used"):
        source.read(range(8))
    check_replaced(source, 2)


def arrow_table(count=COUNT, **more):
    images = [{"bytes": photo(k), "path": f"{k}.jpg"} for k in range(count)]
    return pa.table({"image": images, "caption": ["a dog"] * count, **more})


def spoil(path, name):
    """Overwrites a column of the second row group."""
    group = pq.ParquetFile(path).metadata.row_group(1)
    columns = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    column = columns[name]
    with open(path, "r+b") as file:
        file.seek(column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\xff" * column.total_compressed_size)


def test_a_damaged_row_group_is_its_rows(tmp_path):
    path = str(tmp_path / "x.parquet")
    pq.write_table(arrow_table(8), path, row_group_size=2, compression="zstd")
    spoil(path, "image.bytes")
    source = ArrowSource((path,))
    with pytest.raises(ValueError, match=r"x.parquet, row \d of row group 1 cannot be read"):
        source.read(range(len(source)))
    check_replaced(source, 2)


@pytest.mark.parametrize("column", ["image.path", "split"])
def test_a_row_group_whose_names_are_damaged_is_its_rows(tmp_path, column):
    path = str(tmp_path / "x.parquet")
    parts = ["train"] * 8
    pq.write_table(arrow_table(8, split=parts), path, row_group_size=2, use_dictionary=False)
    spoil(path, column)
    (source,) = splits_of(path).values()
    with pytest.raises(ValueError, match="row 0 of row group 1 cannot be read"):
        len(source)
    records, problems = all_read(despite_damage(source))
    # Without its name, an image is still one.
    assert len(despite_damage(source)) == 8 and len(records) + len(problems) == 8


def test_a_file_of_several_that_cannot_be_opened_is_one_record(tmp_path):
    paths = [str(tmp_path / f"{k}.parquet") for k in range(3)]
    for k, path in enumerate(paths):
        pq.write_table(arrow_table(8).slice(3 * k, 3), path)
    os.truncate(paths[1], 1000)
    source = ArrowSource((paths[0], paths[1], paths[2]), USUAL)
    with pytest.raises(ValueError, match=r"1.parquet is not a complete Parquet"):
        len(source)
    records, problems = all_read(despite_damage(source))
    assert [r.image_id for r in records] == ["0.jpg", "1.jpg", "2.jpg", "6.jpg", "7.jpg"]
    assert len(problems) == 1 and "1.parquet, its lost end" in problems[0]
    with pytest.raises(ValueError, match=r"1.parquet is not a complete Parquet"):
        len(replace_corrupt(ArrowSource((paths[1],))))


def test_an_arrow_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path):
    path = str(tmp_path / "x.arrow")
    with pa.ipc.new_stream(path, arrow_table().schema) as writer:
        writer.write_table(arrow_table(8), max_chunksize=2)
    os.truncate(path, os.path.getsize(path) - 1000)
    source = ArrowSource((path,))
    with pytest.raises(ValueError, match=r"x.arrow is not a complete Parquet or Arrow file"):
        len(source)
    check_replaced(source, 1)


def test_rows_that_cannot_be_used_are_replaced(tmp_path):
    images = [
        *({"bytes": photo(k), "path": f"{k}.jpg"} for k in range(8)),
    ]
    images[6] = {"bytes": None, "path": "6.jpg"}
    images[7] = None
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"image": images, "caption": ["a dog"] * 8}), path)
    source = ArrowSource((path,))
    with pytest.raises(ValueError, match="row 6 of row group 0: expected the bytes"):
        source.read([6])
    check_replaced(source, 2)


def test_hashed_splits_keep_damaged_records(tmp_path):
    pattern = write_captions(tmp_path, 40)
    path = tmp_path / "captions-1.tfrecord"
    path.write_bytes(path.read_bytes()[:-3])
    whole = from_tfrecords(pattern)
    with pytest.raises(ValueError, match="is truncated"):
        len(HashedSplit(whole, "train"))
    parts = [despite_damage(HashedSplit(whole, split)) for split in FRACTIONS]
    assert sum(map(len, parts)) == 40
    assert sum(len(all_read(part)[1]) for part in parts) == 1
