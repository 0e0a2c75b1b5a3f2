"""Downloads PaliGemma's tokenizer, which all published models share, and checks its hash.

path = fetch_tokenizer()
TOKENIZER_SHA256.fullmatch(hashlib.sha256(path.read_bytes()).hexdigest())
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from paligemma_lib.hub import gcs
from paligemma_lib.hub.fetching import fetch
from paligemma_lib.runtime.regular_files import read_bounded

TOKENIZER = "gs://big_vision/paligemma_tokenizer.model"
TOKENIZER_SHA256 = re.compile("8986bb4f[0-9a-f]{50}168fc6")
_BYTES = 4_264_023


def fetch_tokenizer(
    source: str | os.PathLike[str] = TOKENIZER, cache: str | os.PathLike[str] = gcs.CACHE
) -> Path:
    """Returns the local path of a tokenizer: by default the official one, checked by its hash.

    Args:
      source: as for `fetch`; any other source than the default may be any tokenizer.
      cache: as for `fetch`.

    Raises:
      ConnectionError: the download is not the official tokenizer. Other errors are as for `fetch`.
    """
    name = os.fspath(source)
    if name != TOKENIZER:
        return fetch(name, cache)
    return gcs.fetch(name, cache, _problem)


def _problem(path: Path) -> str | None:
    size = path.stat().st_size
    if size != _BYTES:
        return f"has {size:,} bytes, expected {_BYTES:,}"
    found = hashlib.sha256(read_bounded(path, _BYTES)).hexdigest()
    if not TOKENIZER_SHA256.fullmatch(found):
        return f"has the sha256 {found}, expected 8986bb4f...168fc6"
    return None
