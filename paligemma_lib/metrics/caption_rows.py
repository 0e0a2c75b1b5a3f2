"""Reads captions, one or several for each image, from the usual file formats.

references = read_captions("captions.txt")          # {"a.jpg": ["A dog runs .", ...]}
captions = single(read_captions("predictions.json"), "predictions.json")

.csv, .txt   a table with the header image,caption
.jsonl       lines with image and caption
.json        a list of {"image_id", "caption"}, COCO's annotations, or {image: [caption, ...]}
"""

from __future__ import annotations

import csv
import io
import json
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.csv_cells import unguarded
from paligemma_lib.runtime.regular_files import read_bounded

_MAX_BYTES = 1 << 30


def read_captions(path: str | os.PathLike[str]) -> dict[ImageId, list[str]]:
    """Returns all captions of each image, in the order of the file.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file has none of the formats. The message says after how many captions
        reading failed.
    """
    path = path_of(path)
    try:
        data = read_bounded(path, _MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"{error}: is it a file of captions?") from error
    forms = {".csv": _table, ".txt": _table, ".jsonl": _lines, ".json": _json}
    if path.suffix not in forms:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(forms)}")
    captions: dict[ImageId, list[str]] = {}
    try:
        for image, caption in forms[path.suffix](_decoded(data)):
            if not _is_id(image) or not isinstance(caption, str):
                raise ValueError(
                    f"{reprlib.repr(image)}: {reprlib.repr(caption)} is not an image and its "
                    "caption, expected an id that is str or int and a caption that is str"
                )
            captions.setdefault(image, []).append(caption)
    except ValueError as error:
        read = sum(map(len, captions.values()))
        raise ValueError(f"{path}, after {read:,} captions: {error}") from error
    if not captions:
        raise ValueError(f"{path} holds no captions")
    return captions


def single(
    captions: Mapping[ImageId, Sequence[str]], path: str | os.PathLike[str]
) -> dict[ImageId, str]:
    """Returns the only caption of each image. Raises ValueError if an image has several."""
    if several := [image for image, found in captions.items() if len(found) > 1]:
        raise ValueError(
            f"{os.fspath(path)} has several captions for {len(several)} images, the first "
            f"{several[0]!r}: expected one for each"
        )
    return {image: found[0] for image, found in captions.items()}


def _table(text: str) -> Iterator[tuple[Any, Any]]:
    # newline="" leaves line breaks to the csv module, which reads those inside quotes as text.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    if (header := _next_row(rows)) != ["image", "caption"]:
        raise ValueError(f"the header is {reprlib.repr(header)}, expected image,caption")
    while (row := _next_row(rows)) is not None:
        if len(row) != 2:
            raise ValueError(f"{str(row)[:200]} is not one image and one caption")
        yield unguarded(row[0]), unguarded(row[1])


def _lines(text: str) -> Iterator[tuple[Any, Any]]:
    # Not `splitlines`, which also splits at characters that may stand in a caption.
    for line in filter(str.strip, text.split("\n")):
        yield _pair(_parsed(line), "image")


def _json(text: str) -> Iterator[tuple[Any, Any]]:
    found = _parsed(text)
    if isinstance(found, dict) and "annotations" in found:  # the format of COCO's annotation files
        found = found["annotations"]
        if not isinstance(found, list):
            raise ValueError(f"annotations are {reprlib.repr(found)}, expected a list")
    if isinstance(found, list):
        yield from (_pair(each, "image_id") for each in found)
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
            yield from ((image, caption) for caption in several)


def _pair(entry: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{reprlib.repr(entry)} is not an object with {name} and caption")
    if missing := [key for key in (name, "caption") if key not in entry]:
        raise ValueError(f"{missing[0]!r} is missing in {reprlib.repr(entry)}")
    return entry[name], entry["caption"]


def _is_id(image: object) -> bool:
    # isinstance(True, int) holds, and True == 1: a bool would silently stand for image 1.
    return isinstance(image, str | int) and not isinstance(image, bool)


def _decoded(data: bytes) -> str:
    try:
        # utf-8-sig also drops the byte order mark that spreadsheet programs write in front.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 ({error.reason}): save it as UTF-8") from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except Exception as error:  # a RecursionError, too, for thousands of brackets
        raise ValueError(f"{reprlib.repr(text)} is not JSON: {error}") from error


def _next_row(rows: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(rows, None)
    except Exception as error:
        raise ValueError(f"not CSV: {error}") from error
