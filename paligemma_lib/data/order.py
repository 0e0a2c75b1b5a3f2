"""Which record is example k of step s: a pure function, the same on every machine and version.

    indices = 8 * step + np.arange(8)       # this process's rows of a step, of 32 in all
    examples = example_numbers(indices, batch_size=32, process_index=0, process_count=4)
    records = record_numbers(examples, records=len(source), seed=0)

Examples are numbered through all steps and epochs: row k of step s is example i = s * B + k, in
epoch i // N, and each epoch visits all N records in an order of its own. Nothing is shuffled in
memory: a keyed permutation gives each example its record by arithmetic alone, so that step
10,000,000 of a data set of any size costs what step 0 costs, and a checkpoint needs only the step.

The permutation is a Feistel network on the pairs (i // b, i % b) that walks on until it falls
below N (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 3), with
the finalizer of SplitMix64 as the round function (Steele, Lea and Flood, OOPSLA 2014). NumPy's
own permutation would take N steps for every epoch, and its stream may change between versions.
"""

from __future__ import annotations

import math

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, SplitMix64's step
_ROUND_KEYS = np.arange(16, dtype=np.uint64) * _GOLDEN

# Streams of randomness; each use of the seed gets its own.
_RECORDS, _CAPTIONS, _CROPS, _SUBSTITUTES, _FLIPS = range(5)


def example_numbers(
    indices: np.ndarray, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> np.ndarray:
    """The examples in a process's rows: its share of each global batch, one step after another.

    Args:
      indices: int64[n], of rows counted through all steps: row k of step s is s * B / P + k.
      batch_size: B, global; a multiple of P.
      process_index: which process this is, from 0.
      process_count: P.

    Returns:
      int64[n].
    """
    share = batch_size // process_count
    # Process p of P owns rows p * share to (p + 1) * share - 1 of every global batch. So the global
    # batch is the same for every P, and each process reads nothing but its own rows.
    step, k = np.divmod(np.asarray(indices, np.int64), share)
    return step * batch_size + process_index * share + k


def record_numbers(examples: np.ndarray, *, records: int, seed: int) -> np.ndarray:
    """The record of each example: a permutation of the records in every epoch.

    Args:
      examples: int64[n], from 0.
      records: N, how many records the data set has.
      seed: the run's seed.

    Returns:
      int64[n] in [0, N).
    """
    # Epochs do not align with steps: a batch may hold the end of one epoch and the start of the
    # next, so no record is dropped and none comes twice.
    epoch, index = np.divmod(np.asarray(examples, np.int64), records)
    return permute(index, records, _key(seed, _RECORDS, epoch))


def caption_number(record: int, epoch: int, *, captions: int, seed: int) -> int:
    """Which of a record's captions an epoch uses: all of them before any comes again."""
    cycle, index = divmod(epoch, captions)
    # A cycle is as many epochs as there are captions. Within one, captions come in the order of
    # random keys: each once.
    return int(np.argsort(_key(seed, _CAPTIONS, record, cycle, np.arange(captions)))[index])


def substitutes(numbers: np.ndarray, attempt: int, *, records: int, seed: int) -> np.ndarray:
    """A record to take instead of each that cannot be used, always the same one.

    Args:
      numbers: int64[n], the records that cannot be used.
      attempt: 0, 1, ... where a substitute is of no use either.
      records: N, how many records the data set has.

    Returns:
      int64[n] in [0, N).
    """
    return (_key(seed, _SUBSTITUTES, numbers, attempt) % np.uint64(records)).astype(np.int64)


def crop_boxes(examples: np.ndarray, *, min_area: float, seed: int) -> np.ndarray:
    """A random crop per example: area uniform in [min_area, 1], sides 3:4 to 4:3.

    Sides are relative to the image's, so that the box is a function of the example alone.

    Returns:
      float32[n, 4]: top, left, height, width as fractions of the image.
    """
    keys = _key(seed, _CROPS, np.asarray(examples)[:, None], np.arange(4))
    # The upper 53 bits times 2**-53: uniform in [0, 1), and exact in a double.
    area, aspect, y, x = ((keys >> np.uint64(11)) * 2.0**-53).T
    area = min_area + (1 - min_area) * area
    # height * width = area and width / height = ratio. A side is at most 1 where area <= ratio <= 1
    # / area, so a large area leaves less freedom to the ratio.
    ratio = np.clip(np.exp((2 * aspect - 1) * math.log(4 / 3)), area, 1 / area)  # sides up to 1
    height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
    return np.stack([y * (1 - height), x * (1 - width), height, width], axis=1).astype(np.float32)


def flipped(examples: np.ndarray, *, seed: int) -> np.ndarray:
    """Whether an example's image has left and right exchanged, as half of them have: bool[n]."""
    return _key(seed, _FLIPS, np.asarray(examples)) >> np.uint64(63) == 1


def permute(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """A keyed permutation of range(size), evaluated at some places of it.

    Args:
      index: int64[n] in [0, size).
      size: how many things are permuted.
      key: uint64[n] or uint64[]: equal keys belong to one permutation.

    Returns:
      int64[n] in [0, size), distinct for distinct `index` with equal keys.
    """
    # A number below rows * columns is a pair (left, right). A Feistel round replaces one half by
    # itself plus a hash of the other half, modulo its side. It can be undone by subtracting the
    # same hash, so each round is a permutation of the pairs, and so are all rounds together.
    rows = math.isqrt(size - 1) + 1  # ceil(sqrt(size))
    columns = -(-size // rows)
    result, key = np.array(index, np.uint64), np.broadcast_to(key, np.shape(index))
    # Rows and columns are nearly equal, so few places fall outside and have to walk on.
    # That permutes range(rows * columns), which is a little more than range(size). Who lands at or
    # beyond `size` applies the permutation again until it lands below: the walk follows a cycle of
    # the permutation, which comes back to where it began, below `size`. Two walks that ended alike
    # would have come from one place: so this, too, is a permutation.
    outside = np.arange(len(result))
    while len(outside):
        left, right = np.divmod(result[outside], np.uint64(columns))
        # 16 rounds: far more than statistics can tell from chance, for little time. Keys differ by
        # round, and by epoch through `key`.
        for number, round_key in enumerate(_mix(key[outside] + _ROUND_KEYS[:, None])):
            if number % 2:
                right = (right + _mix(left ^ round_key) % np.uint64(columns)) % np.uint64(columns)
            else:
                left = (left + _mix(right ^ round_key) % np.uint64(rows)) % np.uint64(rows)
        result[outside] = left * np.uint64(columns) + right
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _key(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """uint64[...]: a hash of the seed and the numbers, which broadcast against each other."""
    # Each number is mixed in by itself. Sums of them would not do: (1, 2) and (2, 1) would be the
    # same key.
    key = np.array([seed], np.int64).astype(np.uint64)
    for number in numbers:
        number = np.atleast_1d(np.asarray(number, np.int64)).astype(np.uint64)  # scalars would warn
        key = _mix(key + _GOLDEN * (number + np.uint64(1)))
    return key


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
