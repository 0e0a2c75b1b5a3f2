"""Whatever a zip, a table or a report of a build holds: rows and defects, or an error of ours."""

import json
from pathlib import Path

from etils import epath
from flickr8k_builds import IMAGES
from flickr8k_sources import csv_table, kaggle_files, token_table, write_zip
from fuzzing import EXAMPLES, changed_json, damaged, fuzz
from hypothesis import strategies as st

from flickr8k_tfds.build_fingerprint import read_fingerprint
from flickr8k_tfds.caption_tables import parse_csv, parse_tokens
from flickr8k_tfds.layout import locate
from flickr8k_tfds.trees import MAX_IMAGE_BYTES, DatasetError, UnreadableFile, visible

CAPTIONS = {"a.jpg": ["a dog", 'a "dog", and a cat'], "ü.jpg": ["x"]}


def check_table(parse, data: bytes) -> None:
    try:
        table = parse(data, where="captions.txt")
    except DatasetError as error:
        assert "captions.txt" in str(error) and error.args[0] == visible_lines(error.args[0])
        return
    for name, texts in table.captions.items():
        assert name and "/" not in name and "\\" not in name and all(map(str.strip, texts))
        assert len(table.lines[name]) == len(texts)


def visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


@EXAMPLES
def test_tables(examples):
    fuzz(examples, lambda data: check_table(parse_csv, data), damaged(csv_table(CAPTIONS)))
    fuzz(examples, lambda data: check_table(parse_tokens, data), damaged(token_table(CAPTIONS)))


@EXAMPLES
def test_cells(examples):
    text = st.text(st.sampled_from('ab",#1\t\n\r\x1b\0\x85/\\.é'), max_size=20)

    def check(text):
        check_table(parse_csv, f"image,caption\n{text}".encode())
        check_table(parse_tokens, text.encode())

    fuzz(examples, check, text)


@EXAMPLES
def test_zips(examples, tmp_path):
    path = write_zip(tmp_path / "x.zip", kaggle_files(IMAGES))

    def check(data):
        path.write_bytes(data)
        try:
            layout = locate(path)
            layout.read_table()
        except DatasetError as error:
            assert str(error)
            return
        for file in layout.images.values():
            try:
                file.read(MAX_IMAGE_BYTES)
            except UnreadableFile as error:
                assert str(error)

    fuzz(examples, check, damaged(path.read_bytes()))


@EXAMPLES
def test_reports(examples, tmp_path):
    path = Path(tmp_path / "verification.json")
    valid = {"fingerprint": {"table": "0", "options": {"side": None}, "images": {"files": 3}}}

    def check(tree):
        path.write_text(json.dumps(tree))
        try:
            assert isinstance(read_fingerprint(epath.Path(path)), dict)
        except ValueError as error:
            assert "has no fingerprint" in str(error)

    fuzz(examples, check, changed_json(valid))
