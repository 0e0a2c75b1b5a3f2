"""Asks models for captions of several images, and tells how far they are.

asked = ask({"nano": Model(engine)}, images, sampler, way, visitor="a1")
progress = asked.look()                 # regularly: who does not look any more is not waited for
asked.cancel()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cards
from uploads import Upload

if TYPE_CHECKING:  # these take seconds to import, and the page should appear at once
    from paligemma_lib.decode.programs import Strategy
    from paligemma_lib.regions import MaskCodec
    from paligemma_lib.serving import Answer, Engine, Job, Stage

PATIENCE = 60.0  # seconds without a look after which a request ends


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that visitors choose: what an engine has loaded, alone or with an adapter."""

    engine: Engine
    adapter: str | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a request.

    Attributes:
      stage: what it waits for now.
      ahead: images of others that come first, while "waiting".
      answers: of each image, one of each model.
    """

    stage: Stage
    ahead: int
    answers: tuple[tuple[Answer, ...], ...]

    @property
    def done(self) -> int:
        """Number of images whose answers are final."""
        return sum(all(each.over for each in answers) for answers in self.answers)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A pending request: jobs of each image, one for each model.

    Attributes:
      codec: draws the masks of captions; None: boxes alone are drawn.
    """

    models: tuple[str, ...]
    images: tuple[Upload, ...]
    way: cards.Way
    jobs: tuple[tuple[Job, ...], ...]
    codec: MaskCodec | None = None

    def look(self) -> Progress:
        """Returns the progress, and lets the request go on."""
        jobs = [job for each in self.jobs for job in each]
        for job in jobs:
            job.extend_deadline(PATIENCE)
        stages = [job.stage() for job in jobs]
        # The first image that is not done is the one whose stage is shown.
        stage, ahead = next((each for each in stages if each[0] != "over"), ("over", 0))
        answers = tuple(tuple(job.answer for job in each) for each in self.jobs)
        return Progress(stage, ahead, answers)

    def groups(self, progress: Progress) -> list[tuple[cards.Result, ...]]:
        """Returns a group of results for each image, one of each model."""
        return [
            tuple(
                cards.Result(
                    image, self.way, model, each.caption, _told(each), each.seconds, self.codec
                )
                for model, each in zip(self.models, answers, strict=True)
            )
            for image, answers in zip(self.images, progress.answers, strict=True)
        ]

    def cancel(self) -> None:
        """Ends all jobs; captions that are there are kept."""
        for jobs in self.jobs:
            for job in jobs:
                job.cancel()


def ask(
    models: Mapping[str, Model],
    images: Sequence[Upload],
    sampler: Strategy,
    way: cards.Way,
    visitor: str,
    codec: MaskCodec | None = None,
) -> Asked:
    """Sends images to each model.

    Raises:
      Busy, Unavailable: an engine refuses them; then no other works on them.
    """
    jobs: list[tuple[Job, ...]] = []
    asked = Asked(tuple(models), tuple(images), way, (), codec)
    try:
        for number, image in enumerate(images):
            of_image: tuple[Job, ...] = ()
            for model in models.values():
                job = model.engine.submit(
                    image.encoded,
                    prompt=way.prompt,
                    sampler=sampler,
                    max_new_tokens=way.length,
                    seed=way.seed,
                    number=number,
                    client=visitor,
                    seconds=PATIENCE,
                    streamed=True,
                    adapter=model.adapter,
                )
                of_image += (job,)
                jobs[number:] = [of_image]
    except RuntimeError:
        dataclasses.replace(asked, jobs=tuple(jobs)).cancel()
        raise
    return dataclasses.replace(asked, jobs=tuple(jobs))


def _told(answer: Answer) -> str | None:
    """Returns why there is no caption; None for one that the visitor has stopped."""
    return None if answer.fault == "cancelled" else answer.problem
