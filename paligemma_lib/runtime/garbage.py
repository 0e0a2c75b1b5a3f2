"""Pauses Python's garbage collector.

with collector_paused():
    rows = [Row(line) for line in lines]
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the collector while millions of objects are made, none of them garbage.

    It would look at all of them again and again, which takes as long as making them. Objects
    without cycles are freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
