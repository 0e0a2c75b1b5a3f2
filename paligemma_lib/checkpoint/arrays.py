"""Names the dtypes of parameters and reads bytes of a file straight into arrays.

    with open_binary("params.npz") as file, ThreadPoolExecutor(THREADS) as threads:
        read_at(file, start, out, threads)

A file is local, or a URL that fsspec opens.
"""

import functools
import io
import os
from concurrent.futures import Executor
from typing import Any, BinaryIO, cast

import jax.numpy as jnp
import numpy as np

from paligemma_lib.runtime.regular_files import open_regular

DTYPES = {name: jnp.dtype(name) for name in ("float32", "bfloat16", "float16")}
# The first touch of new memory (page faults) takes about as long as the read into it, so two
# threads overlap them.
THREADS = 2

_PIECE = 8 << 20  # bytes that one thread reads at a time


def checked_dtype(name: str | None) -> np.dtype | None:
    """Returns the dtype of that name, or None for None.

    Raises:
      ValueError: the name is not in DTYPES.
    """
    if name is not None and name not in DTYPES:
        raise ValueError(f"dtype={name!r}, expected one of {', '.join(DTYPES)}")
    return None if name is None else DTYPES[name]


def row_range(rows: slice | None, count: int) -> tuple[int, int]:
    """Returns `(start, stop)` of a slice without a step, resolved for `count` rows."""
    first, last, _ = (rows or slice(None)).indices(count)
    return first, max(first, last)


def as_bytes(array: np.ndarray) -> memoryview:
    """Returns the memory of a contiguous array as bytes, without a copy."""
    # bfloat16 has no code in Python's buffer protocol, so `memoryview(array)` fails. uint8 has one.
    return memoryview(cast(Any, array.reshape(-1).view(np.uint8)))


def open_binary(path: str) -> BinaryIO:
    """Opens a local file or a URL for reading.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the local file is no regular file.
      ImportError: fsspec, or a package that it needs for this kind of URL, is not installed.
      OSError: the file cannot be opened for another reason.
    """
    if "://" not in path:
        file = open_regular(path)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # more read-ahead
        return cast(BinaryIO, file)
    try:
        import fsspec

        return cast(BinaryIO, fsspec.open(path, "rb").open())
    except ImportError as error:
        raise ImportError(
            f"{path} cannot be read ({error}): pip install 'paligemma_lib[gcs]', or, if it is "
            "public, download it with paligemma_lib.hub.fetch"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except Exception as error:  # each file system of fsspec raises exceptions of its own
        raise OSError(
            f"{path} cannot be opened ({type(error).__name__}: {error}). A private bucket needs "
            "credentials: gcloud auth application-default login"
        ) from error


def read_at(file: BinaryIO, start: int, out: np.ndarray, threads: Executor) -> None:
    """Fills `out`, which must be contiguous, with the file's bytes from offset `start` on.

    Raises:
      EOFError: the file ends before `out` is full.
    """
    # `preadv` takes an offset, so threads share a local file without moving its position. Other
    # files have one position and are read in this thread.
    left = as_bytes(out)
    if isinstance(file, io.FileIO):
        pieces = range(0, len(left), _PIECE)
        list(threads.map(functools.partial(_read_piece, file, start, left), pieces))
        return
    file.seek(start)
    read_next(file, left)


def read_next(file: Any, left: memoryview) -> None:
    """Fills `left` with the next bytes of the file.

    Raises:
      EOFError: the file ends before `left` is full.
    """
    while left:
        left = left[_positive(file.readinto(left)) :]


def read_here(file: io.FileIO, start: int, left: memoryview) -> None:
    """Fills `left` with a local file's bytes from offset `start` on, in the calling thread.

    Raises:
      EOFError: the file ends before `left` is full.
    """
    while left:  # one call may read less than asked: Linux stops just below 2 GiB
        count = _positive(os.preadv(file.fileno(), [left], start))
        left, start = left[count:], start + count


def _read_piece(file: io.FileIO, start: int, out: memoryview, first: int) -> None:
    read_here(file, start + first, out[first : first + _PIECE])


def _positive(count: int | None) -> int:
    if not count:
        raise EOFError("the file ends too early")
    return count
