"""Whatever a Parquet or Arrow file holds, its rows are read, or an error of ours says why not.

pyarrow could crash, so that the long runs of the fuzzer are processes of their own.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_cases import photo
from fuzzing import EXAMPLES, damaged, fuzz, read_all

from paligemma_lib.data.sources import despite_damage
from paligemma_lib.data.sources.arrow_files import open_arrow
from paligemma_lib.data.sources.json_forms import USUAL
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.table_forms import parquet_rows

CHECK = """
import os, sys, tempfile
sys.path.insert(0, {tests!r})
from fuzzing import damaged, fuzz
from test_fuzz_data_arrow import check, valid
folder = tempfile.mkdtemp()
fuzz({examples}, lambda data: check(folder, {suffix!r}, data), damaged(valid({suffix!r})))
"""


def valid(suffix: str) -> bytes:
    table = pa.table(
        {
            "image": [{"bytes": photo(k, (4, 3)), "path": f"{k % 3}.jpg"} for k in range(4)],
            "caption": [["a dog", "a cat"]] * 4,
            "question": ["caption en"] * 4,
            "split": ["train", "train", "val", "val"],
        }
    )
    out = io.BytesIO()
    if suffix == "parquet":
        pq.write_table(table, out, row_group_size=2)
    else:
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return out.getvalue()


def check(folder: str, suffix: str, data: bytes) -> None:
    if suffix == "parquet":
        with contextlib.suppress(ValueError):
            list(parquet_rows(data, USUAL))
    path = os.path.join(folder, f"x.{suffix}")
    Path(path).write_bytes(data)
    with contextlib.suppress(ValueError):
        despite_damage(ArrowSource((path,))).splits()
    read_all(lambda: despite_damage(ArrowSource((path,))), path)


@EXAMPLES
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_damaged_bytes(examples, suffix):
    if examples < 1_000:
        with tempfile.TemporaryDirectory() as folder:
            fuzz(examples, lambda data: check(folder, suffix, data), damaged(valid(suffix)))
        return
    script = CHECK.format(tests=str(Path(__file__).parent), examples=examples, suffix=suffix)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_offsets_that_lead_out_of_the_file_are_no_crash(tmp_path):
    data = valid("arrow")
    at = data.index(b"a doga cat")
    # The offsets of the captions stand before them: 0, 5, 10, ...
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 5, 10, 15, 20))
    start = data.rindex(offsets, 0, at)
    hostile = data[: start + 4] + (2**31 - 1).to_bytes(4, "little") + data[start + 8 :]
    (tmp_path / "x.arrow").write_bytes(hostile)
    source = despite_damage(ArrowSource((str(tmp_path / "x.arrow"),)))
    with pytest.raises(ValueError, match="row 0 of row group 0 cannot be read"):
        source.read([0])


def test_a_row_group_that_unpacks_to_too_much_is_told(tmp_path, monkeypatch):
    from paligemma_lib.data.sources import parquet_file

    (tmp_path / "x.parquet").write_bytes(valid("parquet"))
    file = open_arrow(str(tmp_path / "x.parquet"))
    monkeypatch.setattr(parquet_file, "_MAX_BLOCK_BYTES", 10)
    with pytest.raises(parquet_file.UnreadableBlock, match="unpacks to .* too much"):
        file.read(0, ["caption"])
