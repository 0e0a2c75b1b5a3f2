"""Reads the boxes of COCO's instances as prompts with their answers.

for row in box_rows(data, USUAL):
    row.image, row.prefix, row.caption       # "1.jpg", "detect cat", "<loc0100>... cat ; ..."
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paligemma_lib.data.sources.coco_instances import (
    Instance,
    instance_rows,
    is_number,
    written,
)
from paligemma_lib.data.sources.json_forms import Columns, Row
from paligemma_lib.data.sources.json_values import shown
from paligemma_lib.regions import Box, Region


def are_boxes(found: Mapping[str, Any]) -> bool:
    """Returns whether COCO's annotations are of instances, and not captions."""
    annotations = found.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    has_box = isinstance(first, Mapping) and "bbox" in first and "caption" not in first
    return has_box and isinstance(found.get("categories"), list)


def box_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads a row for each image and category, see `instance_rows`.

    Annotations have bbox: left, top, width and height in pixels.

    Raises:
      ValueError: the data are no JSON, or images, categories or annotations are no list.
    """
    del columns
    yield from instance_rows(data, "detect", _region)


def _region(instance: Instance) -> Region | None:
    box = instance.annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"bbox is {shown(box)}, expected left, top, width and height")
    left, top, width, height = box
    across, down = instance.width, instance.height
    sides = top / down, left / across, (top + height) / down, (left + width) / across
    return written(Region(instance.label, Box(*(min(max(side, 0.0), 1.0) for side in sides))))
