"""Defines what a client gets: the text so far, the caption, or why there is none.

answer = job.wait(timeout=10)
answer.caption.text if answer.caption else answer.problem
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from paligemma_lib.decode import Caption

Stage = Literal["loading", "compiling", "waiting", "writing", "over"]

# What is to blame for a problem: the request itself; its time limit or its client; the server; or
# the model, whose numbers for this image are not finite.
Fault = Literal["request", "deadline", "cancelled", "server", "model"]


class Busy(RuntimeError):
    """Raised when too many jobs are waiting, of all clients or of one.

    Attributes:
      retry_after: seconds after which it may be worth another try.
    """

    def __init__(self, message: str, retry_after: float = 1.0):
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(RuntimeError):
    """Raised when the engine takes no more jobs: it drains, is closed, or has no model."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The caption of one image, unfinished or complete.

    Attributes:
      texts: text so far of each row: one, or `rows` of `BestOf`. Of the complete caption at last.
      caption: the complete caption, best first; None: there is none yet.
      rows: the complete captions in the order of rows; empty for beams, and before the end.
      prompt_tokens: tokens of image and prompt, once they are read.
      problem: why there is no caption; None: no problem.
      fault: what is to blame for it.
      seconds: from the queue to this answer, while the image was read and the caption written.
    """

    texts: tuple[str, ...] = ("",)
    caption: Caption | None = None
    rows: tuple[Caption, ...] = ()
    prompt_tokens: int = 0
    problem: str | None = None
    fault: Fault | None = None
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Text of the first row so far, or of the caption."""
        return self.caption.text if self.caption else self.texts[0]

    @property
    def over(self) -> bool:
        """Whether this answer is final: it has a caption or a problem."""
        return self.caption is not None or self.problem is not None
