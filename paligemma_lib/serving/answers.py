"""What people who wait are told: how far their request is, and what is written so far.

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
    """What has been written about one image.

    Attributes:
      text: so far, or the whole caption.
      caption: when it is whole.
      problem: why there is none.
      seconds: how long it took, without waiting.
    """

    text: str = ""
    caption: Caption | None = None
    problem: str | None = None
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.caption is not None or self.problem is not None


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a request is.

    Attributes:
      stage: "loading" and "compiling" precede "waiting" and "writing", which alternate.
      ahead: while waiting, how many images of others come first.
      answers: one for each image.
    """

    stage: Stage
    ahead: int
    answers: tuple[Answer, ...]

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.stage == "over"
