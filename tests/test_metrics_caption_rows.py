"""Captions from files in every form, and what is in none of them."""

import dataclasses
import json

import pytest

from paligemma_lib.captioner import Captioned
from paligemma_lib.cli.caption_files import write_captions
from paligemma_lib.decode import Caption
from paligemma_lib.metrics import image_files, read_captions, single

WANTED = {"a.jpg": ["A dog , running .", 'A "dog"'], "b.jpg": ["A cat ."]}
ROWS = [(image, caption) for image, captions in WANTED.items() for caption in captions]
QUOTE = '"'
TABLE = 'image,caption\na.jpg,"A dog , running ."\na.jpg,"A ""dog"""\nb.jpg,A cat .\n'
FORMS = {
    "a.csv": TABLE,
    "captions.txt": "\ufeff" + TABLE.replace("\n", "\r\n"),
    "a.jsonl": "\n".join(json.dumps({"image": i, "caption": c}) for i, c in ROWS) + "\n\n",
    "mapping.json": json.dumps(WANTED | {"b.jpg": "A cat ."}),
    "results.json": json.dumps([{"image_id": i, "caption": c} for i, c in ROWS]),
    "coco.json": json.dumps({"annotations": [{"image_id": i, "caption": c} for i, c in ROWS]}),
    "wide.csv": "caption,image,adapter\n"
    + "".join(f'"{c.replace(QUOTE, 2 * QUOTE)}",{i},mine\n' for i, c in ROWS),
    "Flickr8k.token.txt": "\ufeff" + "".join(f"{i}#{k}\t{c}\n" for k, (i, c) in enumerate(ROWS)),
    "suffix.jsonl": "\n".join(
        json.dumps({"image": i, "prefix": "caption en", "suffix": c}) for i, c in WANTED.items()
    ),
    "dataset_flickr8k.json": json.dumps(
        {
            "images": [
                {"filename": i, "split": "test", "sentences": [{"raw": each} for each in c]}
                for i, c in WANTED.items()
            ]
        }
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_all_captions_of_an_image(name, tmp_path):
    (tmp_path / name).write_text(FORMS[name], "utf-8", newline="")
    assert read_captions(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "name,text\n", "the header is"),
        ("a.csv", "image,caption\na.jpg,one\nb.jpg,one,two\n", "after 1 captions: .*is not one"),
        ("a.csv", 'image,caption\na.jpg,"open\n', "unexpected end of data"),
        ("a.csv", "image,caption\n", "holds no captions"),
        ("a.jsonl", '{"image": "a.jpg"}', "'caption' is missing"),
        ("a.jsonl", '{"image": "a.jpg", "caption": "x"}\n{', "after 1 captions"),
        ("a.json", "[" * 100_000, "after 0 captions"),
        ("a.json", '{"a.jpg": [3]}', "is not an image and its caption"),
        ("a.json", "3", "after 0 captions"),
        ("a.json", "[3]", "after 0 captions"),
        ("a.docx", "", "expected a name that ends in .csv, .txt, .jsonl, .json, .parquet"),
        ("a.txt", "a.jpg#0\tA dog .\na.jpg A cat .\n", "after 1 captions: line 2: .*is not image#"),
        ("a.json", '{"images": [{"sentences": [{"raw": "a"}]}]}', "image 1: .* has no filename"),
        ("a.jsonl", '{"image": "a", "prefix": 3, "suffix": "x"}', "3 is not a prompt"),
        ("a.parquet", "PAR1", "after 0 captions: not a complete Parquet file"),
    ],
)
def test_what_is_in_no_form_is_told_with_its_place(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


RESULT = Captioned(
    0, "a.jpg", ("A dog .",), Caption("a dog", (5, 1), (-0.5, -0.25), -0.75), adapter="mine"
)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_caption_writes_is_read(suffix, tmp_path):
    empty = dataclasses.replace(
        RESULT, image_id="=1.jpg", caption=dataclasses.replace(RESULT.caption, text="")
    )
    write_captions(tmp_path / f"a{suffix}", [RESULT, empty], [], [], {})
    assert read_captions(tmp_path / f"a{suffix}") == {"a.jpg": ["a dog"], "=1.jpg": [""]}


def test_questions_of_one_image_are_told_apart_as_in_data(tmp_path):
    lines = [("1.jpg", "how many", ["two", "2"]), ("2.jpg", "where", "here"), ("1.jpg", "what", "")]
    rows = [json.dumps(dict(zip(("image", "prefix", "suffix"), x, strict=True))) for x in lines]
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    wanted = {"1.jpg#1": ["two", "2"], "2.jpg": ["here"], "1.jpg#2": [""]}
    assert read_captions(tmp_path / "q.jsonl") == wanted
    told = read_captions(tmp_path / "q.jsonl", by_prompt=False)
    with pytest.raises(ValueError, match="several captions for 1 images, .*such as '1.jpg#1'"):
        single(told, "q.jsonl")


def test_annotations_and_results_of_vqa_go_by_their_questions(tmp_path):
    answers = [{"answer": each, "answer_id": k} for k, each in enumerate(("two", "2"), 1)]
    asked = [{"question_id": 7, "image_id": 1, "answers": answers, "answer_type": "number"}]
    (tmp_path / "a.json").write_text(json.dumps({"annotations": asked}))
    (tmp_path / "r.json").write_text(json.dumps([{"question_id": 7, "answer": "two"}]))
    assert read_captions(tmp_path / "a.json") == {7: ["two", "2"]}
    assert read_captions(tmp_path / "r.json") == {7: ["two"]}


def test_boxes_of_coco_are_read_as_in_data(tmp_path):
    image = {"id": 1, "file_name": "1.jpg", "width": 100, "height": 100}
    boxes = [{"image_id": 1, "category_id": k, "bbox": [0, 0, 50, 50]} for k in (1, 2)]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco = {"images": [image], "annotations": boxes, "categories": names}
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    box = "<loc0000><loc0000><loc0512><loc0512>"
    wanted = {"1.jpg#1": [f"{box} cat"], "1.jpg#2": [f"{box} dog"]}
    assert read_captions(tmp_path / "boxes.json") == wanted


def test_files_of_the_images_of_coco(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "x"}, 3]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    assert image_files(tmp_path / "coco.json") == {1: "a.jpg"}
    for name in ("results.json", "mapping.json", "a.csv"):
        (tmp_path / name).write_text(FORMS[name])
        assert image_files(tmp_path / name) == {}


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"image,caption\na.jpg,\xff\xfe\n")
    with pytest.raises(ValueError, match="after 0 captions"):
        read_captions(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError):
        read_captions(tmp_path / "none.csv")


def test_predictions_have_one_caption_for_an_image():
    assert single({"b.jpg": ["A cat ."]}, "p.csv") == {"b.jpg": "A cat ."}
    with pytest.raises(ValueError, match="p.csv has several captions for 1 images, .*'a.jpg'"):
        single(WANTED, "p.csv")
