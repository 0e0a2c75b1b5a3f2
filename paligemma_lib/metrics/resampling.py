"""Resamples images to find how much a score varies and whether two captioners differ.

    bootstrap(statistics, value, resamples=1000, seed=0)      # the value of each resample
    randomized(statistics, others, value, resamples=10000, seed=0)

The score of a corpus is a function `value` of the sum of per-image statistics. A resample of the
images is therefore a vector of weights, and a block of resamples is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from paligemma_lib.runtime.bounds import whole

Value = Callable[[np.ndarray], np.ndarray]  # float64[..., S] sums -> float64[..., M] scores

MAX_RESAMPLES = 10_000_000  # 1,000 are usual for an interval, 10,000 for a p-value
_BLOCK = 4_000_000  # weights in memory at a time: 32 MB as float64


def bootstrap(statistics: np.ndarray, value: Value, *, resamples: int, seed: int) -> np.ndarray:
    """Returns the scores of corpora drawn from the images with replacement (Efron, 1979).

    Args:
      statistics: float64[N, S] of N images, or float64[N, C, S] of N images and C captioners. Each
        resample takes the same images for all captioners.
      value: computes scores from statistics summed over images.
      resamples: number of corpora drawn.
      seed: seed of the draws; the same seed draws the same corpora.

    Returns:
      float64[resamples, M], or float64[resamples, C, M].
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    images = len(statistics)
    chances = np.full(images, 1 / images)
    flat = statistics.reshape(images, -1)
    values = []
    for size in _blocks(resamples, images):
        # A resample of N images with replacement is a vector of how often each image is drawn, such
        # as [0, 2, 1] for N = 3. Statistics are additive, so those of the resampled corpora are
        # weights[size, N] @ statistics[N, C * S].
        weights = rng.multinomial(images, chances, size=size).astype(np.float64)
        values.append(value((weights @ flat).reshape(size, *statistics.shape[1:])))
    return np.concatenate(values)


def randomized(statistics: np.ndarray, value: Value, *, resamples: int, seed: int) -> np.ndarray:
    """Returns differences of score under the null hypothesis that both captioners are alike.

    The two captions of each image are exchanged with probability 1/2: approximate randomization
    (Noreen, 1989; Riezler and Maxwell, 2005).

    Args:
      statistics: float64[N, 2, S] of N images and two captioners.
      value, resamples, seed: as in `bootstrap`.

    Returns:
      float64[resamples, M].
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    total = statistics.sum(axis=0)
    change = statistics[:, 1] - statistics[:, 0]
    values = []
    for size in _blocks(resamples, len(statistics)):
        # Exchanging the captions of image i adds change[i] to the first captioner's sum and takes
        # it from the second's. `value` is applied to each sum, since BLEU is no mean over images.
        swaps = rng.integers(0, 2, (size, len(statistics))).astype(np.float64) @ change
        values.append(value(total[0] + swaps) - value(total[1] - swaps))
    return np.concatenate(values)


def _blocks(resamples: int, images: int) -> Iterator[int]:
    resamples = whole("resamples", resamples, 1, MAX_RESAMPLES)
    size = max(1, _BLOCK // images)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
