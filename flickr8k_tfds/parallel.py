"""Maps a function over items in threads, with a bounded number of results ahead of the reader.

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

# More threads would decode faster than TFDS can write, and each may hold a large image in memory.
_MAX_WORKERS = 8


def map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yields function(item) in the order of the items, computed by threads.

    Only the first result is computed before the reader asks for more; from then on at most four
    results per thread are computed ahead. The function should release the GIL most of the time, as
    decoding and hashing do. An exception that it raises is raised here in place of the result.
    """
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    items = iter(items)
    pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    ahead = 1  # a reader that takes the first result only should not make memory hold many
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
