"""A model at work for everybody: loaded, compiled and asked in the background, by two threads."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from paligemma_lib.captioner import Captioner
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.caption_writer import Writer
from paligemma_lib.serving.queue import Queue, Request


class Service:
    """A model at work for everybody in this process.

    Attributes:
      max_new_tokens: the longest captions that it writes.
      captioner: the model, once it is loaded.
      problem: why there is no model.
    """

    def __init__(
        self,
        load: Callable[[], Captioner],
        *,
        prepare: Iterable[Strategy] = (),
        prompt_tokens: int = 48,
        max_new_tokens: int = 64,
        look_seconds: float = 0.2,
        max_waiting: int = 64,
        timeout: float = 120.0,
    ):
        """Returns at once; the model is loaded in the background.

        Args:
          load: returns the model; is called once.
          prepare: samplers to compile before anybody asks for them, in this order.
          prompt_tokens: longest prompt, BOS and newline counted.
          max_new_tokens: longest caption.
          look_seconds: how often it is told what is written, and looked what was cancelled; a
            token that takes longer is not interrupted.
          max_waiting: requests that may be under way at once.
          timeout: seconds after which a request that nobody asks about is dropped.
        """
        self.max_new_tokens = max_new_tokens
        self.captioner: Captioner | None = None
        self.problem: str | None = None
        self._queue = Queue(prepare=prepare, max_waiting=max_waiting, timeout=timeout)
        make_writer = functools.partial(
            Writer,
            prompt_tokens=prompt_tokens,
            max_new_tokens=max_new_tokens,
            look_seconds=look_seconds,
        )
        threading.Thread(target=self._work, args=(load, make_writer), daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and all that was asked for is compiled."""
        return self._queue.all_compiled

    def compiled(self, sampler: Strategy) -> bool:
        """Whether captions of this kind can be written without compiling first."""
        return self._queue.is_compiled(sampler)

    def ask(
        self,
        images: Sequence[bytes],
        *,
        prompt: str,
        sampler: Strategy,
        max_new_tokens: int,
        seed: int = 0,
    ) -> Request:
        """Takes images on, to be captioned one after another.

        Args:
          images: encoded, as `data.decode_image` takes them. EXIF turns them upright.
          prompt: for all of them.
          sampler: how words are chosen. Each one is compiled when first asked for, and kept.
          max_new_tokens: where captions stop.
          seed: for samplers that draw at random; the images are numbered from 0.

        Raises:
          ValueError: no images, or captions longer than there is room for.
          Busy: too many requests are waiting.
          RuntimeError: there is no model; `problem` says why.
        """
        if not images or not 1 <= max_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"ask: {len(images)} images and max_new_tokens={max_new_tokens}, expected at "
                f"least one image and 1 to {self.max_new_tokens} tokens"
            )
        request = Request(self._queue, tuple(images), prompt, sampler, max_new_tokens, seed)
        self._queue.put(request)
        return request

    def close(self) -> None:
        """Ends both threads after what they are doing."""
        self._queue.close()

    def _work(
        self, load: Callable[[], Captioner], make_writer: Callable[[Captioner], Writer]
    ) -> None:
        """One thread: loads the model, starts the other, which writes, and compiles."""
        try:
            captioner = load()
            writer = make_writer(captioner)
        except Exception as error:
            logging.exception("The model could not be loaded")
            self.problem = f"The model could not be loaded: {error}"
            self._queue.give_up(self.problem)
            return
        self.captioner = captioner
        threading.Thread(target=self._write_captions, args=(writer,), daemon=True).start()
        while (sampler := self._queue.next_sampler()) is not None:
            problem = None
            try:
                writer.compile(sampler)
            except Exception as error:
                logging.exception("Compiling for %s failed", sampler)
                problem = f"This way of choosing words does not work with this model: {error}"
            self._queue.compiled(sampler, problem)

    def _write_captions(self, writer: Writer) -> None:
        """The other thread: one image after another."""
        while (turn := self._queue.next_request()) is not None:
            self._write(writer, *turn)
            self._queue.end_turn(turn[0])

    def _write(self, writer: Writer, request: Request, number: int) -> None:
        """Writes one caption, or stops where nobody waits for it any more."""
        try:
            for answer in writer.write(
                request.images[number],
                request.prompt,
                request.sampler,
                request.max_new_tokens,
                seed=request.seed,
                number=number,
            ):
                if not self._queue.show(request, number, answer):
                    return
        except ValueError as error:  # of the image or the prompt
            self._queue.show(request, number, Answer(problem=str(error)))
        except Exception:
            logging.exception("A caption could not be written")
            problem = "The model failed on this image; the log of the server says why."
            self._queue.show(request, number, Answer(problem=problem))
