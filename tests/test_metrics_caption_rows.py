"""Captions from files in every form, and what is in none of them."""

import json

import pytest

from paligemma_lib.metrics import read_captions, single

WANTED = {"a.jpg": ["A dog , running .", 'A "dog"'], "b.jpg": ["A cat ."]}
ROWS = [(image, caption) for image, captions in WANTED.items() for caption in captions]
TABLE = 'image,caption\na.jpg,"A dog , running ."\na.jpg,"A ""dog"""\nb.jpg,A cat .\n'
FORMS = {
    "a.csv": TABLE,
    "captions.txt": "\ufeff" + TABLE.replace("\n", "\r\n"),
    "a.jsonl": "\n".join(json.dumps({"image": i, "caption": c}) for i, c in ROWS) + "\n\n",
    "mapping.json": json.dumps(WANTED | {"b.jpg": "A cat ."}),
    "results.json": json.dumps([{"image_id": i, "caption": c} for i, c in ROWS]),
    "coco.json": json.dumps({"annotations": [{"image_id": i, "caption": c} for i, c in ROWS]}),
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
        ("a.docx", "", "expected a name that ends in .csv, .txt, .jsonl, .json"),
    ],
)
def test_what_is_in_no_form_is_told_with_its_place(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


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
