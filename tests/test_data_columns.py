"""Columns, keys and features that have other names than usual."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coco_cases import write_coco_captions
from data_cases import example, photo, write_tfrecord
from run_cases import setup_of, write_run

from paligemma_lib.data import from_tfds, from_tfrecords, open_source
from paligemma_lib.data.sources import Columns, splits_of

NAMED = Columns("picture", "said", "asked", split="part")
ROWS = [
    {"picture": f"{k}.png", "said": f"a {k}", "asked": "what?", "part": "train" if k else "val"}
    for k in range(3)
]


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(photo(number))
    return tmp_path


def as_csv(folder):
    rows = "".join(",".join(row.values()) + "\n" for row in ROWS)
    return folder / "table.csv", "picture,said,asked,part\n" + rows


def as_captions_txt(folder):
    return folder / "captions.txt", as_csv(folder)[1]


def as_jsonl(folder):
    return folder / "table.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)


def as_json(folder):
    return folder / "table.json", json.dumps(ROWS)


def told(splits):
    return {
        split: [
            (record.image, record.captions, record.prefix)
            for record in source.read(range(len(source)))
        ]
        for split, source in splits.items()
    }


EXPECTED = {
    "val": [(photo(0), ("a 0",), "what?")],
    "train": [(photo(k), (f"a {k}",), "what?") for k in (1, 2)],
}


@pytest.mark.parametrize("write", [as_csv, as_captions_txt, as_jsonl, as_json])
def test_columns_of_a_table(folder, write):
    path, content = write(folder)
    path.write_text(content)
    assert told(splits_of(str(path), columns=NAMED)) == EXPECTED


def test_columns_of_parquet(folder):
    rows = [
        {**row, "picture": {"bytes": photo(k), "path": None}, "key": f"image {k}"}
        for k, row in enumerate(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "table.parquet")
    columns = NAMED._replace(image_id="key")
    splits = splits_of(str(folder / "table.parquet"), columns=columns)
    assert told(splits) == EXPECTED
    assert splits["val"].read([0])[0].image_id == "image 0"


def test_features_of_records(tmp_path):
    features = {"picture": [photo(1)], "said": [b"a 1"], "asked": [b"what?"], "key": [7]}
    path = write_tfrecord(tmp_path / "a.tfrecord", [example(features)])
    columns = NAMED._replace(image_id="key", split="")
    (record,) = open_source(path, columns=columns).read([0])
    assert (record.image, record.captions, record.prefix) == EXPECTED["train"][0]
    assert record.image_id == "7"
    with pytest.raises(ValueError, match="split_column='part'"):
        open_source(path, columns=NAMED)


def test_usual_features_need_no_names(tmp_path):
    features = {"image/encoded": [photo(1)], "caption": [b"a 1"]}
    path = write_tfrecord(tmp_path / "a.tfrecord", [example(features)] * 2)
    first, second = from_tfrecords(path).read([0, 1])
    assert (first.image, first.captions) == (photo(1), ("a 1",))
    assert first.image_id != second.image_id  # the place of the record, as there is no other
    path = write_tfrecord(tmp_path / "b.tfrecord", [example({"x": [b"y"]})])
    with pytest.raises(ValueError, match=r"b.tfrecord, record 0 .* Name the one that holds"):
        from_tfrecords(path).read([0])


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("Flickr8k.token.txt", "0.png#0\ta dog\n", Columns(caption="said")),
        ("x.json", json.dumps({"images": [], "annotations": []}), Columns(split="part")),
        ("x.csv", "image,caption\n0.png,a dog\n", Columns(image_id="key")),
    ],
)
def test_a_name_for_what_has_a_fixed_place_is_refused(folder, name, content, columns):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=r"named for the .*in this form"):
        splits_of(str(folder / name), columns=columns)


@pytest.mark.parametrize("write", [as_csv, as_jsonl])
def test_a_name_that_is_not_there_is_told(folder, write):
    path, content = write(folder)
    path.write_text(content)
    with pytest.raises(ValueError, match="picture|image"):
        len(open_source(str(path), columns=NAMED._replace(image="photo")))


@pytest.fixture
def coco(tmp_path):
    images = [photo(k) for k in range(6)]
    write_coco_captions(tmp_path / "data", {"train": images[:3], "val": images[3:]})
    return tmp_path / "data"


def test_coco_captions_of_tfds_by_config_alone(coco, tmp_path):
    config = write_run(tmp_path)
    data = {"kind": "auto", "name": "coco_captions", "dir": str(coco), "images": ""}
    data |= {"train": "train", "validation": "validation", "test": "val"}
    found = setup_of(config, data=data).data
    records = {record.image_id: record for record in found["validation"].read(range(3))}
    assert sorted(records) == [f"COCO_val2014_{k}.jpg" for k in (3, 4, 5)]
    assert records["COCO_val2014_4.jpg"].captions == ("A 4 0.", "A 4 1.")
    assert len(found["train"]) == len(found["test"]) == 3
    with pytest.raises(ValueError, match=r"no split 'valid\[:3\]'"):
        len(from_tfds("coco_captions", "valid[:3]", data_dir=str(coco)))
