"""Whatever a caption table holds, it gives rows, or one error of ours."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import EXAMPLES, ODD_VALUES, changed_json, damaged, fuzz
from hypothesis import strategies as st
from mask_cases import square_arrays

from paligemma_lib.data.sources.coco_segments import segment_rows
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.json_values import parse_json
from paligemma_lib.data.sources.table_forms import READERS
from paligemma_lib.data.sources.table_recognition import form_of_json
from paligemma_lib.regions import MaskCodec

OBJECTS = [
    {"image": "a.jpg", "suffix": ["a dog", "a cat"], "prefix": "caption en", "split": "train"},
    {"file_name": "b.jpg", "caption": "ü", "split": "val"},
    {
        "image": "c.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "A dog."},
        ],
    },
]
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}],
}
KARPATHY = {
    "images": [
        {
            "filename": "a.jpg",
            "filepath": "val2014",
            "split": "train",
            "sentences": [{"raw": "a dog"}, {"raw": "a cat"}],
        }
    ]
}
RUNS = {"size": [4, 6], "counts": [4, 20]}
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 6, "height": 4}],
    "categories": [{"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 2, "bbox": [1, 1, 3, 2], "segmentation": each}
        for each in ([[0, 0, 6, 0, 6.5, 4.0]], RUNS, RUNS | {"counts": "4d0"})
    ],
}
TEXTS = {
    "captions.txt": b'image,caption\na.jpg,a dog\nb.jpg,"a dog, a cat"\n',
    "delimited": b'image|comment|split\na.jpg|"a\ndog"|train\nb.jpg|a cat|val\n',
    "tokens": b"a.jpg#0\ta dog\na.jpg#1\ta cat\n",
    "jsonl": "\n".join(map(json.dumps, OBJECTS)).encode(),
    "json": json.dumps(OBJECTS).encode(),
    "coco": json.dumps(COCO).encode(),
    "karpathy": json.dumps(KARPATHY).encode(),
    "coco_boxes": json.dumps(INSTANCES).encode(),
}
MASKS = "coco_segments"  # no form that data are opened in
FORMS = {**READERS, MASKS: lambda data, _: segment_rows(data, CODEC)}
CODEC = MaskCodec(square_arrays())
TEXTS[MASKS] = TEXTS["coco_boxes"]


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([OBJECTS[0], OBJECTS[0] | {"image": "b.jpg"}]), out)
    return out.getvalue()


def check_rows(form: str, data: bytes, columns: Columns = USUAL) -> None:
    try:
        rows = list(FORMS[form](data, columns))
    except ValueError as error:
        assert type(error) is ValueError and str(error)
        return
    for row in rows:
        assert row.problem or (isinstance(row.image, str) and row.image.strip())
        assert row.caption is None or isinstance(row.caption, str)
        assert isinstance(row.split, str) and isinstance(row.prefix, str | None)
        "".join([row.image, row.caption or "", row.prefix or "", row.split]).encode()


@EXAMPLES
@pytest.mark.parametrize("form", TEXTS)
def test_damaged_bytes(examples, form):
    fuzz(examples, lambda data: check_rows(form, data), damaged(TEXTS[form]))


@EXAMPLES
@pytest.mark.parametrize(
    ("form", "valid"),
    [
        *(("json", OBJECTS), ("coco", COCO), ("karpathy", KARPATHY)),
        *(("coco_boxes", INSTANCES), (MASKS, INSTANCES)),
    ],
)
def test_json_of_another_structure(examples, form, valid):
    def check(tree):
        data = json.dumps(tree).encode()
        check_rows(form, data)
        if isinstance(tree, list):
            check_rows("jsonl", b"\n".join(json.dumps(each).encode() for each in tree))
        try:
            assert form_of_json(data) in READERS
        except ValueError as error:
            assert type(error) is ValueError

    fuzz(examples, check, changed_json(valid))


@EXAMPLES
def test_odd_values_in_columns_that_are_named(examples):
    def check(image, caption, prompt, split):
        found = {"a": image, "b": caption, "c": prompt, "d": split}
        check_rows("json", json.dumps([found]).encode(), Columns("a", "b", "c", "", "d"))

    fuzz(examples, check, *[st.one_of(st.just("x"), ODD_VALUES)] * 4)


@EXAMPLES
def test_delimited_cells(examples):
    cells = st.text(st.sampled_from('ab",|\t;\n\r\x1c\x85\u2028\0 é'), max_size=6)
    rows = st.lists(st.lists(cells, max_size=4), max_size=5)

    def check(header, rows):
        text = "\n".join(["image,caption" + header, *(",".join(row) for row in rows)])
        check_rows("delimited", text.encode())
        check_rows("captions.txt", text.encode())

    fuzz(examples, check, cells, rows)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"[" * 990 + b"]" * 990]
)
def test_json_that_is_deep_or_has_huge_numbers(data):
    try:
        parse_json(data)
    except ValueError as error:
        assert "deep" in str(error) or "digits" in str(error) or "line 1" in str(error)
    for form in ("json", "jsonl", "coco", "karpathy", "coco_boxes", MASKS):
        check_rows(form, data)


def test_a_table_of_parquet_that_unpacks_to_too_much_is_told(monkeypatch):
    from paligemma_lib.data.sources import table_forms

    monkeypatch.setattr(table_forms, "MAX_TABLE_BYTES", 100)
    with pytest.raises(ValueError, match="it unpacks to"):
        list(READERS["parquet"](parquet(), USUAL))


def test_conversations_without_an_image_are_counted_in_one_line(caplog):
    lines = [OBJECTS[0], *[{"conversations": []}] * 3]
    rows = list(READERS["jsonl"]("\n".join(map(json.dumps, lines)).encode(), USUAL))
    assert len(rows) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "3 conversations without an image are left out, the first is line 2"
    ]
