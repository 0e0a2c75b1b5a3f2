"""Reads the caption tables of the original Flickr8k and Flickr30k: Flickr8k.token.txt.

for row in token_rows(b"1.jpg#0\\tA dog runs .\\n1.jpg#1\\tA brown dog .\\n", USUAL): ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from paligemma_lib.data.sources.json_forms import Columns, Row, damaged
from paligemma_lib.data.text import lines_of


def token_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows of image#number, a tab, a caption."""
    del columns
    for number, line in enumerate(lines_of(data), start=1):
        if not line.strip():
            continue
        found = re.fullmatch(r"(.+)#\d+\t(.*\S.*)", line)
        place = f"line {number}"
        if found:
            yield Row(found[1], found[2].strip(), None, "", place)
        else:
            problem = f"{place}: {line[:80]!r} is not image#number, a tab, a caption"
            yield damaged(problem, place)
