"""Captions one image, a few tokens at a time, with programs that are compiled once.

    writer = Writer(captioner, prompt_tokens=48, max_new_tokens=64)
    writer.compile(Beam(4))
    for answer in writer.write(image, "caption en", Beam(4), max_new_tokens=32):
        print(answer.text)

Prompts are padded to `prompt_tokens`, and captions have space for `max_new_tokens`. So all requests
with the same sampler use the same programs, which JAX caches.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import jax
import numpy as np
import PIL.Image

from paligemma_lib.batch import PAD
from paligemma_lib.captioner import Captioner
from paligemma_lib.data.image import decode_image
from paligemma_lib.decode import (
    State,
    captions_from,
    extend,
    finished,
    hypotheses,
    image_keys,
    prefill,
    tokens_so_far,
)
from paligemma_lib.decode.devices import images_sharding, num_shards
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.samples import Hypotheses
from paligemma_lib.serving.answers import Answer


class Writer:
    """Captions images and yields the text so far."""

    def __init__(
        self,
        captioner: Captioner,
        *,
        prompt_tokens: int,
        max_new_tokens: int,
        look_seconds: float = 0.2,
    ):
        """Takes the arguments of `Service` with the same names, and the model."""
        self._captioner = captioner
        self._prompt_tokens, self._max_new_tokens = prompt_tokens, max_new_tokens
        self._look_seconds = look_seconds

    def compile(self, sampler: Strategy) -> None:
        """Compiles the programs that `write` runs with this sampler.

        It captions a blank image, so that TensorFlow's image decoding is traced, too.
        """
        state = self._read(_blank_image(), "", sampler, seed=0, number=0)
        state = extend(self._captioner.config, self._captioner.params, state, 1)
        finished(state), jax.device_get((tokens_so_far(state), hypotheses(state)))

    def write(
        self,
        encoded: bytes,
        prompt: str,
        sampler: Strategy,
        max_new_tokens: int,
        *,
        seed: int = 0,
        number: int = 0,
    ) -> Iterator[Answer]:
        """Yields an answer with the text so far, several times, and then one with the caption.

        The caption is the one that `decode.generate` returns with `key=jax.random.key(seed)` for
        the image with this number.

        Args:
          encoded: bytes of an image file.
          prompt: at most `prompt_tokens` tokens, BOS and newline counted.
          sampler: chooses the tokens.
          max_new_tokens: largest number of tokens, at most that of the constructor.
          seed: seed of samplers that draw at random.
          number: number of the image, see `image_keys`.

        Raises:
          ValueError: the bytes are not an image, or the prompt is too long.
        """
        config, params = self._captioner.config, self._captioner.params
        tokenizer = self._captioner.tokenizer
        start = look = time.monotonic()
        state = self._read(encoded, prompt, sampler, seed, number)
        written = count = 1
        while written < max_new_tokens and not finished(state):
            text = tokenizer.decode(np.asarray(tokens_so_far(state))[0].tolist())
            # A character may take several tokens (byte pieces). An incomplete one is decoded as
            # U+FFFD at the end, and is not shown.
            yield Answer(text.strip().rstrip("\ufffd"))
            now = time.monotonic()
            pace, look = (now - look) / count, now
            # The pace is in seconds per token. The first one includes reading the image, so one
            # token is added after it. Then as many as fit in `look_seconds`: a slow model shows
            # each token, and a fast one is rarely interrupted.
            count = 1 if written == 1 else int(self._look_seconds / max(pace, 1e-3))
            count = min(max(count, 1), max_new_tokens - written)
            state = extend(config, params, state, count)
            written += count
        # The state has space for the writer's `max_new_tokens`. It is cut to this request's, since
        # `captions_from` takes a row without EOS at its full length.
        found = jax.device_get(hypotheses(state))
        room = slice(max_new_tokens)
        found = Hypotheses(found.tokens[..., room], found.logprobs[..., room], found.score)
        (caption, *_) = captions_from(found, tokenizer)
        yield Answer(caption.text, caption, None, time.monotonic() - start)

    def _read(
        self, encoded: bytes, prompt: str, sampler: Strategy, seed: int, number: int
    ) -> State:
        """Returns the state after the image, the prompt and the first token."""
        captioner = self._captioner
        pixels = decode_image(encoded, captioner.config.vision.image_size)
        tokens = captioner.tokenizer.encode_prefix(prompt)
        if len(tokens) > self._prompt_tokens:
            raise ValueError(
                f"The prompt has {len(tokens)} tokens; at most {self._prompt_tokens} are allowed. "
                "Make it shorter."
            )
        sharding = images_sharding(pixels, captioner.params)
        rows = num_shards(sharding)  # axis 0 must divide evenly: each shard gets the same image
        image: np.ndarray | jax.Array = np.repeat(pixels[None], rows, axis=0)
        if sharding is not None:
            image = jax.device_put(image, sharding)
        text = np.full((rows, self._prompt_tokens), PAD, np.int32)
        text[:, : len(tokens)] = tokens
        return prefill(
            captioner.config,
            captioner.params,
            image,
            text,
            np.full(rows, len(tokens), np.int32),
            sampler=sampler,
            max_new_tokens=self._max_new_tokens,
            keys=image_keys(jax.random.key(seed), [number] * rows),
        )


def _blank_image() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()
