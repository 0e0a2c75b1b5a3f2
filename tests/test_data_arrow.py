"""Parquet and Arrow files, as the Hugging Face Hub and `datasets` write them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_cases import photo

from paligemma_lib.data.sources.json_forms import Columns
from paligemma_lib.data.sources.parquet_source import ArrowSource


def table(count=6, first=0, **more):
    images = [{"bytes": photo(k), "path": f"{k}.jpg"} for k in range(first, first + count)]
    return pa.table({"image": images, **more})


def write(path, content, rows=2):
    pq.write_table(content, path, row_group_size=rows)
    return str(path)


def test_records_of_several_files_and_row_groups(tmp_path):
    captions = [[f"one {k}", f"two {k}"] for k in range(12)]
    paths = tuple(
        write(tmp_path / f"{first}.parquet", table(6, first, caption=captions[first : first + 6]))
        for first in (0, 6)
    )
    source = ArrowSource(paths)
    assert len(source) == 12
    for k in (7, 0, 11, 3):
        (record,) = source.read([k])
        assert (record.image, record.captions) == (photo(k), (f"one {k}", f"two {k}"))
        assert record.image_id == f"{k}.jpg"
    assert source.where(9) == f"{paths[1]}, row 1 of row group 1"
    assert source.fingerprint() == ArrowSource(paths).fingerprint()
    assert source.fingerprint() != ArrowSource(paths[:1]).fingerprint()


def test_rows_of_an_image_are_one_record(tmp_path):
    content = table(4, image_id=[5, 6, 5, 6], caption=["a", "b", "c", " "])
    source = ArrowSource((write(tmp_path / "x.parquet", content),))
    found = source.read([0, 1])
    assert [(r.image_id, r.captions) for r in found] == [("5", ("a", "c")), ("6", ("b",))]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_rows_with_the_same_path_and_bytes_are_one_record(tmp_path, suffix):
    places = [
        ("dog.jpg", 0),
        ("cat.jpg", 1),
        ("dog.jpg", 0),
        ("dog.jpg", 2),
    ]  # a dog in another folder
    images = [{"bytes": photo(k), "path": path} for path, k in places]
    content = pa.table({"image": images, "caption": ["a", "b", "c", "d"]})
    path = str(tmp_path / f"x.{suffix}")
    if suffix == "parquet":
        write(path, content)
    else:
        with pa.ipc.new_stream(path, content.schema) as writer:
            writer.write_table(content, max_chunksize=3)
    source = ArrowSource((path,))
    found = source.read([0, 1, 2])
    assert [(r.image_id, r.image, r.captions) for r in found] == [
        ("dog.jpg#1", photo(0), ("a", "c")),
        ("cat.jpg", photo(1), ("b",)),
        ("dog.jpg#2", photo(2), ("d",)),
    ]
    assert source.images_of_records() == ["dog.jpg", "cat.jpg", "dog.jpg"] and len(source) == 3


def test_prompts_of_an_image_have_ids_of_their_own(tmp_path):
    content = table(4, filename=list("aabb"), prefix=["en", "de", "en", "en"], caption=list("wxyz"))
    source = ArrowSource((write(tmp_path / "x.parquet", content),))
    assert [(r.image_id, r.prefix, r.captions) for r in source.read([0, 1, 2])] == [
        ("a#1", "en", ("w",)),
        ("a#2", "de", ("x",)),
        ("b", "en", ("y", "z")),
    ]


def test_rows_whose_id_is_null_are_records_of_their_own(tmp_path):
    content = table(3, image_id=[None, None, 5], caption=["a", "b", "c"])
    found = ArrowSource((write(tmp_path / "x.parquet", content),)).read([0, 1, 2])
    assert [(r.image, r.captions) for r in found] == [(photo(k), (c,)) for k, c in enumerate("abc")]
    assert [r.image_id for r in found] == ["row 0", "row 1", "5"]


def test_other_columns_have_another_fingerprint(tmp_path):
    path = write(tmp_path / "x.parquet", table(2, text=["a", "b"], caption=["c", "d"]))
    sources = [ArrowSource((path,), Columns(caption=name)) for name in ("text", "caption")]
    assert sources[0].fingerprint() != sources[1].fingerprint()


def test_a_column_that_was_named_and_is_not_there_is_told(tmp_path):
    path = write(tmp_path / "x.parquet", table(1, caption=["a"], caption_id=[3]))
    assert ArrowSource((path,)).read([0])[0].captions == ("a",)
    for columns in (Columns("img"), Columns(caption="text")):
        with pytest.raises(ValueError, match=r"x.parquet has no column .*, only image, caption"):
            len(ArrowSource((path,), columns))


def test_five_columns_of_captions_and_columns_by_name(tmp_path):
    numbered = {f"caption_{k}": [f"{k}"] * 2 for k in range(5)}
    source = ArrowSource((write(tmp_path / "x.parquet", table(2, **numbered)),))
    assert source.read([1])[0].captions == ("0", "1", "2", "3", "4")
    content = pa.table({"photo": [photo(0)], "said": ["hello"]})
    source = ArrowSource((write(tmp_path / "y.parquet", content),), Columns("photo", "said"))
    record = source.read([0])[0]
    assert (record.image, record.captions, record.image_id) == (photo(0), ("hello",), "row 0")


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_data_set_saved_to_disk(tmp_path, kind):
    content = table(5, text=[f"c{k}" for k in range(5)])
    path = str(tmp_path / "data-00000-of-00001.arrow")
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with new(path, content.schema) as writer:
        writer.write_table(content, max_chunksize=2)
    source = ArrowSource((path,))
    assert [r.captions for r in source.read(range(5))] == [(f"c{k}",) for k in range(5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"caption": ["x"]}, "no image column found among caption"),
        ({"image": [b"x"]}, "no caption column found among image"),
        ({"image": [{"bytes": None, "path": "a"}], "text": ["x"]}, "expected the bytes of an im"),
        ({"image": [b"x"], "text": [3]}, "3 is not a caption"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, content, message):
    path = write(tmp_path / "x.parquet", pa.table(content))
    with pytest.raises(ValueError, match=message) as caught:
        ArrowSource((path,)).read([0])
    assert path in str(caught.value)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"nonsense" * 100])
def test_a_file_of_another_kind_is_told(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="is not a complete Parquet or Arrow file"):
        len(ArrowSource((str(tmp_path / name),)))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        len(ArrowSource((str(tmp_path / "none.parquet"),)))
