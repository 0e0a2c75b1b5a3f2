"""Maps a function over items on all cores, a bounded number of results ahead of the reader.

for name, picture in zip(names, map_ahead(load, names)):
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


def map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yields function(item) in the order of the items, computed by threads.

    At most four results per core wait for the reader. The function should spend its time outside
    Python, as decoding and hashing do. What it raises is raised here, at its turn.
    """
    workers = os.cpu_count() or 1
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque(
            pool.submit(function, item) for item in itertools.islice(items, 4 * workers)
        )
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
