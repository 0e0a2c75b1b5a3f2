"""Recognises the form of a caption table, by its name, and by its content if it is JSON.

form_of("annotations/captions_val2017.json", Columns())        # "coco", a key of READERS
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from paligemma_lib.data.files import read_whole
from paligemma_lib.data.sources.coco_boxes import are_boxes
from paligemma_lib.data.sources.json_forms import Columns
from paligemma_lib.data.sources.json_values import parse_json
from paligemma_lib.data.sources.table_forms import MAX_TABLE_BYTES


def form_of(path: str, columns: Columns) -> str:
    """Returns the form of a table, a key of READERS, by its name, and by its content if it is JSON.

    Args:
      path: path of the table, local or remote.
      columns: names of columns, which Kaggle's captions.txt cannot have.

    Raises:
      ValueError: the form is not known.
    """
    name = path.rpartition("/")[2].lower()
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(".json"):
        try:
            return form_of_json(read_whole(path, MAX_TABLE_BYTES))
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error
    if name.endswith(".token.txt") or name.endswith(".token"):
        return "tokens"
    if name == "captions.txt" and not any(columns):
        return "captions.txt"
    if name.endswith((".csv", ".tsv", ".txt")):
        return "delimited"
    raise ValueError(
        f"{path} has an unknown format: expected .jsonl, .json, .csv, .tsv, .txt, .parquet, "
        ".arrow, .tar, .tfrecord or .array_record, or a folder of images"
    )


def form_of_json(data: bytes) -> str:
    """Returns the form of a JSON file, a key of READERS. Raises ValueError if it is not known."""
    found = parse_json(data)
    if isinstance(found, Mapping):
        images = found.get("images")
        first = images[0] if isinstance(images, list) and images else None
        if isinstance(first, Mapping) and "sentences" in first:
            return "karpathy"
        if isinstance(found.get("annotations"), list):
            return "coco_boxes" if are_boxes(found) else "coco"
    elif isinstance(found, list) and all(isinstance(each, Mapping) for each in found[:1]):
        return "json"
    kind: Any = type(found).__name__
    first = ", ".join(itertools.islice(found, 5))[:200] if isinstance(found, Mapping) else ""
    keys = f" with {first}" if first else ""
    raise ValueError(
        f"a JSON {kind}{keys} has an unknown format: expected Karpathy's (images with sentences), "
        "COCO's (images and annotations), or a list of objects with image and caption"
    )
