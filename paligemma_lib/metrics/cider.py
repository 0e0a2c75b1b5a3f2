"""Computes CIDEr-D, which weighs n-grams by how few images have them in their references.

    scorer = Cider(frequencies([references]))
    scorer.scores([count(["a", "dog"])], [references])

The score is that of the COCO caption evaluation, including its constants.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from paligemma_lib.metrics.ngrams import MAX_WORDS, Counts, words

_SIGMA = 6.0  # words; standard deviation of the penalty on a difference in length


class DocumentFrequencies(NamedTuple):
    """In how many images of a corpus each n-gram stands.

    Attributes:
      images: number of images of the corpus.
      counts: n-gram -> number of images that have it in a reference.
    """

    images: int
    counts: Mapping[tuple[str, ...], int]


class Vector(NamedTuple):
    """A caption as CIDEr sees it.

    Attributes:
      weights: n-gram -> times in the caption, times log(images / images that have it).
      norms: Euclidean norm of the weights of the n-grams of 1, 2, 3 and 4 words; 1 instead of 0.
      length: number of 2-grams, which the COCO evaluation takes for the length.
    """

    weights: dict[tuple[str, ...], float]
    norms: list[float]
    length: int


def frequencies(references: Sequence[Sequence[Counts]]) -> DocumentFrequencies:
    """Returns the document frequencies of the n-grams of references, given for each image."""
    images: Counter[tuple[str, ...]] = Counter()
    for counts in references:
        images.update(set().union(*counts))
    return DocumentFrequencies(len(references), images)


class Cider:
    """CIDEr-D (Vedantam et al., 2015), times 10 as usual.

    An n-gram weighs less the more images have it in their references, so the score of an image
    depends on all images. With frequencies of a single image all scores are 0: log(1 / 1) = 0.
    """

    def __init__(self, document_frequencies: DocumentFrequencies) -> None:
        self._log_total = math.log(document_frequencies.images)
        self._rarity = {
            run: self._log_total - math.log(number)
            for run, number in document_frequencies.counts.items()
        }

    def scores(
        self, candidates: Sequence[Counts], references: Sequence[Sequence[Counts]]
    ) -> np.ndarray:
        """Returns float64[images], one score for each image; that of the corpus is their mean.

        Args:
          candidates: n-gram counts of the captions, one per image.
          references: n-gram counts of the references, at least one per image.
        """
        pairs = zip(candidates, references, strict=True)
        return np.array([self.score(self.vector(c), list(map(self.vector, r))) for c, r in pairs])

    def vector(self, counts: Counts) -> Vector:
        """Weighs the n-grams of a caption."""
        # An n-gram that no reference contains counts as one of a single image, log(N / 1).
        weights = {
            run: times * self._rarity.get(run, self._log_total) for run, times in counts.items()
        }
        squares = [0.0] * MAX_WORDS
        for run, weight in weights.items():
            squares[len(run) - 1] += weight * weight
        # Where a norm is 0, all products are 0 too, so dividing by 1 instead gives the cosine 0.
        norms = [math.sqrt(square) or 1.0 for square in squares]
        return Vector(weights, norms, max(0, words(counts) - 1))

    def score(self, candidate: Vector, references: Sequence[Vector]) -> float:
        """Returns the score of one caption."""
        total = 0.0
        for other in references:
            products = [0.0] * MAX_WORDS
            for run, weight in candidate.weights.items():
                if run in other.weights:
                    rival = other.weights[run]
                    # CIDEr-D clips the caption's weight to the reference's, so that repeating a
                    # rare word gains nothing.
                    products[len(run) - 1] += min(weight, rival) * rival
            norms = zip(products, candidate.norms, other.norms, strict=True)
            cosines = (p / (a * b) for p, a, b in norms)
            # CIDEr-D also penalizes a difference in length by a Gaussian.
            apart = candidate.length - other.length
            total += sum(cosines) * math.exp(-(apart**2) / (2 * _SIGMA**2))
        return 10 * total / MAX_WORDS / len(references)
