"""Reads the masks of COCO's instances as prompts with their answers.

    for row in segment_rows(data, codec):
        row.image, row.prefix, row.caption       # "1.jpg", "segment cat", "<loc0100>...<seg012>..."

The codes of a mask take milliseconds each, and those of COCO's 860,000 hours. So no run reads this
form when it opens its data: `paligemma coco-masks` writes the rows once, as JSON lines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from paligemma_lib.data.image_bounds import check_pixels
from paligemma_lib.data.sources.coco_instances import Instance, instance_rows, written
from paligemma_lib.data.sources.json_forms import Row
from paligemma_lib.data.sources.json_values import shown
from paligemma_lib.data.sources.segmentations import mask_of
from paligemma_lib.regions import MaskCodec, Region, region_of

_log = logging.getLogger(__name__)

_TOLD_EVERY = 10_000  # masks


def segment_rows(data: bytes, codec: MaskCodec) -> Iterator[Row]:
    """Reads a row for each image and category, see `instance_rows`.

    Annotations have segmentation, see `segmentations.mask_of`. The box is the mask's own, and not
    bbox. A mask without a pixel in the image is left out.

    Raises:
      ValueError: the data are no JSON, or images, categories or annotations are no list.
    """
    count = 0

    def region(instance: Instance) -> Region | None:
        nonlocal count
        height, width = instance.height, instance.width
        if height != int(height) or width != int(width):
            raise ValueError(f"its image is {shown(width)} x {shown(height)}, not whole pixels")
        try:
            check_pixels(int(width), int(height))
        except ValueError as error:
            raise ValueError(f"its image is {error}") from error
        mask = mask_of(instance.annotation.get("segmentation"), int(height), int(width))
        if not mask.any():
            return None
        count += 1
        if count % _TOLD_EVERY == 0:
            _log.info("%s masks have their codes", f"{count:,}")
        return written(region_of(mask, codec, instance.label))

    yield from instance_rows(data, "segment", region)
