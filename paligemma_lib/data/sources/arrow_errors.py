"""Converts what pyarrow raises for damaged bytes to one error.

with arrow_errors():
    table = file.read_row_group(0)                  # UnreadableBlock
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from paligemma_lib.data.records import CorruptRecord


class UnreadableBlock(Exception):
    """pyarrow could not read a block; the message says why."""


@contextlib.contextmanager
def arrow_errors() -> Iterator[None]:
    """Converts whatever pyarrow raises for damaged bytes in a `with` block to UnreadableBlock.

    Errors of the disk, which have an errno, stay as they are.
    """
    try:
        yield
    except UnreadableBlock:
        raise
    # Not a list of those that were met: ArrowException, OSError, UnicodeDecodeError, KeyError, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        told = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise UnreadableBlock(told) from error


def unreadable(where: str, error: UnreadableBlock) -> CorruptRecord:
    """Returns the error to raise for a row that cannot be read."""
    return CorruptRecord(f"{where} cannot be read: {error}. Copy the file again")
