"""Rows of Parquet files: what is kept in memory changes the time they take, and nothing else."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.data.sources import parquet_file
from paligemma_lib.data.sources.arrow_errors import UnreadableBlock
from paligemma_lib.data.sources.block_cache import BlockCache
from paligemma_lib.data.sources.parquet_file import ParquetFile

GROUPS, ROWS = 12, 5
IMAGES = ("image",)


def image(number: int) -> bytes:
    return bytes([number, 250 - number]) * 100


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Each row is a page of its own."""
    table = pa.table({"image": [image(k) for k in range(GROUPS * ROWS)]})
    path = str(tmp_path_factory.mktemp("parquet") / "x.parquet")
    pq.write_table(
        table,
        path,
        row_group_size=ROWS,
        use_dictionary=False,
        compression="none",
        data_page_size=1,
        write_batch_size=1,
        write_statistics=False,  # which would repeat the values
    )
    return path


class Counted(ParquetFile):
    """A file that counts the row groups that are loaded."""

    loaded = 0

    def read(self, block, names):
        self.loaded += 1
        return super().read(block, names)


def read(cache, file, number):
    return cache.row(file, *divmod(number, ROWS), IMAGES)["image"]


@given(
    st.lists(st.integers(0, GROUPS * ROWS - 1), max_size=40),
    st.sampled_from([0, 3000, 1 << 30]),
    st.booleans(),
)
def test_rows_in_any_order(path, numbers, most, eager):
    cache, file = BlockCache(most, eager=eager), ParquetFile(path)
    assert [read(cache, file, number) for number in numbers] == [*map(image, numbers)]


def test_row_groups_that_fit_are_loaded_once(path):
    cache, file = BlockCache(1 << 30), Counted(path)
    for number in [*range(0, GROUPS * ROWS, 7)] * 3:
        read(cache, file, number)
    assert file.loaded == len({number // ROWS for number in range(0, GROUPS * ROWS, 7)})


def test_a_single_row_of_one_that_does_not_fit_is_read_alone(path):
    cache, file = BlockCache(0), Counted(path)
    firsts = range(0, GROUPS * ROWS, ROWS)
    for number in firsts:
        read(cache, file, number)
    assert file.loaded == 0
    for number in range(ROWS):  # all rows of one, one after the other
        read(cache, file, number)
    assert file.loaded == 1


def test_memory_is_bounded(path):
    file = ParquetFile(path)
    size = file.size(0)
    cache = BlockCache(10 * size, eager=True)
    for number in range(GROUPS * ROWS):
        read(cache, file, number)
    assert 0 < cache.bytes <= 10 * size
    cache = BlockCache(0, eager=True)
    for number in range(GROUPS * ROWS):
        read(cache, file, number)
    assert len(cache._sizes) == 8


def test_what_is_kept_of_a_file_goes_with_it(path):
    cache = BlockCache(1 << 30)
    read(cache, ParquetFile(path), 0)
    assert not cache._tables
    file = ParquetFile(path)
    read(cache, file, 7)
    assert cache.bytes == file.read(1, IMAGES).nbytes  # the first one is not counted any more


@pytest.mark.parametrize("most", [0, 1 << 30])
def test_damage_is_judged_by_the_row_alone(path, tmp_path, most):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    at = data.index(image(7))  # row 2 of row group 1
    data[at - 4 : at] = b"\xff" * 4  # its length
    (tmp_path / "y.parquet").write_bytes(data)

    def readable(cache, file, number):
        try:
            return read(cache, file, number) == image(number)
        except UnreadableBlock:
            return False

    for numbers in itertools.permutations(range(5, 9)):
        cache, file = BlockCache(most), ParquetFile(str(tmp_path / "y.parquet"))
        found = {number: readable(cache, file, number) for number in numbers}
        assert found == {number: number < 7 for number in numbers}, numbers


def test_a_dictionary_that_unpacks_to_far_more_than_it_says(tmp_path, monkeypatch):
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"image": [bytes(10_000)] * 1000}), path)
    monkeypatch.setattr(parquet_file, "_SLACK", 1 << 20)
    file = ParquetFile(path)
    with pytest.raises(UnreadableBlock, match="unpacks to more than"):
        file.read(0, IMAGES)
    assert BlockCache(1 << 30).row(file, 0, 900, IMAGES) == {"image": bytes(10_000)}
