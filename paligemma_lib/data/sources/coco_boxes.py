"""Reads COCO's instances, such as Roboflow exports, as prompts for boxes with their answers.

    for row in box_rows(data, USUAL):
        row.image, row.prefix, row.caption       # "1.jpg", "detect cat", "<loc0100>... cat ; ..."

An image has a row for each category that is in it. Boxes stand in the order of the file; those that
mark crowds are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from paligemma_lib.data.sources.json_forms import Columns, Row, damaged
from paligemma_lib.data.sources.json_values import (
    is_cut,
    list_of,
    object_of,
    parse_json,
    shown,
)
from paligemma_lib.regions import Box, Region, write_regions


def are_boxes(found: Mapping[str, Any]) -> bool:
    """Returns whether COCO's annotations are of instances, and not captions."""
    annotations = found.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    has_box = isinstance(first, Mapping) and "bbox" in first and "caption" not in first
    return has_box and isinstance(found.get("categories"), list)


def box_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads a row for each image and category.

    `images` have id, file_name, width and height; `categories` have id and name; `annotations` have
    image_id, category_id and bbox: left, top, width and height in pixels.

    Raises:
      ValueError: the data are no JSON, or one of the three is no list.
    """
    del columns
    found = object_of(parse_json(data))
    images: dict[Any, Mapping[str, Any]] = {}
    for number, image in enumerate(list_of(found.get("images"), "images"), start=1):
        if (problem := _problem_of_image(image)) is not None:
            yield damaged(f"images: {shown(image)} {problem}", f"image {number} of images")
        else:
            images[image["id"]] = image
    names = {
        each["id"]: " ".join(each["name"].split())
        for each in list_of(found.get("categories"), "categories")
        if isinstance(each, Mapping) and _is_id(each.get("id")) and _is_name(each.get("name"))
    }
    regions: dict[tuple[Any, str], list[Region]] = {}
    places: dict[tuple[Any, str], str] = {}
    for number, annotation in enumerate(list_of(found.get("annotations"), "annotations"), start=1):
        place = f"annotation {number}"
        try:
            made = _region(annotation, images, names)
        except ValueError as error:
            yield damaged(f"{place}: {error}", place)
            continue
        if made is not None:
            image_id, region = made
            regions.setdefault((image_id, region.label), []).append(region)
            places.setdefault((image_id, region.label), place)
    for (image_id, label), several in regions.items():
        name, place = images[image_id]["file_name"], places[image_id, label]
        yield Row(name, write_regions(several), f"detect {label}", "", place)


def _region(
    annotation: Any, images: Mapping[Any, Mapping[str, Any]], names: Mapping[Any, str]
) -> tuple[Any, Region] | None:
    """Returns the image's id and the region; None for a crowd, or a box too small to be written."""
    if not isinstance(annotation, Mapping):
        raise ValueError(f"{shown(annotation)} is not an object")
    image_id, category = annotation.get("image_id"), annotation.get("category_id")
    if not _is_id(image_id) or image_id not in images:
        raise ValueError(f"no image has the id {shown(image_id)}")
    if not _is_id(category) or category not in names:
        raise ValueError(f"no category has the id {shown(category)}, or it has no usable name")
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"bbox is {shown(box)}, expected left, top, width and height")
    if annotation.get("iscrowd") == 1:
        return None
    left, top, width, height = box
    across, down = images[image_id]["width"], images[image_id]["height"]
    sides = top / down, left / across, (top + height) / down, (left + width) / across
    region = Region(names[category], Box(*(min(max(side, 0.0), 1.0) for side in sides)))
    try:
        write_regions([region])
    except ValueError:
        return None
    return image_id, region


def _problem_of_image(image: Any) -> str | None:
    if not isinstance(image, Mapping) or not _is_id(image.get("id")):
        return "has no id"
    name = image.get("file_name")
    if not isinstance(name, str) or not name.strip() or is_cut(name):
        return "has no file_name"
    sides: tuple[Any, Any] = image.get("width"), image.get("height")
    return (
        None if all(_is_number(side) and side > 0 for side in sides) else "has no width and height"
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    # What a label cannot hold, see `write_regions`; and prompts are encoded as Unicode.
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not set(value) & set(";<")
        and not is_cut(value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
