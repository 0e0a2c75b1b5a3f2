"""Finds the caption that scores best if every image gets it, as from a model that looks at none.

    text, value = best_constant(said, told, document_frequencies)

A model whose CIDEr is not above this value has learned how captions sound, and nothing of images.
On 1,000 images of Flickr8k it is 15, and 77 for a caption by a person against the other four.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from paligemma_lib.metrics.cider import Cider, DocumentFrequencies, Vector
from paligemma_lib.metrics.ngrams import count

_FROM_MODEL = 3  # most frequent captions of the model that are tried
_FROM_PEOPLE = 5  # references that are tried
_IMAGES = 1000  # most images to try them on; of more, evenly spaced ones


def best_constant(
    said: Sequence[Sequence[str]],
    told: Sequence[Sequence[Sequence[str]]],
    document_frequencies: DocumentFrequencies,
) -> tuple[str, float]:
    """Returns the best of some constant captions, and its CIDEr over the images.

    Tried are the most frequent captions of the model, and the references that are closest to all
    others. Closeness is the mean cosine of CIDEr's vectors over all references, which takes one
    pass, since a mean of cosines is a product with the mean of unit vectors. It leaves out CIDEr's
    clipping and its penalty on length, which the value has.

    Args:
      said: tokens of the model's caption of each image.
      told: tokens of each reference of each image.
      document_frequencies: those that the captions are scored with.
    """
    scorer = Cider(document_frequencies)
    step = -(-len(told) // _IMAGES)
    groups = [
        {" ".join(tokens): scorer.vector(count(tokens)) for tokens in group}
        for group in told[::step]
    ]
    frequent = Counter(" ".join(tokens) for tokens in said).most_common(_FROM_MODEL)
    tried = {text: scorer.vector(count(text.split())) for text, _ in frequent}
    tried |= _central({text: vector for group in groups for text, vector in group.items()})
    values = {
        text: float(np.mean([scorer.score(vector, list(group.values())) for group in groups]))
        for text, vector in tried.items()
    }
    best = max(values, key=values.__getitem__)
    return best, values[best]


def _central(references: dict[str, Vector]) -> dict[str, Vector]:
    """Returns the references that are closest to all of them."""
    total: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for vector in references.values():
        for run, weight in vector.weights.items():
            total[run] += weight / vector.norms[len(run) - 1]

    def closeness(text: str) -> float:
        weights, norms, _ = references[text]
        return sum(w * total[run] / norms[len(run) - 1] for run, w in weights.items())

    ranked = sorted(references, key=closeness, reverse=True)
    return {text: references[text] for text in ranked[:_FROM_PEOPLE]}
