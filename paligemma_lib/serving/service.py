"""Runs one model for all clients of a process: two threads load, compile and write captions."""

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
    """One model that serves all clients in this process.

    Attributes:
      max_new_tokens: largest number of tokens of a caption.
      captioner: the model; None until it is loaded.
      problem: why the model could not be loaded; None: no problem.
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
        """Starts loading the model in the background, and returns at once.

        Args:
          load: returns the model; called once.
          prepare: samplers to compile before a request needs them, in this order.
          prompt_tokens: largest number of tokens of a prompt, BOS and newline counted.
          max_new_tokens: largest number of tokens of a caption.
          look_seconds: seconds between updates of the text so far, and between checks for
            cancellation. A token that takes longer is not interrupted.
          max_waiting: largest number of waiting requests; the one being written does not count.
          timeout: seconds without a call of `Request.progress` after which a request is cancelled.
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
        """Whether the model is loaded and no sampler is left to compile."""
        return self._queue.all_compiled

    def compiled(self, sampler: Strategy) -> bool:
        """Returns whether this sampler is compiled."""
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
        """Queues images to be captioned, and returns their request at once.

        Args:
          images: bytes of image files, as for `data.decode_image`.
          prompt: prompt of all images.
          sampler: chooses the tokens. A sampler is compiled once, when a request first needs it.
          max_new_tokens: largest number of tokens of a caption, at most that of the service.
          seed: seed of samplers that draw at random; the images are numbered from 0.

        Raises:
          ValueError: there are no images, or `max_new_tokens` is out of range.
          Busy: too many requests are waiting.
          RuntimeError: the model could not be loaded; `problem` says why.
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
        """Ends both threads once they have finished what they are doing."""
        self._queue.close()

    def _work(
        self, load: Callable[[], Captioner], make_writer: Callable[[Captioner], Writer]
    ) -> None:
        """Loads the model, starts the thread that writes, and compiles; runs in a thread."""
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
        """Captions one image after another; runs in the other thread."""
        while (turn := self._queue.next_request()) is not None:
            self._write(writer, *turn)
            self._queue.end_turn(turn[0])

    def _write(self, writer: Writer, request: Request, number: int) -> None:
        """Writes one caption, and stops early if its request is cancelled or timed out."""
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
        except ValueError as error:  # a fault of the image or the prompt, told to the client
            self._queue.show(request, number, Answer(problem=str(error)))
        except Exception:
            logging.exception("A caption could not be written")
            problem = "The model failed on this image; the log of the server says why."
            self._queue.show(request, number, Answer(problem=problem))
