"""How sure a score is: intervals by resampling images, and whether two captioners differ.

    bootstrap(statistics, value, resamples=1000, seed=0)      # the value of each resample
    randomized(statistics, others, value, resamples=10000, seed=0)

A score of a corpus is a function `value` of the sum of per-image statistics, so a resample of the
images is a vector of weights, and a block of resamples is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Value = Callable[[np.ndarray], np.ndarray]  # float64[..., S] sums -> float64[..., M] scores

_BLOCK = 4_000_000  # weights held at a time


def bootstrap(statistics: np.ndarray, value: Value, *, resamples: int, seed: int) -> np.ndarray:
    """The scores of corpora drawn from the images with replacement (Efron, 1979).

    Args:
      statistics: float64[N, S], of N images; or float64[N, C, S], of C captioners, of which each
        resample takes the same images.
      value: scores from sums over images.
      resamples: how many corpora.
      seed: the same seed draws the same corpora.

    Returns:
      float64[resamples, M], or float64[resamples, C, M].
    """
    rng = np.random.default_rng(seed)
    images = len(statistics)
    chances = np.full(images, 1 / images)
    flat = statistics.reshape(images, -1)
    values = []
    for size in _blocks(resamples, images):
        # Drawing N images with replacement is a vector of how often each came. Statistics add up,
        # so a corpus's are weights @ statistics, a matrix product for a whole block of resamples.
        weights = rng.multinomial(images, chances, size=size).astype(np.float64)
        values.append(value((weights @ flat).reshape(size, *statistics.shape[1:])))
    return np.concatenate(values)


def randomized(statistics: np.ndarray, value: Value, *, resamples: int, seed: int) -> np.ndarray:
    """Differences of score if it made no difference which captioner a caption is of.

    Each image's two captions change places or not, by the toss of a coin: approximate
    randomization (Noreen, 1989; Riezler and Maxwell, 2005).

    Args:
      statistics: float64[N, 2, S].
      value, resamples, seed: as in `bootstrap`.

    Returns:
      float64[resamples, M].
    """
    rng = np.random.default_rng(seed)
    total = statistics.sum(axis=0)
    change = statistics[:, 1] - statistics[:, 0]
    values = []
    for size in _blocks(resamples, len(statistics)):
        # Exchanging an image's two captions moves its difference from one sum to the other; `value`
        # is applied to both sums, since BLEU is no mean over images.
        swaps = rng.integers(0, 2, (size, len(statistics))).astype(np.float64) @ change
        values.append(value(total[0] + swaps) - value(total[1] - swaps))
    return np.concatenate(values)


def _blocks(resamples: int, images: int) -> Iterator[int]:
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: at least one is needed, 1000 is usual")
    size = max(1, _BLOCK // images)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
