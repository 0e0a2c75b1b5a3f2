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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.runtime.atomic import path_of
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
        # utf-8-sig also drops the byte order mark that spreadsheet programs write in front.
        for image, caption in forms[path.suffix](data.decode("utf-8-sig")):
            if not isinstance(image, str | int) or not isinstance(caption, str):
                raise ValueError(
                    f"{image!r}: {str(caption)[:80]!r} is not an image and its caption"
                )
            captions.setdefault(image, []).append(caption)
    except (ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else error
        read = sum(map(len, captions.values()))
        raise ValueError(f"{path}, after {read:,} captions: {told}") from error
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
    if (header := next(rows, [])) != ["image", "caption"]:
        raise ValueError(f"the header is {header}, expected image,caption")
    for row in rows:
        if len(row) != 2:
            raise ValueError(f"{str(row)[:200]} is not one image and one caption")
        yield row[0], row[1]


def _lines(text: str) -> Iterator[tuple[Any, Any]]:
    for line in filter(str.strip, text.splitlines()):
        found = json.loads(line)
        yield found["image"], found["caption"]


def _json(text: str) -> Iterator[tuple[Any, Any]]:
    found = json.loads(text)
    if isinstance(found, dict) and "annotations" in found:  # the format of COCO's annotation files
        found = found["annotations"]
    if isinstance(found, list):
        yield from ((each["image_id"], each["caption"]) for each in found)
    elif not isinstance(found, dict):
        raise ValueError(f"{str(found)[:80]} is not an object of images")
    else:
        for image, captions in found.items():
            several: Iterable[Any] = [captions] if isinstance(captions, str) else captions
            yield from ((image, caption) for caption in several)
