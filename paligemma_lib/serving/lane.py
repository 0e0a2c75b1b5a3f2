"""Writes captions in the slots of one program, and tells which job each slot belongs to.

lane = Lane(captioner, Adjustable(), count=32, prompt_tokens=64, max_new_tokens=64)
lane.enter(job, begun)
for job in lane.advance():              # shows answers; yields jobs that have left
    ...
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from paligemma_lib.captioner import Captioner
from paligemma_lib.decode import slots
from paligemma_lib.decode.adjustable import Settings, settings_of
from paligemma_lib.decode.captions import captions_from
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.samplers import BestOf, Greedy
from paligemma_lib.decode.samples import Hypotheses, NotFinite
from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.jobs import Job
from paligemma_lib.serving.prompt_reading import Begun


class Lane:
    """Slots of one program. One thread alone uses it."""

    def __init__(
        self,
        captioner: Captioner,
        strategy: Strategy,
        *,
        count: int,
        prompt_tokens: int,
        max_new_tokens: int,
        look_seconds: float,
    ):
        """Takes the model, the number of slots, and arguments of `Engine` with the same names."""
        self._captioner = captioner
        self._strategy = strategy
        self.count = count  # slots
        self._prompt_length, self._max_new_tokens = prompt_tokens, max_new_tokens
        self._look_seconds = look_seconds
        self._pace = look_seconds  # seconds for a token, from the last look
        self.tokens = 0  # that have been written
        self.reset()

    @property
    def is_busy(self) -> bool:
        """Whether there are jobs in its slots."""
        return bool(self._rows)

    def reset(self) -> None:
        """Forgets all jobs and frees the slots, so that it never fails; the next job makes new."""
        self._slots: slots.Slots | None = None
        self._held: list[tuple[Job, int] | None] = [None] * self.count  # job and row
        self._prompt_tokens: dict[Job, int] = {}
        self._rows: dict[Job, dict[int, Hypotheses]] = {}  # complete rows of each job
        self._steps = np.ones(self.count, np.int32)
        self._is_new = False  # whether a job has entered whose first token somebody waits for

    def compile(self, begun: Sequence[Begun]) -> None:
        """Runs all programs once, with prompts of each size."""
        for each in begun:
            self._enter(0, each, 2, settings_of(Greedy(), 0))
        self._advance(1)
        self._empty([0], [])
        self._pace = self._look_seconds
        self.tokens = 0

    def enter(self, job: Job, begun: Begun) -> None:
        """Puts a job into as many free slots as it takes, and chooses their first tokens."""
        free = [number for number, held in enumerate(self._held) if held is None]
        sampler = job.sampler.sampler if isinstance(job.sampler, BestOf) else job.sampler
        for row in range(job.slots):
            number = free[row]
            self._enter(number, begun, job.max_new_tokens, settings_of(sampler, row))
            self._held[number] = job, row
            self._steps[number] = 1
            self.tokens += self._strategy.rows
        self._prompt_tokens[job] = begun.tokens
        self._rows[job] = {}
        self._is_new |= job.streamed

    def advance(self) -> list[Job]:
        """Writes some tokens and shows what is new; returns jobs that are over and have left."""
        left = [job for job in self._rows if job.answer.over]  # cancelled meanwhile
        self._empty([n for n, held in enumerate(self._held) if held and held[0] in left], left)
        if not self._rows:
            return left
        # A new job shows its first token at once. Then as many tokens are added as fit in
        # `look_seconds`: a slow model shows each token, a fast one is rarely interrupted.
        fitting = max(1, int(self._look_seconds / max(self._pace, 1e-4)))
        seen = self._advance(0 if self._is_new else fitting)
        self._is_new = False
        complete = np.flatnonzero(seen.complete)
        found = jax.device_get(seen.found) if len(complete) else None
        for number in complete:
            job, row = self._job_of(int(number))
            assert found is not None
            self._rows[job][row] = Hypotheses(*(part[number] for part in found))
        over = [job for job, rows in self._rows.items() if len(rows) == job.slots]
        for job in over:
            job.show(self._answer(job))
        for job in self._rows.keys() - set(over):
            if job.streamed:
                job.show(self._partial(job, seen))
        self._empty(list(complete), over)
        return left + over

    def _enter(self, number: int, begun: Begun, limit: int, settings: Settings) -> None:
        if self._slots is None:
            self._slots = slots.empty(
                self._captioner.config,
                self._captioner.params,
                self._strategy,
                count=self.count,
                prompt_tokens=self._prompt_length,
                max_new_tokens=self._max_new_tokens,
            )
        self._slots = slots.enter(
            self._captioner.config, self._captioner.params, self._slots, np.int32(number),
            begun.prompt, begun.hidden, begun.key, np.int32(limit), settings,
        )  # fmt: skip

    def _advance(self, count: int) -> slots.Seen:
        """Adds up to so many tokens; returns what can be seen then, with NumPy arrays."""
        assert self._slots is not None
        begin = time.monotonic()
        self._slots, seen = slots.advance(
            self._captioner.config, self._captioner.params, self._slots, np.int32(count)
        )
        small = jax.device_get((seen.complete, seen.step, seen.leading))
        seen = seen._replace(complete=small[0], step=small[1], leading=small[2])
        written = seen.step - self._steps
        if (steps := int(written.max())) > 0:
            self._pace = (time.monotonic() - begin) / steps
        held = [each is not None for each in self._held]
        self.tokens += int(written[held].sum()) * self._strategy.rows
        self._steps = np.array(seen.step)
        return seen

    def _answer(self, job: Job) -> Answer:
        """Returns the final answer of a job whose rows are all complete."""
        tokenizer, limit = self._captioner.tokenizer, slice(job.max_new_tokens)
        # The slots have space for the engine's `max_new_tokens`. They are cut to this job's, since
        # `captions_from` takes a row without EOS at its full length.
        rows = [
            Hypotheses(each.tokens[:, limit], each.logprobs[:, limit], each.score)
            for _, each in sorted(self._rows[job].items())
        ]
        together = _joined(rows)
        seconds = time.monotonic() - (job.begun or 0)
        try:
            (caption,) = captions_from(together, tokenizer)
            alone = [
                captions_from(Hypotheses(*(part[None] for part in row)), tokenizer)[0]
                for row in rows
            ]
        except NotFinite as error:
            return Answer(problem=str(error), fault="model", seconds=seconds)
        texts = tuple(each.text for each in alone)
        of_rows = tuple(alone) if self._strategy.rows == 1 else ()
        return Answer(
            texts, caption, of_rows, self._prompt_tokens[job], seconds=seconds
        )  # fmt: skip

    def _partial(self, job: Job, seen: slots.Seen) -> Answer:
        texts = list(job.answer.texts) + [""] * (job.slots - len(job.answer.texts))
        for number, held in enumerate(self._held):
            if held and held[0] is job:
                tokens = seen.leading[number, : seen.step[number]].tolist()
                texts[held[1]] = self._captioner.tokenizer.decode(tokens).strip()
        seconds = time.monotonic() - (job.begun or 0)
        return Answer(
            tuple(texts), prompt_tokens=self._prompt_tokens[job], seconds=seconds
        )  # fmt: skip

    def _job_of(self, number: int) -> tuple[Job, int]:
        held = self._held[number]
        assert held is not None
        return held

    def _empty(self, numbers: list[int], over: list[Job]) -> None:
        """Empties slots, and forgets jobs that are over."""
        for job in over:
            del self._rows[job], self._prompt_tokens[job]
        if not numbers:
            return
        assert self._slots is not None
        where = np.zeros(len(self._held), bool)
        where[numbers] = True
        self._slots = slots.leave(self._slots, where)
        for number in numbers:
            self._held[number] = None


def _joined(rows: Sequence[Hypotheses]) -> Hypotheses:
    """Returns the captions of all rows of an image together, best first, with an axis of images."""
    tokens, logprobs, score = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    order = np.argsort(-score, kind="stable")
    together: Any = (tokens[order][None], logprobs[order][None], score[order][None])
    return Hypotheses(*together)
