"""What a client asks for, whichever way it comes, and the job that is made of it.

asked = Asked(image, "caption en", temperature=0.7, n=2)
job = asked.submit(engine, client="10.0.0.1", seconds=60)
"""

from __future__ import annotations

import dataclasses
import secrets

from paligemma_lib.decode import Beam, BestOf, Greedy, Sample
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.serving.answers import Busy, Unavailable
from paligemma_lib.serving.endpoint.api_errors import ApiError, refusal
from paligemma_lib.serving.endpoint.served_models import Served
from paligemma_lib.serving.jobs import Job

PROMPT = "caption en"
MAX_BEAMS = 8  # each number of beams is a program of its own


@dataclasses.dataclass(frozen=True)
class Asked:
    """An image and how it is to be captioned.

    Attributes:
      image: bytes of an image file.
      prompt: the prompt.
      temperature, top_p: see `Sample`; a temperature of 0, as by default, is greedy.
      n: number of captions that are drawn.
      beams: beams of a beam search; None: none is made.
      max_tokens: largest number of tokens; None, or more than the engine's: that.
      seed: of what is drawn at random; None: any. What is not drawn is the same for every seed.
      streamed: whether the text so far is wanted.
    """

    image: bytes = dataclasses.field(repr=False)
    prompt: str = PROMPT
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    beams: int | None = None
    max_tokens: int | None = None
    seed: int | None = None
    streamed: bool = False

    def sampler(self) -> Strategy:
        """Returns what chooses the tokens.

        Raises:
          ApiError: the settings contradict each other.
        """
        drawn = bool(self.temperature)
        if self.beams is not None:
            if drawn or self.top_p is not None or self.n > 1:
                raise ApiError(
                    400, "beams go without temperature, top_p and n: leave these out", param="beams"
                )
            return Beam(self.beams, nbest=1)
        if not drawn:
            if self.n > 1:
                raise ApiError(
                    400,
                    f"n={self.n} captions without a temperature would be the same: set temperature",
                    param="n",
                )
            # At a temperature of 0, any top_p leaves the likeliest token, and so does 1 always.
            if self.temperature is None and self.top_p not in (None, 1):
                raise ApiError(
                    400,
                    f"top_p={self.top_p} without a temperature would do nothing, since decoding "
                    "is greedy then: set temperature, or leave top_p out",
                    param="top_p",
                )
            return Greedy()
        sampler = Sample(self.temperature or 0.0, top_p=self.top_p)
        return BestOf(self.n, sampler) if self.n > 1 else sampler

    def submit(self, model: Served, client: str, seconds: float) -> Job:
        """Returns the job of an engine.

        Args:
          model: the model.
          client: whose image it is.
          seconds: time until the job ends without a caption.

        Raises:
          ApiError: the engine refuses it.
        """
        most = model.engine.max_new_tokens
        try:
            return model.engine.submit(
                self.image,
                prompt=self.prompt,
                sampler=self.sampler(),
                max_new_tokens=min(self.max_tokens or most, most),
                seed=secrets.randbits(32) if self.seed is None else self.seed,
                client=client,
                seconds=seconds,
                streamed=self.streamed,
                adapter=model.adapter,
            )
        except (Busy, Unavailable, ValueError) as error:
            raise refusal(error) from error
