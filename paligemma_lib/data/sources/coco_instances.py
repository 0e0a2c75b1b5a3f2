"""Reads the instances of COCO, such as Roboflow exports, for whoever makes regions of them.

    for row in instance_rows(data, "detect", box_of):      # see `coco_boxes` and `coco_segments`
        row.image, row.prefix, row.caption       # "1.jpg", "detect cat", "<loc0100>... cat ; ..."

An image has a row for each category that is in it. Regions stand in the order of the file; those
that mark crowds are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from paligemma_lib.data.sources.json_forms import Row, damaged
from paligemma_lib.data.sources.json_values import (
    is_cut,
    list_of,
    object_of,
    parse_json,
    shown,
)
from paligemma_lib.regions import Region, write_regions


class Instance(NamedTuple):
    """A thing in an image: name of its category, its annotation, and the image's size in pixels."""

    label: str
    annotation: Mapping[str, Any]
    height: float
    width: float


RegionOf = Callable[[Instance], Region | None]  # None: it is too small to be written


def instance_rows(data: bytes, verb: str, region_of: RegionOf) -> Iterator[Row]:
    """Reads a row for each image and category.

    `images` have id, file_name, width and height; `categories` have id and name; `annotations` have
    image_id and category_id, and what `region_of` reads.

    Args:
      data: the file.
      verb: begins the prompts, as "detect" in "detect cat".
      region_of: makes the region of an instance; ValueError makes a damaged row.

    Raises:
      ValueError: the data are no JSON, or one of the three is no list.
    """
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
            image, label = _image_and_label(annotation, images, names)
            if annotation.get("iscrowd") == 1:
                continue
            made = region_of(Instance(label, annotation, image["height"], image["width"]))
        except ValueError as error:
            yield damaged(f"{place}: {error}", place)
            continue
        if made is not None:
            regions.setdefault((image["id"], label), []).append(made)
            places.setdefault((image["id"], label), place)
    for (image_id, label), several in regions.items():
        name, place = images[image_id]["file_name"], places[image_id, label]
        yield Row(name, write_regions(several), f"{verb} {label}", "", place)


def written(region: Region) -> Region | None:
    """Returns a region, or None if it is too small to be written."""
    try:
        write_regions([region])
    except ValueError:
        return None
    return region


def is_number(value: Any) -> bool:
    """Returns whether a value of JSON is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # a number of JSON may have hundreds of digits


def _image_and_label(
    annotation: Any, images: Mapping[Any, Mapping[str, Any]], names: Mapping[Any, str]
) -> tuple[Mapping[str, Any], str]:
    if not isinstance(annotation, Mapping):
        raise ValueError(f"{shown(annotation)} is not an object")
    image_id, category = annotation.get("image_id"), annotation.get("category_id")
    if not _is_id(image_id) or image_id not in images:
        raise ValueError(f"no image has the id {shown(image_id)}")
    if not _is_id(category) or category not in names:
        raise ValueError(f"no category has the id {shown(category)}, or it has no usable name")
    return images[image_id], names[category]


def _problem_of_image(image: Any) -> str | None:
    if not isinstance(image, Mapping) or not _is_id(image.get("id")):
        return "has no id"
    name = image.get("file_name")
    if not isinstance(name, str) or not name.strip() or is_cut(name):
        return "has no file_name"
    sides: tuple[Any, Any] = image.get("width"), image.get("height")
    return (
        None if all(is_number(side) and side > 0 for side in sides) else "has no width and height"
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
