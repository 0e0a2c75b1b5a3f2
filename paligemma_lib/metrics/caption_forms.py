"""Reads the forms of files of captions: tables, JSON, and Parquet, as rows of text for an image.

for image, prompt, caption in READERS[".csv"](b"image,caption\\na.jpg,A dog .\\n"): ...

Columns and keys have the names that they may have in data. Unlike there, a text may be empty, as
that of a model may be.
"""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from paligemma_lib.data.sources import coco_boxes, coco_forms
from paligemma_lib.data.sources.json_forms import CAPTION_KEYS, IMAGE_KEYS, PREFIX_KEYS, USUAL, Row
from paligemma_lib.data.sources.json_values import parse_json
from paligemma_lib.data.sources.token_table import token_rows
from paligemma_lib.data.text import decoded
from paligemma_lib.runtime.csv_cells import unguarded

MAX_BYTES = 1 << 30

_IMAGES = (*IMAGE_KEYS, "image_id")
_CAPTIONS = ("caption", *CAPTION_KEYS)
_QUESTION = "question_id"  # of VQA, where an image has several questions


class Told(NamedTuple):
    """One text for an image, whose types are still to be checked.

    Attributes:
      image: id of the image, or of the question.
      prompt: what was asked; None if the file does not say.
      caption: the text.
    """

    image: Any
    prompt: Any
    caption: Any


def _text(data: bytes) -> Iterator[Told]:
    # The table of the original Flickr8k has the same ending as that of Kaggle's.
    if re.match(rb"[^\n\t]+#\d+\t", data.removeprefix(b"\xef\xbb\xbf")):
        return _of_rows(token_rows(data, USUAL))
    return _table(data)


def _table(data: bytes) -> Iterator[Told]:
    # newline="" leaves line breaks to the csv module, which reads those inside quotes as text.
    rows = csv.reader(io.StringIO(decoded(data), newline=""), strict=True)
    header = [cell.strip() for cell in _next_row(rows) or []]
    if not set(_IMAGES) & set(header) or not set(_CAPTIONS) & set(header):
        raise ValueError(f"the header is {reprlib.repr(header)}, expected image,caption")
    while (row := _next_row(rows)) is not None:
        if len(row) != len(header):
            raise ValueError(f"{str(row)[:200]} is not one cell for each of {','.join(header)}")
        yield from _of_object(dict(zip(header, map(unguarded, row), strict=True)), _IMAGES)


def _lines(data: bytes) -> Iterator[Told]:
    # Not `splitlines`, which also splits at characters that may stand in a caption.
    for line in filter(str.strip, decoded(data).split("\n")):
        yield from _of_object(parse_json(line), _IMAGES)


def _json(data: bytes) -> Iterator[Told]:
    found = parse_json(data)
    if isinstance(found, dict) and isinstance(found.get("images"), list):
        first = next(iter(found["images"]), None)
        if isinstance(first, dict) and "sentences" in first:
            yield from _of_rows(coco_forms.karpathy_rows(data, USUAL))
            return
    if isinstance(found, dict) and "annotations" in found:  # the format of COCO's annotation files
        if coco_boxes.are_boxes(found):
            yield from _of_rows(coco_boxes.box_rows(data, USUAL))
            return
        found = found["annotations"]
        if not isinstance(found, list):
            raise ValueError(f"annotations are {reprlib.repr(found)}, expected a list")
    if isinstance(found, list):
        for each in found:
            yield from _of_object(each, ("image_id", *IMAGE_KEYS))
    elif not isinstance(found, dict):
        raise ValueError(f"{reprlib.repr(found)} is not an object of images")
    else:
        for image, captions in found.items():
            if not isinstance(captions, str | list):
                raise ValueError(
                    f"{reprlib.repr(image)}: {reprlib.repr(captions)} is not an image and its "
                    "caption, or a list of its captions"
                )
            several = [captions] if isinstance(captions, str) else captions
            yield from (Told(image, None, caption) for caption in several)


def _parquet(data: bytes) -> Iterator[Told]:
    import pyarrow.parquet

    known = {*_IMAGES, *_CAPTIONS, *PREFIX_KEYS, _QUESTION}
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(number).total_byte_size for number in groups)
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size:,} bytes")
        names = [name for name in file.schema_arrow.names if name in known]
        rows = file.read(columns=names, use_threads=False).to_pylist()
    except Exception as error:  # pyarrow raises many kinds for a file that is damaged
        raise ValueError(f"not a complete Parquet file: {str(error)[:200]}") from error
    for row in rows:
        yield from _of_object(row, _IMAGES)


def _of_object(found: Any, images: Sequence[str]) -> Iterator[Told]:
    """Yields the texts of an object whose image has the first of these keys that it has."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{reprlib.repr(found)} is not an object with {images[0]} and caption")
    if _QUESTION in found and "caption" not in found:
        images = (_QUESTION,)
    image, caption, prompt = (_first(found, keys) for keys in (images, _CAPTIONS, PREFIX_KEYS))
    for name, key in ((images[0], image), ("caption", caption)):
        if key is None:
            raise ValueError(f"{name!r} is missing in {reprlib.repr(found)}")
    several = found[caption] if isinstance(found[caption], list) else [found[caption]]
    for each in several:
        if isinstance(each, Mapping):  # {"answer": "two"} of VQA
            each = each.get(_first(each, ("caption", "text", "raw", "answer")))
        yield Told(found[image], found.get(prompt), each)


def _of_rows(rows: Iterable[Row]) -> Iterator[Told]:
    for row in rows:
        if row.problem:
            raise ValueError(row.problem)
        if row.caption is not None:
            yield Told(row.image, row.prefix, row.caption)


def _first(found: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((key for key in keys if found.get(key) is not None), None)


def _next_row(rows: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(rows, None)
    except Exception as error:
        raise ValueError(f"not CSV: {error}") from error


READERS: Mapping[str, Callable[[bytes], Iterator[Told]]] = {
    ".csv": _table,
    ".txt": _text,
    ".jsonl": _lines,
    ".json": _json,
    ".parquet": _parquet,
}
