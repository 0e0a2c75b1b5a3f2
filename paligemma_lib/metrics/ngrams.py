"""BLEU and CIDEr-D, the two scores that count runs of one to four words.

    candidate, references = count(["a", "dog"]), [count(["a", "dog", "runs"])]
    bleu(bleu_statistics(candidate, references))  # [1.0, 1.0, 0.03, 0.006] less a brevity penalty
    cider([candidate], [references])

Both follow the COCO caption evaluation to the last constant.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

MAX_WORDS = 4

Counts = Counter[tuple[str, ...]]  # how often a caption holds each run of words

_SIGMA = 6.0  # of CIDEr-D's penalty on a difference in length
_TINY, _SMALL = 1e-15, 1e-9  # against divisions by zero, as the COCO evaluation has them


def count(tokens: Sequence[str]) -> Counts:
    """How often each run of one to four words occurs; a token that holds a space is two words."""
    words = " ".join(tokens).split()
    return Counter(
        tuple(words[start : start + size])
        for size in range(1, MAX_WORDS + 1)
        for start in range(len(words) - size + 1)
    )


def bleu_statistics(candidate: Counts, references: Sequence[Counts]) -> np.ndarray:
    """What a corpus's BLEU is computed from the sum of.

    Args:
      candidate: of one caption.
      references: of the captions to hold it against, at least one.

    Returns:
      float64[10]: runs of 1, 2, 3 and 4 words that a reference holds too, at most as often as one
      reference does; runs there are; length; length of the reference closest in length, the
      shorter of two.
    """
    length = _words(candidate)
    matches = [0] * MAX_WORDS
    for run, times in candidate.items():
        # Clipped counts: "the the the" matches "the cat" once.
        matches[len(run) - 1] += min(times, max(reference[run] for reference in references))
    runs = [max(0, length - size) for size in range(MAX_WORDS)]
    # Tuples compare by distance first, then by length: of two references as close, the shorter one
    # counts, as in the COCO evaluation.
    closest = min((abs(_words(r) - length), _words(r)) for r in references)[1]
    return np.array([*matches, *runs, length, closest], np.float64)


def bleu(statistics: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 (Papineni et al., 2002) of one caption, or of the sum over a corpus.

    Args:
      statistics: float64[..., 10] of `bleu_statistics`.

    Returns:
      float64[..., 4] in [0, 1].
    """
    matches, runs = statistics[..., :4], statistics[..., 4:8]
    # The tiny numbers are those of the COCO evaluation: they keep a caption without a run of four
    # words from 0 / 0, and are part of the published figures.
    precisions = np.cumprod((matches + _TINY) / (runs + _SMALL), axis=-1)
    ratio = (statistics[..., 8:9] + _TINY) / (statistics[..., 9:] + _SMALL)
    # exp(1 - reference / length) for captions that are shorter than their references, else 1.
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    return precisions ** (1 / np.arange(1, MAX_WORDS + 1)) * brevity


def cider(candidates: Sequence[Counts], references: Sequence[Sequence[Counts]]) -> np.ndarray:
    """CIDEr-D (Vedantam et al., 2015), times 10 as usual.

    A run of words weighs the less the more images have it in their references, so the score of an
    image depends on all images; of a single image it is 0.

    Args:
      candidates: one per image.
      references: at least one per image.

    Returns:
      float64[images], of which the corpus's score is the mean.
    """
    images: Counter[tuple[str, ...]] = Counter()  # in how many images' references a run is
    for counts in references:
        images.update(set().union(*counts))
    log_total = math.log(len(references))
    rarity = {run: log_total - math.log(number) for run, number in images.items()}

    def vector(counts: Counts) -> tuple[dict[tuple[str, ...], float], list[float], int]:
        # Term frequency times inverse document frequency: a run that no reference has is as rare as
        # can be, log(N).
        weights = {run: times * rarity.get(run, log_total) for run, times in counts.items()}
        squares = [0.0] * MAX_WORDS
        for run, weight in weights.items():
            squares[len(run) - 1] += weight * weight
        # The COCO evaluation takes the number of pairs for the length.
        return weights, [math.sqrt(square) or 1.0 for square in squares], max(0, _words(counts) - 1)

    def likeness(candidate: Counts, counts: Sequence[Counts]) -> float:
        weights, norms, length = vector(candidate)
        total = 0.0
        for other_weights, other_norms, other_length in map(vector, counts):
            products = [0.0] * MAX_WORDS
            for run, weight in weights.items():
                if run in other_weights:
                    other = other_weights[run]
                    # CIDEr-D clips the caption's weight, so that repeating a rare word earns
                    # nothing.
                    products[len(run) - 1] += min(weight, other) * other
            cosines = (p / (a * b) for p, a, b in zip(products, norms, other_norms, strict=True))
            # And it takes off for other lengths, with a standard deviation of six words.
            total += sum(cosines) * math.exp(-((length - other_length) ** 2) / (2 * _SIGMA**2))
        return 10 * total / MAX_WORDS / len(counts)

    return np.array([likeness(c, r) for c, r in zip(candidates, references, strict=True)])


def _words(counts: Counts) -> int:
    return sum(times for run, times in counts.items() if len(run) == 1)
