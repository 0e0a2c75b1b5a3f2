"""Reads and writes regions of images as PaliGemma does: <loc> tokens of boxes, <seg> of masks.

    parse_regions("<loc0100><loc0200><loc0500><loc0700> dog")     # [Region("dog", Box(...))]
    write_regions([Region("dog", Box(0.1, 0.2, 0.5, 0.7))])

    region_masks(regions, codec, height=480, width=640)           # bool[480, 640] each

The package needs NumPy and Pillow alone. `checkpoint.load_mask_codec` reads the VQ-VAE.
"""

from paligemma_lib.regions.loc_tokens import (
    Box,
    Region,
    parse_regions,
    without_tokens,
    write_regions,
)
from paligemma_lib.regions.mask_codec import MaskCodec
from paligemma_lib.regions.region_masks import region_masks, region_of

__all__ = [
    "Box",
    "MaskCodec",
    "Region",
    "parse_regions",
    "region_masks",
    "region_of",
    "without_tokens",
    "write_regions",
]
