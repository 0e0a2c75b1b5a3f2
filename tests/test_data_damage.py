"""Damage in every form of data: an error that names the place, or a record that is replaced."""

import json
import os

import pytest
from damage_cases import COUNT, NAMES, all_read, check_replaced, write_images
from data_cases import huge_png, slow_jpeg
from pipeline_cases import evaluate, take, train

from paligemma_lib.data import replace_corrupt
from paligemma_lib.data.sources import despite_damage, open_source, splits_of
from paligemma_lib.data.sources.table_source import TableSource

ROWS = [f"{name},a dog on {name}" for name in NAMES]
OBJECTS = [{"image": name, "caption": f"a dog on {name}"} for name in NAMES]
KARPATHY = [{"filename": name, "split": "train", "sentences": [{"raw": "a dog"}]} for name in NAMES]
COCO_IMAGES = [{"id": number, "file_name": name} for number, name in enumerate(NAMES)]
COCO = [{"image_id": number, "caption": "a dog"} for number in range(COUNT)]


def lines(*rows) -> str:
    return "\n".join([*ROWS[:2], *rows, *ROWS[2:]])


TABLES = {
    "a blank line": ("captions.txt", "image,caption\n" + lines(""), "line 4"),
    "half a row": ("captions.txt", "image,caption\n" + lines("9.png"), "line 4"),
    "an open quote": ("captions.txt", "image,caption\n" + lines('9.png,"a'), "line 4"),
    "no name": ("delimited", "image,caption\n" + lines(",a dog"), "line 4: .* has no image"),
    "no caption": ("delimited", "image,caption\n" + lines("9.png,"), "line 4: the caption of"),
    "a cell too many": ("delimited", "image,caption\n" + lines("9.png,a,b"), "line 4 has 3 cells"),
    "no number": (
        "tokens",
        "\n".join([*(f"{name}#0\ta dog" for name in NAMES), "9.png a dog"]),
        "line 7: .* is not image#number",
    ),
    "a line cut off": (
        "jsonl",
        "\n".join([*map(json.dumps, OBJECTS), '{"image": "9.pn']),
        "line 7 is not valid JSON",
    ),
    "a null name": (
        "jsonl",
        "\n".join(map(json.dumps, [{"image": None, "caption": "a dog"}, *OBJECTS])),
        "line 1 has no image",
    ),
    "an empty name": ("json", json.dumps([*OBJECTS, {"image": " "}]), "item 7 has no image"),
    "a caption of numbers": (
        "json",
        json.dumps([*OBJECTS, {"image": "9.png", "caption": ["a", 3]}]),
        "item 7: '3' is not text",
    ),
    "no file_name": (
        "coco",
        json.dumps({"images": [*COCO_IMAGES, {"id": 9}], "annotations": COCO}),
        "images: .* has no file_name",
    ),
    "no such image": (
        "coco",
        json.dumps({"images": COCO_IMAGES, "annotations": [*COCO, {"image_id": 9}]}),
        "annotation 7: no image has the id 9",
    ),
    "no filename": (
        "karpathy",
        json.dumps({"images": [*KARPATHY, {"sentences": []}]}),
        "image 7: .* has no filename",
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_row_is_an_error_with_its_place_or_replaced(tmp_path, kind):
    form, text, message = TABLES[kind]
    images = write_images(tmp_path / "Images")
    (tmp_path / "table").write_text(text)
    source = TableSource(form, str(tmp_path / "table"), str(images))
    with pytest.raises(ValueError, match=f"table, {message}"):
        len(source)
    records, problems = all_read(despite_damage(source))
    assert [record.image_id for record in records] == NAMES and len(problems) == 1
    check_replaced(source, 1)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("delimited", "name,words\na,b\n"),
        ("captions.txt", "a.jpg,a dog\n"),
        ("delimited", 'image,caption\n0.png,"a dog\n1.png,a cat\n'),
        ("json", '[{"image": "0.png"}'),
        ("captions.txt", b"image,caption\n0.png,caf\xe9\n"),
    ],
)
def test_a_table_whose_rows_cannot_be_told_apart_is_always_an_error(tmp_path, form, text):
    images = write_images(tmp_path / "Images")
    (tmp_path / "table").write_bytes(text if isinstance(text, bytes) else text.encode())
    source = TableSource(form, str(tmp_path / "table"), str(images))
    for wanted in (source, replace_corrupt(source)):
        with pytest.raises(ValueError, match="table, "):
            len(wanted)


def test_a_damaged_row_counts_in_its_split_and_one_without_in_the_first(tmp_path):
    images = write_images(tmp_path / "Images")
    rows = [{**each, "split": "train" if k < 4 else "val"} for k, each in enumerate(OBJECTS)]
    text = "\n".join([*map(json.dumps, rows), "{", '{"image": "", "split": "val"}'])
    (tmp_path / "x.jsonl").write_text(text)
    found = splits_of(str(tmp_path / "x.jsonl"), images=str(images))
    counts = {name: len(despite_damage(source)) for name, source in found.items()}
    assert counts == {"train": 5, "val": 3}
    with pytest.raises(ValueError, match="line 7 is not valid JSON"):
        len(found["val"])


def odd_files(folder):
    """What stands in place of an image, and what is said of it."""
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "folder.png").symlink_to(folder)
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    (folder / "slow.png").write_bytes(slow_jpeg())
    (folder / "large.png").write_bytes(huge_png())
    (folder / "text.png").write_bytes(b"no image")
    (folder / "empty.png").write_bytes(b"")
    return {
        "pipe": "is a named pipe",
        "loop": "loop.png",
        "zero": "zero.png is a link that leads out of",
        "folder": "there is no image 'folder.png'",
        "huge": "larger than the limit of 64 MiB",
        "slow": "more than 100 scans",
        "large": "9,000 x 8,000 pixels",
        "text": "not a complete JPEG",
        "empty": "not a complete JPEG",
        "missing": "there is no image 'missing.png'",
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", ["table", "sidecar"])
def test_what_is_no_image_is_an_error_with_its_place_or_replaced(tmp_path, form):
    images = write_images(tmp_path / "Images")
    expected = odd_files(images)
    names = [*NAMES, *(f"{name}.png" for name in expected)]
    if form == "table":
        rows = "".join(json.dumps({"image": name, "caption": "a dog"}) + "\n" for name in names)
        (tmp_path / "x.jsonl").write_text(rows)
        source = open_source(str(tmp_path / "x.jsonl"), images=str(images))
    else:
        del expected["missing"], expected["folder"]  # folders are searched, not read
        for name in names:
            (images / name.replace(".png", ".txt")).write_text("a dog")
        source = open_source(str(images))
    batches = train(source, batch_size=4, on_corrupt_image="replace")
    take(batches, 2 * len(source) // 4)
    told = "\n".join(batches.corrupt_images)
    assert len(batches.corrupt_images) == len(expected)
    assert all(message in told for message in expected.values())
    raised = _raised(source, len(expected))
    for message in expected.values():
        assert any(message in said for said in raised), message


def _raised(source, count: int) -> list[str]:
    """What evaluation, which reads in order, says of each damaged record."""
    said = []
    for number in range(len(source)):
        try:
            evaluate(_Part(source, number), batch_size=1)
        except (ValueError, OSError) as error:
            said.append(str(error))
    assert len(said) == count
    return said


class _Part:
    """One record of a source."""

    def __init__(self, source, number):
        self.source, self.number = source, number

    def __len__(self):
        return 1

    def read(self, numbers):
        return self.source.read([self.number] * len(numbers))

    def where(self, number):
        return self.source.where(self.number)

    def fingerprint(self):
        return "0"


def test_a_record_without_captions_is_damaged_in_training_alone(tmp_path):
    images = write_images(tmp_path / "Images")
    for name in NAMES[1:]:
        (images / name.replace(".png", ".txt")).write_text("a dog")
    (images / NAMES[0].replace(".png", ".txt")).write_text("\n \n")
    source = open_source(str(images))
    with pytest.raises(ValueError, match="image 0.png .*: it has no caption to train on"):
        take(train(source, batch_size=2), 3)
    batches = train(source, batch_size=2, on_corrupt_image="replace")
    take(batches, 6)
    assert [each.split(" ")[1] for each in batches.corrupt_images] == ["0.png"]
    assert len(evaluate(replace_corrupt(source))[0]["valid"].nonzero()[0]) == COUNT


def test_a_whole_table_has_the_fingerprint_that_it_always_had(tmp_path):
    """A checkpoint compares it with that of its run, perhaps of an older version."""
    images = write_images(tmp_path / "Images")
    (tmp_path / "table").write_text("image,caption\n" + lines())
    source = TableSource("captions.txt", str(tmp_path / "table"), str(images))
    entry = "_Entry(name='0.png', image='0.png', file='0.png', captions=('a dog on 0.png',), "
    written = f"[{entry}prefix=None, place='line 2'), "
    assert repr(source._entries).replace(", problem='')", ")").startswith(written)
    assert source.fingerprint() == despite_damage(source).fingerprint()
    assert source.fingerprint().partition("+")[0] == "edfedf034fe60122"
