"""Computes the record of example k of step s, identically on every machine and version.

    indices = 8 * step + np.arange(8)       # this process's rows of a step, of 32 in all
    examples = example_numbers(indices, batch_size=32, process_index=0, process_count=4)
    records = record_numbers(examples, records=len(source), seed=0)

Examples are numbered through all steps and epochs: row k of step s is example i = s * B + k, in
epoch i // N. Each epoch visits all N records in its own order. Nothing is shuffled in memory: a
keyed permutation computes the record of each example by arithmetic alone. So step 10,000,000 of a
data set of any size costs the same as step 0, and a checkpoint needs only the step.

The permutation is a Feistel network on the pairs (i // b, i % b) that is applied again until the
result is below N (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method
3). The round function is the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). NumPy's
own permutation would take N steps for every epoch, and its stream may change between versions.
"""

from __future__ import annotations

import math

import numpy as np

from paligemma_lib.data.argument_checks import MAX_NUMBER, check_seed, check_share, check_whole

_INT64 = MAX_NUMBER + 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, SplitMix64's step
_ROUND_KEYS = np.arange(16, dtype=np.uint64) * _GOLDEN

# Random streams: each use of the seed has its own, so that they are independent. 3 is not used any
# more, and the others keep their numbers.
_RECORDS, _CAPTIONS, _CROPS, _, _FLIPS = range(5)


def example_numbers(
    indices: np.ndarray, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> np.ndarray:
    """Returns the examples in rows of a process, which has a share of each global batch.

    Args:
      indices: int64[n], rows counted through all steps: row k of step s has index s * B / P + k.
      batch_size: B, global; a multiple of P.
      process_index: index of this process, from 0.
      process_count: P, the number of processes.

    Returns:
      int64[n], the number of the example in each row.
    """
    batch_size = check_whole("batch_size", batch_size, 1, MAX_NUMBER)
    process_count = check_whole("process_count", process_count, 1, batch_size)
    process_index = check_whole("process_index", process_index, 0, process_count - 1)
    share = batch_size // process_count
    # Process p of P owns rows p * share to (p + 1) * share - 1 of every global batch. So the global
    # batch is the same for every P, and each process reads nothing but its own rows.
    step, k = np.divmod(np.asarray(indices, np.int64), share)
    return step * batch_size + process_index * share + k


def record_numbers(examples: np.ndarray, *, records: int, seed: int) -> np.ndarray:
    """Returns the record of each example; every epoch is a permutation of the records.

    Args:
      examples: int64[n], from 0.
      records: N, the number of records of the data set.
      seed: seed of the run.

    Returns:
      int64[n] in [0, N).
    """
    # Epochs do not align with steps. A batch may hold the end of one epoch and the start of the
    # next, so every epoch has each record exactly once.
    records = check_whole("records", records, 1, MAX_NUMBER)
    epoch, index = np.divmod(np.asarray(examples, np.int64), records)
    return permute(index, records, _key(seed, _RECORDS, epoch))


def caption_number(record: int, epoch: int, *, captions: int, seed: int) -> int:
    """Returns the index of a record's caption in an epoch; all are used before any repeats."""
    cycle, index = divmod(epoch, captions)
    # A cycle has as many epochs as the record has captions. Within a cycle, each caption is used
    # once, in the order of random keys.
    return int(np.argsort(_key(seed, _CAPTIONS, record, cycle, np.arange(captions)))[index])


def crop_boxes(examples: np.ndarray, *, min_area: float, seed: int) -> np.ndarray:
    """Returns a random crop per example: area uniform in [min_area, 1], width:height 3:4 to 4:3.

    Sides are relative to those of the image, so that the box depends on the example alone.

    Returns:
      float32[n, 4]: top, left, height, width as fractions of the image.
    """
    min_area = check_share("min_area", min_area)
    keys = _key(seed, _CROPS, np.asarray(examples)[:, None], np.arange(4))
    # The upper 53 bits times 2**-53: uniform in [0, 1), and exact in a double.
    area, aspect, y, x = ((keys >> np.uint64(11)) * 2.0**-53).T
    area = min_area + (1 - min_area) * area
    # height * width = area and width / height = ratio give height = sqrt(area / ratio) and width =
    # sqrt(area * ratio). Both are at most 1 if area <= ratio <= 1 / area.
    ratio = np.clip(np.exp((2 * aspect - 1) * math.log(4 / 3)), area, 1 / area)
    height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
    return np.stack([y * (1 - height), x * (1 - width), height, width], axis=1).astype(np.float32)


def flipped(examples: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns bool[n], whether to exchange left and right of each image: true for half of them."""
    return _key(seed, _FLIPS, np.asarray(examples)) >> np.uint64(63) == 1


def permute(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Evaluates a keyed permutation of range(size) at the given indices.

    Args:
      index: int64[n] in [0, size).
      size: length of the permutation.
      key: uint64[n] or uint64[]: equal keys belong to the same permutation.

    Returns:
      int64[n] in [0, size), distinct for distinct `index` with equal keys.
    """
    # A number below rows * columns is a pair (left, right). A Feistel round adds to one half a hash
    # of the other half, modulo `rows` or `columns`. Subtracting the same hash inverts the round. So
    # each round is a permutation of the pairs, and so are all rounds together.
    rows = math.isqrt(size - 1) + 1  # ceil(sqrt(size))
    columns = -(-size // rows)
    result, key = np.array(index, np.uint64), np.broadcast_to(key, np.shape(index))
    # The rounds permute range(rows * columns), which is slightly larger than range(size). A result
    # >= size is permuted again until it is below. This ends, because a permutation consists of
    # cycles, and the cycle returns to its start, which is below `size`. It is also invertible: walk
    # the same cycle backwards. So the whole is a permutation of range(size).
    outside = np.arange(len(result))
    while len(outside):
        left, right = np.divmod(result[outside], np.uint64(columns))
        # 16 rounds cost little, and are far more than it takes for statistical tests to see no
        # difference from chance. Each round has its own key, and `key` also differs by epoch.
        for number, round_key in enumerate(_mix(key[outside] + _ROUND_KEYS[:, None])):
            if number % 2:
                right = (right + _mix(left ^ round_key) % np.uint64(columns)) % np.uint64(columns)
            else:
                left = (left + _mix(right ^ round_key) % np.uint64(rows)) % np.uint64(rows)
        result[outside] = left * np.uint64(columns) + right
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _key(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """Returns uint64[...], a hash of the seed and the numbers, which broadcast to one shape."""
    # Each number is hashed in turn. A hash of their sum would be the same for (1, 2) and (2, 1).
    if type(seed) is not int or not -_INT64 <= seed < _INT64:
        seed = check_seed("seed", seed)
    key = np.array([seed], np.int64).astype(np.uint64)
    for number in numbers:
        # An array, since NumPy warns of overflow in scalars, which is intended here.
        number = np.atleast_1d(np.asarray(number, np.int64)).astype(np.uint64)
        key = _mix(key + _GOLDEN * (number + np.uint64(1)))
    return key


def _mix(x: np.ndarray) -> np.ndarray:
    """Applies SplitMix64's finalizer: every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
