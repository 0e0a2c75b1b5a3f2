"""Reads caption tables in JSON that are one object: COCO's and Karpathy's formats.

for row in coco_rows(data, USUAL): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paligemma_lib.data.sources.json_forms import Columns, Row, damaged
from paligemma_lib.data.sources.json_values import (
    is_cut,
    list_of,
    object_of,
    parse_json,
    shown,
    text_of,
)


def coco_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from COCO's captions.

    `images` have id and file_name; `annotations` have image_id and caption. Images without an
    annotation come last, without a caption.

    Raises:
      ValueError: the data are no JSON, or `images` or `annotations` are no lists.
    """
    del columns
    found = object_of(parse_json(data))
    names: dict[Any, str] = {}
    for number, image in enumerate(list_of(found.get("images") or [], "images"), start=1):
        if _has(image, "file_name") and isinstance(image.get("id"), int | str):
            names[image["id"]] = image["file_name"]
        else:
            problem = f"images: {shown(image)} has no file_name, or no id"
            yield damaged(problem, f"image {number} of images")
    captioned = set()
    for number, annotation in enumerate(list_of(found.get("annotations"), "annotations"), start=1):
        place = f"annotation {number}"
        image_id = annotation.get("image_id") if isinstance(annotation, Mapping) else None
        if isinstance(image_id, float) and image_id.is_integer():
            image_id = int(image_id)
        if not isinstance(image_id, int | str):
            yield damaged(f"{place}: {shown(annotation)} has no image_id", place)
            continue
        # Result files and some caption files have no `images`. In COCO, the file name follows from
        # the id: 139 gives 000000000139.jpg.
        name = f"{image_id:012d}.jpg" if type(image_id) is int else str(image_id)
        try:
            if names and image_id not in names:
                raise ValueError(f"{place}: no image has the id {image_id!r:.80}")
            if is_cut(name):
                raise ValueError(f"{place}: the name {name!r} contains an unpaired surrogate")
            caption = text_of(annotation.get("caption"), place)
        except ValueError as error:
            yield damaged(str(error), place)
            continue
        captioned.add(image_id)
        yield Row(names.get(image_id, name), caption, None, "", place)
    for image_id, name in names.items():
        if image_id not in captioned:
            yield Row(name, None, None, "", f"image {image_id}")


def karpathy_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from Karpathy's dataset_*.json.

    `images` have filename, split, and `sentences`, each with its text in `raw`.

    Raises:
      ValueError: the data are no JSON, or `images` are no list.
    """
    del columns
    images = list_of(object_of(parse_json(data)).get("images"), "images")
    for number, image in enumerate(images, start=1):
        place = f"image {number}"
        if not _has(image, "filename"):
            yield damaged(f"{place}: {shown(image)} has no filename", place)
            continue
        folder = image.get("filepath")  # only in dataset_coco.json: train2014 or val2014
        name = f"{shown(folder)}/{image['filename']}" if folder else image["filename"]
        split, sentences = shown(image.get("split", "")), image.get("sentences") or []
        if not isinstance(sentences, list) or is_cut(name + split):
            problem = f"{place}: {shown(image)!r} has no list of sentences, or no name and split"
            yield damaged(problem, place)
            continue
        for sentence in sentences:
            said = sentence.get("raw") if isinstance(sentence, Mapping) else None
            try:
                yield Row(name, text_of(said, place), None, split, place)
            except ValueError as error:
                yield damaged(str(error), place, split)


def _has(found: Any, key: str) -> bool:
    name = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(name, str) and bool(name.strip()) and not is_cut(name)
