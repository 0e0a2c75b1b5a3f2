"""Captions for people who wait: one model for all, pictures in turn, words as they come.

    service = Service(lambda: pg.captioner.load("nano"), prepare=[Greedy(), Beam(4)])
    request = service.ask([picture], prompt="caption en", sampler=Beam(4), max_new_tokens=32)
    while not (progress := request.progress()).over:
        print(progress.stage, progress.ahead, progress.answers[0].text)
        time.sleep(0.2)

One thread loads the model and compiles; another writes captions. A picture is the unit: a request
with more of them goes to the end of the queue after each, so that nobody waits for all pictures of
somebody else, and a request for a sampler that is not compiled yet stands aside until it is.

Prompts and captions have fixed room, so each sampler is compiled once, whatever is asked.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import jax
import numpy as np
import PIL.Image

from paligemma_lib.batch import PAD
from paligemma_lib.captioner import Captioner
from paligemma_lib.data.image import decode_image
from paligemma_lib.decode import (
    Caption,
    State,
    captions_from,
    extend,
    finished,
    hypotheses,
    image_keys,
    prefill,
    tokens_so_far,
)
from paligemma_lib.decode.devices import images_sharding, num_parts
from paligemma_lib.decode.loop import Sampler
from paligemma_lib.decode.samples import Hypotheses

Stage = Literal["loading", "compiling", "waiting", "writing", "over"]


class Busy(RuntimeError):
    """Too many requests are waiting."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What has been written about one picture.

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
      ahead: while waiting, how many pictures of others come first.
      answers: one for each picture.
    """

    stage: Stage
    ahead: int
    answers: tuple[Answer, ...]

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.stage == "over"


@dataclasses.dataclass(eq=False)
class Request:
    """Pictures to be captioned, as `Service.ask` returns it."""

    _service: Service
    _pictures: tuple[bytes, ...]
    _prompt: str
    _sampler: Sampler
    _max_new_tokens: int
    _seed: int
    _answers: list[Answer]
    _seen: float
    _cancelled: bool = False

    def progress(self) -> Progress:
        """How far it is; to be asked now and then, since what nobody asks about is dropped."""
        return self._service._progress(self)

    def cancel(self) -> None:
        """Writes no more; answers that are there stay."""
        self._service._cancel(self)


class Service:
    """A model at work for everybody in this process.

    Attributes:
      prompt_tokens, max_new_tokens: the room that prompts and captions have.
      captioner: the model, once it is loaded.
      problem: why there is no model.
    """

    def __init__(
        self,
        load: Callable[[], Captioner],
        *,
        prepare: Iterable[Sampler] = (),
        prompt_tokens: int = 48,
        max_new_tokens: int = 64,
        slice_tokens: int = 4,
        max_waiting: int = 64,
        patience: float = 120.0,
    ):
        """Returns at once; the model is loaded in the background.

        Args:
          load: returns the model; is called once.
          prepare: samplers to compile before anybody asks for them.
          prompt_tokens: longest prompt, BOS and newline counted.
          max_new_tokens: longest caption.
          slice_tokens: how many tokens are written between two looks at what was cancelled.
          max_waiting: requests that may be under way at once.
          patience: seconds after which a request that nobody asks about is dropped.
        """
        self.prompt_tokens, self.max_new_tokens = prompt_tokens, max_new_tokens
        self.captioner: Captioner | None = None
        self.problem: str | None = None
        self._load, self._slice = load, slice_tokens
        self._max_waiting, self._patience = max_waiting, patience
        self._changed = threading.Condition()
        # All below is read and changed while holding it.
        self._uncompiled = deque(dict.fromkeys(prepare))
        self._compiled: set[Sampler] = set()
        self._aside: list[Request] = []  # waiting for a program
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._closed = False
        for work in (self._prepare, self._write_captions):
            threading.Thread(target=work, name=f"service{work.__name__}", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and all that was asked for is compiled."""
        with self._changed:
            return self.captioner is not None and not self._uncompiled

    def compiled(self, sampler: Sampler) -> bool:
        """Whether captions of this kind can be written without compiling first."""
        with self._changed:
            return sampler in self._compiled

    def ask(
        self,
        pictures: Sequence[bytes],
        *,
        prompt: str,
        sampler: Sampler,
        max_new_tokens: int,
        seed: int = 0,
    ) -> Request:
        """Takes pictures on, to be captioned one after another.

        Args:
          pictures: encoded, as `data.decode_image` takes them. EXIF turns them upright.
          prompt: for all of them.
          sampler: how words are chosen. Each one is compiled when first asked for, and kept.
          max_new_tokens: where captions stop.
          seed: for samplers that draw at random.

        Raises:
          ValueError: no pictures, or captions longer than there is room for.
          Busy: too many requests are waiting.
          RuntimeError: there is no model; `problem` says why.
        """
        if not pictures or not 1 <= max_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"ask: {len(pictures)} pictures and max_new_tokens={max_new_tokens}, expected at "
                f"least one picture and 1 to {self.max_new_tokens} tokens"
            )
        blank = [Answer() for _ in pictures]
        request = Request(
            self, tuple(pictures), prompt, sampler, max_new_tokens, seed, blank, time.monotonic()
        )
        with self._changed:
            if self.problem is not None:
                raise RuntimeError(self.problem)
            if len(self._aside) + len(self._queue) >= self._max_waiting:
                raise Busy(f"{self._max_waiting} requests are waiting already")
            if sampler in self._compiled:
                self._queue.append(request)
            else:
                self._aside.append(request)
                if sampler in self._uncompiled:
                    self._uncompiled.remove(sampler)
                self._uncompiled.appendleft(sampler)  # before what nobody waits for
            self._changed.notify_all()
        return request

    def close(self) -> None:
        """Ends both threads after what they are doing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # What requests ask for.

    def _progress(self, request: Request) -> Progress:
        with self._changed:
            request._seen = time.monotonic()
            stage: Stage
            ahead = 0
            if all(answer.over for answer in request._answers) or request._cancelled:
                stage = "over"
            elif request is self._current:
                stage = "writing"
            elif request in self._queue:
                stage, ahead = "waiting", self._queue.index(request) + (self._current is not None)
            else:
                stage = "loading" if self.captioner is None else "compiling"
            return Progress(stage, ahead, tuple(request._answers))

    def _cancel(self, request: Request) -> None:
        with self._changed:
            request._cancelled = True
            for waiting in (self._aside, self._queue):
                if request in waiting:
                    waiting.remove(request)

    # The thread that loads and compiles.

    def _prepare(self) -> None:
        try:
            captioner = self._load()
            _decode(_blank_picture(), captioner)  # makes TensorFlow's graph
        except Exception as error:
            logging.exception("The model could not be loaded")
            self._give_up(f"The model could not be loaded: {error}")
            return
        with self._changed:
            self.captioner = captioner
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._uncompiled or self._closed)
                if self._closed:
                    return
                sampler = self._uncompiled[0]
            problem = None
            try:
                self._compile(captioner, sampler)
            except Exception as error:
                logging.exception("Compiling for %s failed", sampler)
                problem = f"This way of choosing words does not work with this model: {error}"
            with self._changed:
                self._uncompiled.remove(sampler)
                if problem is None:
                    self._compiled.add(sampler)
                for request in [each for each in self._aside if each._sampler == sampler]:
                    self._aside.remove(request)
                    if problem is None:
                        self._queue.append(request)
                    else:
                        request._answers[:] = [Answer(problem=problem) for _ in request._answers]
                self._changed.notify_all()

    def _give_up(self, problem: str) -> None:
        with self._changed:
            self.problem = problem
            for request in self._aside:
                request._answers[:] = [Answer(problem=problem) for _ in request._answers]
            self._aside.clear()

    def _compile(self, captioner: Captioner, sampler: Sampler) -> None:
        state = self._read(captioner, sampler, _decode(_blank_picture(), captioner), "", seed=0)
        state = extend(captioner.config, captioner.params, state, self._slice)
        finished(state), jax.device_get((tokens_so_far(state), hypotheses(state)))

    # The thread that writes captions.

    def _write_captions(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                request = self._current = self._queue.popleft()
            number = next(i for i, answer in enumerate(request._answers) if not answer.over)
            try:
                self._write(request, number)
            except ValueError as error:  # of the picture or the prompt
                self._show(request, number, Answer(problem=str(error)))
            except Exception:
                logging.exception("A caption could not be written")
                problem = "The model failed on this picture; the log of the server says why."
                self._show(request, number, Answer(problem=problem))
            with self._changed:
                self._current = None
                if self._goes_on(request):
                    self._queue.append(request)

    def _write(self, request: Request, number: int) -> None:
        """Writes the caption of one picture, or stops where nobody waits for it any more."""
        captioner, limit = self.captioner, request._max_new_tokens
        assert captioner is not None
        start = time.monotonic()
        pixels = _decode(request._pictures[number], captioner)
        seed = int(np.random.default_rng([request._seed, number]).integers(2**31))
        state = self._read(captioner, request._sampler, pixels, request._prompt, seed)
        written = 1
        while written < limit and not finished(state):
            text = captioner.tokenizer.decode(np.asarray(tokens_so_far(state))[0].tolist())
            self._show(request, number, Answer(text.strip().rstrip("\ufffd")))
            with self._changed:
                if not self._goes_on(request):
                    return
            count = min(self._slice, limit - written)
            state = extend(captioner.config, captioner.params, state, count)
            written += count
        found = jax.device_get(hypotheses(state))
        found = Hypotheses(found.tokens[..., :limit], found.logprobs[..., :limit], found.score)
        caption = captions_from(found, captioner.tokenizer)[0]
        self._show(request, number, Answer(caption.text, caption, None, time.monotonic() - start))

    def _read(
        self, captioner: Captioner, sampler: Sampler, pixels: np.ndarray, prompt: str, seed: int
    ) -> State:
        tokens = captioner.tokenizer.encode_prefix(prompt)
        if len(tokens) > self.prompt_tokens:
            raise ValueError(
                f"The prompt has {len(tokens)} tokens, there is room for {self.prompt_tokens}: "
                "make it shorter."
            )
        sharding = images_sharding(pixels, captioner.params)
        rows = num_parts(sharding)  # the same picture for each
        image: np.ndarray | jax.Array = np.repeat(pixels[None], rows, axis=0)
        if sharding is not None:
            image = jax.device_put(image, sharding)
        text = np.full((rows, self.prompt_tokens), PAD, np.int32)
        text[:, : len(tokens)] = tokens
        return prefill(
            captioner.config,
            captioner.params,
            image,
            text,
            np.full(rows, len(tokens), np.int32),
            sampler=sampler,
            max_new_tokens=self.max_new_tokens,
            keys=image_keys(jax.random.key(seed), [0] * rows),
        )

    def _show(self, request: Request, number: int, answer: Answer) -> None:
        with self._changed:
            request._answers[number] = answer

    def _goes_on(self, request: Request) -> bool:
        """Whether somebody waits for more; called while holding the lock."""
        if time.monotonic() - request._seen > self._patience:
            request._cancelled = True
        return not request._cancelled and not all(answer.over for answer in request._answers)


def _decode(picture: bytes, captioner: Captioner) -> np.ndarray:
    return decode_image(picture, captioner.config.vision.image_size, apply_exif=True)


def _blank_picture() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()
