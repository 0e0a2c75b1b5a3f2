"""Counts n-grams of one to four words, and computes BLEU from the counts.

    candidate, references = count(["a", "dog"]), [count(["a", "dog", "runs"])]
    bleu(bleu_statistics(candidate, references))  # 0.607 (brevity) * [1.0, 1.0, 0.01, 0.001]

BLEU is that of the COCO caption evaluation, including its constants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

MAX_WORDS = 4

Counts = Counter[tuple[str, ...]]  # n-gram -> number of times that a caption contains it

_TINY, _SMALL = 1e-15, 1e-9  # avoid divisions by zero; values of the COCO evaluation


def count(tokens: Sequence[str]) -> Counts:
    """Counts each n-gram of one to four words. A token that contains a space is two words."""
    words = " ".join(tokens).split()
    return Counter(
        tuple(words[start : start + size])
        for size in range(1, MAX_WORDS + 1)
        for start in range(len(words) - size + 1)
    )


def bleu_statistics(candidate: Counts, references: Sequence[Counts]) -> np.ndarray:
    """Returns the statistics of one caption whose sum over a corpus determines its BLEU.

    Args:
      candidate: n-gram counts of the caption.
      references: n-gram counts of each of its references, at least one.

    Returns:
      float64[10]: the number of matching n-grams of 1, 2, 3 and 4 words, each clipped to the most
      that a single reference contains (4 numbers); the number of all n-grams of the caption (4);
      its length in words; the length of the reference closest in length, the shorter on a tie.
    """
    length = words(candidate)
    matches = [0] * MAX_WORDS
    for run, times in candidate.items():
        # Counts are clipped: "the the the" matches "the cat" once, not three times.
        matches[len(run) - 1] += min(times, max(reference[run] for reference in references))
    # A caption of 6 words has 6, 5, 4, 3 n-grams of 1, 2, 3, 4 words; one of 2 has 2, 1, 0, 0.
    runs = [max(0, length - size) for size in range(MAX_WORDS)]
    # Tuples compare by distance first, then by length: of two equally close references the shorter
    # one counts, as in the COCO evaluation. Length 5 with references of 4 and 6: (1, 4) < (1, 6).
    closest = min((abs(words(r) - length), words(r)) for r in references)[1]
    return np.array([*matches, *runs, length, closest], np.float64)


def bleu(statistics: np.ndarray) -> np.ndarray:
    """Returns BLEU-1 to BLEU-4 (Papineni et al., 2002) of one caption or of a corpus.

    Args:
      statistics: float64[..., 10], the result of `bleu_statistics` or its sum over captions.

    Returns:
      float64[..., 4] in [0, 1].
    """
    matches, runs = statistics[..., :4], statistics[..., 4:8]
    # The small constants are those of the COCO evaluation: they avoid 0 / 0 for a caption of fewer
    # than four words, and published scores contain them. BLEU-n is the geometric mean of the first
    # n precisions, (p1 * ... * pn) ** (1 / n), so a cumulative product serves all four.
    precisions = np.cumprod((matches + _TINY) / (runs + _SMALL), axis=-1)
    ratio = (statistics[..., 8:9] + _TINY) / (statistics[..., 9:] + _SMALL)
    # exp(1 - reference / length) for captions that are shorter than their references, else 1.
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    return precisions ** (1 / np.arange(1, MAX_WORDS + 1)) * brevity


def words(counts: Counts) -> int:
    """Returns the number of words of a caption."""
    return sum(times for run, times in counts.items() if len(run) == 1)
