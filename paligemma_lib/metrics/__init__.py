"""Scores captions by BLEU, ROUGE-L and CIDEr as published, without Java.

    scores = score(references, captions)      # {image_id: [caption, ...]}, {image_id: caption}
    print(scores.corpus["CIDEr"], scores.intervals()["CIDEr"], *scores.warnings, sep="\\n")
    print(permuted(references, captions, seed=0).corpus["CIDEr"])  # does it look at the images?

The package needs only NumPy. METEOR and SPICE come from Java programs, where they are installed.
"""

from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.metrics.caption_rows import read_captions, single
from paligemma_lib.metrics.java_scores import JavaScore, meteor, spice
from paligemma_lib.metrics.predictions import merge, read_predictions, write_predictions
from paligemma_lib.metrics.scoring import (
    NAMES,
    Difference,
    Interval,
    Scores,
    compare,
    permuted,
    score,
)
from paligemma_lib.metrics.tokens import tokenize

__all__ = [
    "NAMES",
    "Difference",
    "ImageId",
    "Interval",
    "JavaScore",
    "Scores",
    "compare",
    "merge",
    "meteor",
    "permuted",
    "read_captions",
    "read_predictions",
    "score",
    "single",
    "spice",
    "tokenize",
    "write_predictions",
]
