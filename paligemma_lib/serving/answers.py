"""Defines what a client sees of its request: the progress, and the captions so far.

progress = request.progress()
print(progress.stage, progress.ahead, [answer.text for answer in progress.answers])
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from paligemma_lib.decode import Caption

Stage = Literal["loading", "compiling", "waiting", "writing", "over"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """The caption of one image, unfinished or complete.

    Attributes:
      text: the text so far, or of the complete caption.
      caption: the complete caption; None: there is none yet.
      problem: why the image gets no caption; None: no problem.
      seconds: time to write the complete caption, without the time in the queue.
    """

    text: str = ""
    caption: Caption | None = None
    problem: str | None = None
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether this answer is final: it has a caption or a problem."""
        return self.caption is not None or self.problem is not None


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a request.

    Attributes:
      stage: "loading" the model, "compiling" for the sampler, then "waiting" and "writing" in turns
        until all images are done, then "over".
      ahead: number of other requests that are served first, by one image each, while "waiting".
      answers: one for each image.
    """

    stage: Stage
    ahead: int
    answers: tuple[Answer, ...]

    @property
    def over(self) -> bool:
        """Whether the request is complete, failed or cancelled."""
        return self.stage == "over"
