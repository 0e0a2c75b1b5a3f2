"""Names what a model is asked for, and how its texts are scored.

scores = SCORERS["answer"](references, captions)
scores = scorer_of("segment", codec)(references, captions)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Literal

from paligemma_lib.metrics.boxes import score_boxes
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores
from paligemma_lib.metrics.masks import score_masks
from paligemma_lib.metrics.scoring import score, score_quietly
from paligemma_lib.metrics.vqa import score_answers
from paligemma_lib.regions import MaskCodec

Task = Literal["caption", "answer", "detect", "segment"]
Scorer = Callable[[References, Captions], Scores]

SCORERS: Mapping[Task, Scorer] = {  # of tasks whose texts alone tell the score
    "caption": score,
    "answer": score_answers,
    "detect": score_boxes,
}

# The same for texts that are bad by intention, of which no warning is wanted.
QUIET_SCORERS: Mapping[Task, Scorer] = {**SCORERS, "caption": score_quietly}


def scorer_of(task: Task, codec: MaskCodec | None = None, quiet: bool = False) -> Scorer:
    """Returns what scores the texts of a task.

    Args:
      task: what the model was asked for.
      codec: turns the codes of masks into pixels, for "segment".
      quiet: whether the texts are bad by intention, of which no warning is wanted.

    Raises:
      ValueError: the task is "segment", and there is no codec.
    """
    if task == "segment":
        if codec is None:
            raise ValueError(
                "task=segment: the codes of masks become pixels by a file of weights: give masks, "
                "such as gs://big_vision/paligemma/vae-oid.npz or a copy of it"
            )
        return functools.partial(score_masks, codec=codec)
    return (QUIET_SCORERS if quiet else SCORERS)[task]
