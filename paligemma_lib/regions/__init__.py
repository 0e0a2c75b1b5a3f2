"""Reads and writes regions of images as PaliGemma does: <loc> tokens of boxes, <seg> of masks.

    parse_regions("<loc0100><loc0200><loc0500><loc0700> dog")     # [Region("dog", Box(...))]
    write_regions([Region("dog", Box(0.1, 0.2, 0.5, 0.7))])

The package needs only the standard library.
"""

from paligemma_lib.regions.loc_tokens import (
    Box,
    Region,
    parse_regions,
    without_tokens,
    write_regions,
)

__all__ = ["Box", "Region", "parse_regions", "without_tokens", "write_regions"]
