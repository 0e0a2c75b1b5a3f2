"""Scores captions by BLEU, ROUGE-L and CIDEr as published, without Java; answers, and boxes.

    scores = score(references, captions)      # {image_id: [caption, ...]}, {image_id: caption}
    print(scores.corpus["CIDEr"], scores.intervals()["CIDEr"], *scores.warnings, sep="\\n")
    print(permuted(references, captions, seed=0).corpus["CIDEr"])  # does it look at the images?

The package needs only NumPy. METEOR and SPICE come from Java programs, where they are installed.
"""

from paligemma_lib.metrics.boxes import average_precision, score_boxes
from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.metrics.caption_rows import image_files, read_captions, single
from paligemma_lib.metrics.cider import DocumentFrequencies
from paligemma_lib.metrics.corpus_scores import Difference, Interval, Scores, compare
from paligemma_lib.metrics.image_names import renamed
from paligemma_lib.metrics.java_scores import JavaScore, meteor, spice
from paligemma_lib.metrics.permuting import permuted
from paligemma_lib.metrics.predictions import merge, read_predictions, write_predictions
from paligemma_lib.metrics.scoring import NAMES, document_frequencies, score
from paligemma_lib.metrics.tasks import SCORERS, Task
from paligemma_lib.metrics.tokens import tokenize
from paligemma_lib.metrics.vqa import score_answers

__all__ = [
    "NAMES",
    "SCORERS",
    "Difference",
    "DocumentFrequencies",
    "ImageId",
    "Interval",
    "JavaScore",
    "Scores",
    "Task",
    "average_precision",
    "compare",
    "document_frequencies",
    "image_files",
    "merge",
    "meteor",
    "permuted",
    "read_captions",
    "read_predictions",
    "renamed",
    "score",
    "score_answers",
    "score_boxes",
    "single",
    "spice",
    "tokenize",
    "write_predictions",
]
