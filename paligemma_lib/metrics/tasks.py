"""Names what a model is asked for, and how its texts are scored.

scores = SCORERS["answer"](references, captions)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from paligemma_lib.metrics.boxes import score_boxes
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores
from paligemma_lib.metrics.scoring import score, score_quietly
from paligemma_lib.metrics.vqa import score_answers

Task = Literal["caption", "answer", "detect"]
Scorer = Callable[[References, Captions], Scores]

SCORERS: Mapping[Task, Scorer] = {
    "caption": score,
    "answer": score_answers,
    "detect": score_boxes,
}

# For texts that are bad by intention, of which no warning is wanted.
QUIET_SCORERS: Mapping[Task, Scorer] = {**SCORERS, "caption": score_quietly}
