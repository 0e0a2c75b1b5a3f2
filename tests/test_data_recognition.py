"""The form of data is known by its content, and so are its splits."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_cases import photo
from form_cases import (
    NAMES,
    as_captions_txt,
    as_coco,
    as_flickr30k,
    as_imagefolder,
    as_parquet,
    as_sidecars,
    as_tokens,
    as_webdataset,
)

from paligemma_lib.data import open_source
from paligemma_lib.data.sources import splits_of
from paligemma_lib.data.sources.hashed_splits import FRACTIONS, split_of


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "Images"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(photo(number))
    return tmp_path


@pytest.mark.parametrize(
    "form",
    [
        as_captions_txt, as_flickr30k, as_imagefolder, as_coco, as_tokens, as_sidecars, as_parquet,
        as_webdataset,
    ],
)  # fmt: skip
def test_every_form_gives_the_same_records(images, form):
    source = open_source(str(form(images)))
    found = source.read(range(len(source)))
    assert [record.image for record in found] == [photo(k) for k in range(6)]
    assert [record.captions for record in found] == [(f"c {name}",) for name in NAMES]
    assert open_source(str(form(images))).fingerprint() == source.fingerprint()


def karpathy(folder, splits):
    content = [
        {"filename": name, "split": split, "sentences": [{"raw": f"c {name}"}]}
        for name, split in zip(NAMES, splits, strict=True)
    ]
    path = folder / "dataset_flickr8k.json"
    path.write_text(json.dumps({"images": content}))
    return str(path)


def test_splits_of_its_own_by_any_of_their_names(images):
    path = karpathy(images, ["train", "train", "val", "test", "restval", "train"])
    assert {name: len(source) for name, source in splits_of(path).items()} == {
        "train": 3, "val": 1, "test": 1, "restval": 1,
    }  # fmt: skip
    for split, name in (("validation", "img_2.jpg"), ("val", "img_2.jpg"), ("test", "img_3.jpg")):
        for source in (open_source(path, split=split), open_source(f"{path}#{split}")):
            assert [record.image_id for record in source.read([0])] == [name]
    with pytest.raises(ValueError, match="has no split 'dev2'; it has train, val, test, restval"):
        open_source(path, split="dev2")
    with pytest.raises(ValueError, match="has no split ''; it has train"):
        open_source(path)


def test_a_folder_for_each_split(images):
    for split in ("train", "valid", "test"):
        (images / "data" / split).mkdir(parents=True)
        as_sidecars(images)
        for name in NAMES[: 2 if split == "train" else 1]:
            for suffix in (".jpg", ".txt"):
                part = (images / "Images" / name).with_suffix(suffix)
                (images / "data" / split / part.name).write_bytes(part.read_bytes())
    found = splits_of(str(images / "data"))
    assert {name: len(source) for name, source in found.items()} == {
        "test": 1, "train": 2, "valid": 1,
    }  # fmt: skip
    assert len(open_source(str(images / "data"), split="validation")) == 1


def test_files_of_the_hub_are_called_after_their_splits(images):
    folder = images / "repository" / "data"
    folder.mkdir(parents=True)
    content = pq.read_table(as_parquet(images))
    pq.write_table(content[:4], folder / "train-00000-of-00002.parquet")
    pq.write_table(content[4:], folder / "train-00001-of-00002.parquet")
    pq.write_table(content, folder / "validation-00000-of-00001.parquet")
    found = splits_of(str(images / "repository"))
    assert {n: len(source) for n, source in found.items()} == {"train": 6, "validation": 6}


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "test.parquet"),
        ("data/train_0.parquet", "data/test_0.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("flickr8k-train.parquet", "flickr8k-test.parquet"),
        ("Train/a.parquet", "Test/a.parquet"),
    ],
)
def test_split_names_of_files_are_never_mixed(images, names):
    content = pq.read_table(as_parquet(images))
    for name in names:
        (images / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content[:4] if "rain" in name else content[4:], images / "mine" / name)
    found = {part: open_source(str(images / "mine"), split=part) for part in ("train", "test")}
    assert {part: len(source) for part, source in found.items()} == {"train": 4, "test": 2}


def test_a_data_set_saved_to_disk_has_the_splits_it_lists(images):
    content = pq.read_table(as_parquet(images))
    for name in ("train_sft", "restval"):
        (images / "saved" / name).mkdir(parents=True)
        for file in ("data-00000-of-00001", "cache-0123"):  # the latter is left by `map`
            with pa.ipc.new_stream(
                images / "saved" / name / f"{file}.arrow", content.schema
            ) as out:
                out.write_table(content)
    (images / "saved" / "dataset_dict.json").write_text('{"splits": ["train_sft", "restval"]}')
    (images / "saved" / "dataset_info.json").write_text('{"splits": {"train": {}}}')
    found = splits_of(str(images / "saved"))
    assert {name: len(source) for name, source in found.items()} == {"train_sft": 6, "restval": 6}


def test_a_column_of_splits_in_parquet(images):
    content = pq.read_table(as_parquet(images))
    column = pa.array(["train"] * 3 + ["val"] * 2 + ["test"])
    pq.write_table(content.append_column("split", column), images / "x.parquet")
    found = splits_of(str(images / "x.parquet"))
    assert {name: len(source) for name, source in found.items()} == {
        "train": 3,
        "val": 2,
        "test": 1,
    }
    assert len({source.fingerprint() for source in found.values()}) == 3
    pq.write_table(
        content.append_column("split", pa.array(["train", None] * 3)), images / "y.parquet"
    )
    with pytest.raises(ValueError, match="the column split has rows without a split"):
        splits_of(str(images / "y.parquet"))


def test_training_splits_may_be_joined_and_spelt_otherwise(images):
    path = karpathy(images, ["Train", "Train", "Val", "test", "restval", "restval"])
    assert len(open_source(f"{path}#Train+restval")) == 4
    assert len(open_source(path, split="train")) == 2
    assert len(open_source(path, split="validation")) == 1


def test_a_row_without_a_split_among_others_is_told(images):
    (images / "a.csv").write_text("image,caption,split\nimg_0.jpg,a,train\nimg_1.jpg,b,\n")
    with pytest.raises(ValueError, match="a.csv, line 3: the row has no split"):
        splits_of(str(images / "a.csv"))


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "image,caption,split\n"), ("a.json", "[]")]
)
def test_a_table_without_rows_is_a_source_without_records(images, name, content):
    (images / name).write_text(content)
    assert len(open_source(str(images / name))) == 0


def test_metadata_of_an_imagefolder_in_parquet(images):
    content = pa.table({"file_name": NAMES, "text": [f"c {name}" for name in NAMES]})
    pq.write_table(content, images / "Images" / "metadata.parquet")
    (images / "Hub").mkdir()
    (images / "Images").rename(images / "Hub" / "data")
    source = open_source(str(images / "Hub"))
    assert [record.captions for record in source.read(range(6))] == [(f"c {n}",) for n in NAMES]


@pytest.mark.parametrize("table", ["annotations.csv", "notes/dataset_coco.json", "x.tfrecord"])
def test_a_table_that_is_not_recognised_is_named(images, table):
    (images / table).parent.mkdir(exist_ok=True)
    (images / table).write_text("")
    with pytest.raises(ValueError, match=f"no image has a text file .*, but there is {table}"):
        splits_of(str(images))


def test_a_pattern_of_other_files_is_told(images):
    with pytest.raises(ValueError, match="a pattern can only match .tar, .parquet"):
        splits_of(str(images / "Images" / "*.jpg"))


def test_fractions_by_a_hash_keep_images_where_they_are(images):
    path = str(as_coco(images))
    parts = {split: open_source(path, split=split) for split in FRACTIONS}
    ids = {s: [r.image_id for r in part.read(range(len(part)))] for s, part in parts.items()}
    assert sorted(name for names in ids.values() for name in names) == NAMES
    for split, names in ids.items():
        assert all(split_of(name) == split for name in names)
    assert len({part.fingerprint() for part in parts.values()}) == 3
    names = [f"{k}.jpg" for k in range(10_000)]
    shares = [sum(split_of(name) == split for name in names) / 10_000 for split in FRACTIONS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_prompts_of_an_image_are_in_one_split(tmp_path, images):
    lines = [{"image": name, "prefix": p, "suffix": "a"} for name in NAMES for p in ("en", "de")]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = [open_source(str(path), split=split, images=str(images)) for split in FRACTIONS]
    ids = [[r.image_id for r in part.read(range(len(part)))] for part in parts]
    names = [{image_id.partition("#")[0] for image_id in each} for each in ids]
    assert sum(map(len, ids)) == 2 * len(NAMES) == 2 * sum(map(len, names))
    assert all(
        split_of(name) == split for split, n in zip(FRACTIONS, names, strict=True) for name in n
    )


def test_what_is_nothing_known_is_told(tmp_path, images):
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(ValueError, match="a.docx has an unknown format: expected .jsonl"):
        open_source(str(tmp_path / "a.docx"))
    with pytest.raises(FileNotFoundError, match="does not exist: expected a file or a folder"):
        open_source(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="is not a folder with images"):
        open_source(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="annotations.json has no splits of its own: use train"):
        open_source(str(as_coco(images)), split="minival")
