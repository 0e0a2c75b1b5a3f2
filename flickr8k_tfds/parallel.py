"""Maps a function over items on all cores, a bounded number of results ahead of the reader.

for name, image in zip(names, map_ahead(load, names)):
    ...
"""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# More would decode faster than TFDS can write, and each may hold a large image.
_MAX_WORKERS = 8


def map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yields function(item) in the order of the items, computed by threads.

    Once the first result was taken, at most four results per thread wait for the reader. The
    function should spend its time outside Python, as decoding and hashing do. What it raises is
    raised here, at its turn.
    """
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    items = iter(items)
    pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    ahead = 1  # whoever looks at the first result only should not hold many
    try:
        while True:
            wanted = itertools.islice(items, ahead - len(pending))
            pending.extend(pool.submit(function, item) for item in wanted)
            if not pending:
                return
            yield pending.popleft().result()
            ahead = 4 * workers
    finally:
        pool.shutdown(cancel_futures=True)
