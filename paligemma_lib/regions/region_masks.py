"""Places the masks of regions in their image, and makes regions of masks.

masks = region_masks(regions, codec, height=480, width=640)      # bool[480, 640] each, or None
region = region_of(mask, codec, "dog")                           # as `write_regions` takes it

Source: big_vision's evaluator of segmentation, which cuts a box to whole pixels in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from paligemma_lib.regions.loc_tokens import Box, Region
from paligemma_lib.regions.mask_codec import SIDE, MaskCodec

_BILINEAR = Image.Resampling.BILINEAR


def region_masks(
    regions: Sequence[Region], codec: MaskCodec, *, height: int, width: int
) -> list[np.ndarray | None]:
    """Returns bool[height, width] for each region, true where the thing is; None without a mask.

    A box of less than a pixel has a mask that is false everywhere.
    """
    with_mask = [region for region in regions if region.mask]
    pixels = iter(codec.decode([region.mask for region in with_mask]))
    return [
        _placed(next(pixels), region.box, height, width) if region.mask else None
        for region in regions
    ]


def region_of(mask: np.ndarray, codec: MaskCodec, label: str) -> Region:
    """Returns a region with the smallest box around a mask, and the mask's codes.

    Args:
      mask: bool[H, W], true where the thing is.
      codec: makes the codes.
      label: what it is.

    Raises:
      ValueError: the mask is not bool[H, W], or false everywhere.
    """
    box, pixels = box_and_pixels(mask, label)
    return Region(label, box, tuple(codec.encode(pixels[None])[0].tolist()))


def box_and_pixels(mask: np.ndarray, label: str) -> tuple[Box, np.ndarray]:
    """Returns the smallest box around a mask, and what fills it, as `MaskCodec.encode` takes it.

    Args:
      mask: bool[H, W], true where the thing is.
      label: what it is, for the error.

    Returns:
      The box, and float32[64, 64], 0 to 1, in between at the thing's edges.

    Raises:
      ValueError: the mask is not bool[H, W], or false everywhere.
    """
    if mask.ndim != 2 or mask.dtype != bool or not mask.any():
        raise ValueError(
            f"{label!r:.60}: its mask is {mask.dtype}{list(mask.shape)}, true at "
            f"{np.count_nonzero(mask)} pixels: expected bool[H, W] with the thing"
        )
    (top, bottom), (left, right) = (
        (int(found[0]), int(found[-1]) + 1)
        for found in (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    )
    height, width = mask.shape
    part = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    pixels = np.asarray(part.resize((SIDE, SIDE), _BILINEAR), np.float32) / 255
    return Box(top / height, left / width, bottom / height, right / width), pixels


def _placed(pixels: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """Returns bool[height, width] of a mask float32[64, 64] that fills a box."""
    out = np.zeros((height, width), bool)
    top, left, bottom, right = (
        int(side * most) for side, most in zip(box, (height, width) * 2, strict=True)
    )
    if top < bottom and left < right:
        resized = Image.fromarray(pixels).resize((right - left, bottom - top), _BILINEAR)
        out[top:bottom, left:right] = np.asarray(resized) > 0
    return out
