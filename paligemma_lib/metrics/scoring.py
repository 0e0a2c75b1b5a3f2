"""Scores captions against references by BLEU, ROUGE-L and CIDEr.

scores = score({"a.jpg": ["A dog runs.", "A dog is running."]}, {"a.jpg": "a dog runs"})
scores.corpus["BLEU-4"], scores.per_image["ROUGE-L"][0], scores.warnings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paligemma_lib.metrics.caption_checks import ImageId, check_captions, check_references
from paligemma_lib.metrics.cider import Cider, DocumentFrequencies, frequencies
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores
from paligemma_lib.metrics.ngrams import bleu, bleu_statistics, count
from paligemma_lib.metrics.rouge import rouge_l
from paligemma_lib.metrics.sanity_warnings import sanity_warnings, score_warnings
from paligemma_lib.metrics.tokens import tokenize

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def document_frequencies(references: Mapping[ImageId, Sequence[str]]) -> DocumentFrequencies:
    """Returns in how many images of a corpus each n-gram stands, for the CIDEr of few images.

    Raises:
      ValueError: there are no images, or a reference is not text.
    """
    check_references(references)
    return frequencies([[count(tokenize(text)) for text in references[i]] for i in references])


def score(
    references: Mapping[ImageId, Sequence[str]],
    captions: Mapping[ImageId, str],
    *,
    document_frequencies: DocumentFrequencies | None = None,
) -> Scores:
    """Returns BLEU-1 to BLEU-4, ROUGE-L and CIDEr as the COCO caption evaluation computes them.

    BLEU of the corpus uses the summed counts of all images, with the closest reference length.
    ROUGE-L and CIDEr-D are means over images. CIDEr-D is in [0, 10], all others are in [0, 1].
    BLEU-n of a single caption is near 0 if none of its n-grams matches, and so for every caption of
    fewer than n words, even one that equals a reference.

    Args:
      references: for each image, its human-written captions.
      captions: for each of the same images, one caption.
      document_frequencies: how many images of a larger corpus have an n-gram, for CIDEr; None: of
        these references, as in the COCO caption evaluation. CIDEr of few images needs them, since
        it takes from them which words are rare.

    Raises:
      ValueError: there are no images, the image ids differ, or a caption is not text.
    """
    return _score(references, captions, document_frequencies, look_for_faults=True)


def _score(
    references: Mapping[ImageId, Sequence[str]],
    captions: Mapping[ImageId, str],
    known: DocumentFrequencies | None,
    look_for_faults: bool,
) -> Scores:
    check_captions(references, captions)
    image_ids = tuple(references)
    said = [tokenize(captions[image_id]) for image_id in image_ids]
    told = [[tokenize(reference) for reference in references[i]] for i in image_ids]
    said_counts = [count(tokens) for tokens in said]
    told_counts = [[count(tokens) for tokens in group] for group in told]
    found = known or frequencies(told_counts)
    statistics = np.column_stack(
        [
            np.stack(
                [bleu_statistics(c, r) for c, r in zip(said_counts, told_counts, strict=True)]
            ),
            [rouge_l(c, r) for c, r in zip(said, told, strict=True)],
            Cider(found).scores(said_counts, told_counts),
            np.ones(len(image_ids)),
        ]
    )
    warnings: tuple[str, ...] = ()
    if look_for_faults:
        cider = float(np.mean(statistics[:, 11]))
        warnings = sanity_warnings(image_ids, [captions[i] for i in image_ids], said, told)
        warnings += score_warnings(cider, said, told, found)
    return Scores.of(NAMES, image_ids, statistics, _values, warnings)


def score_quietly(references: References, captions: Captions) -> Scores:
    """Returns the same scores without warnings, for captions that are bad by intention."""
    return _score(references, captions, None, look_for_faults=False)


def _values(sums: np.ndarray) -> np.ndarray:
    """Converts float64[..., 13] summed statistics to float64[..., 6] scores in `NAMES` order."""
    # Column 12 sums to the number of images, so ROUGE-L and CIDEr become means over them.
    means = sums[..., 10:12] / sums[..., 12:]
    return np.concatenate([bleu(sums[..., :10]), means], axis=-1)
