"""Scores captions that were given to other images, as from a model that looks at none.

permuted(references, captions, seed=0).corpus["CIDEr"]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paligemma_lib.metrics.caption_checks import check_captions
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores
from paligemma_lib.metrics.scoring import score_quietly
from paligemma_lib.runtime.bounds import whole


def permuted(
    references: References,
    captions: Captions,
    seed: int,
    scorer: Callable[[References, Captions], Scores] = score_quietly,
) -> Scores:
    """Returns the scores after every image gets the caption of another image, drawn by `seed`.

    A model that looks at its images loses most of its score.

    Raises:
      ValueError: in the same cases as `scorer`, or there is only one image.
    """
    check_captions(references, captions)
    image_ids = list(references)
    if len(image_ids) == 1:
        raise ValueError("permuting captions needs at least 2 images, got 1: score more")
    order = np.random.default_rng(whole("seed", seed, 0)).permutation(len(image_ids))
    # Captions move one place along a random cycle through all images, so that no image keeps its
    # own: order = [2, 0, 1] gives image 2 the caption of 1, image 0 that of 2, image 1 that of 0.
    moved = {
        image_ids[to]: captions[image_ids[of]]
        for to, of in zip(order, np.roll(order, 1), strict=True)
    }
    return scorer(references, moved)
