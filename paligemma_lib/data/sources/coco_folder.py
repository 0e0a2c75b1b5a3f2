"""Finds the caption tables of COCO in its folder, and the images of each.

coco_tables("coco")      # {"train": ("coco/annotations/captions_train2017.json", "coco/train2017")}
"""

from __future__ import annotations

import os
import re

from paligemma_lib.data.files import join
from paligemma_lib.data.sources.file_names import images_beside

_TABLE = re.compile(r"captions_((train|val|test)\d*)\.json")


def coco_tables(folder: str, images: str = "") -> dict[str, tuple[str, str]]:
    """Returns split -> (table, folder of its images); {} if there is none, or several of a split.

    Args:
      folder: a local folder, with the tables in it or in its folder `annotations`.
      images: the folder of images, if it is not one like `train2017` beside the tables.
    """
    for place in (folder, join(folder, "annotations")):
        names = sorted(os.listdir(place)) if os.path.isdir(place) else []
        found = [match for name in names if (match := _TABLE.fullmatch(name))]
        if found and len({match[2] for match in found}) == len(found):
            return {
                match[2]: (join(place, match[0]), images or _images(folder, match[1]))
                for match in found
            }
    return {}


def _images(folder: str, name: str) -> str:
    for place in (join(folder, name), join(folder, f"images/{name}")):
        if os.path.isdir(place):
            return place
    return images_beside(folder)
