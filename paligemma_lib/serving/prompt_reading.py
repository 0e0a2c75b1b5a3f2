"""Reads an image and its prompt with the model, alone: what a slot begins with.

    reader = PromptReader(captioner, Turns(), prompt_tokens=64)
    begun = reader.read(job)                    # in any thread

Every image is read in a program of its own, of one of a few fixed sizes. So its keys and values are
the same, bit for bit, whatever else is read at the time.
"""

from __future__ import annotations

import dataclasses
import io
import threading

import jax
import numpy as np
import PIL.Image

from paligemma_lib.batch import BOS, PAD
from paligemma_lib.captioner import Captioner
from paligemma_lib.data.image import decode_image
from paligemma_lib.data.image_bounds import check_bounds
from paligemma_lib.decode import image_keys
from paligemma_lib.decode.devices import images_sharding
from paligemma_lib.decode.loop import MAX_TOKENS
from paligemma_lib.decode.programs import read_inputs
from paligemma_lib.decode.prompt import Prompt
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.serving.jobs import Job

_SHORT = 16  # tokens of most prompts, such as "caption en"
_LARGE = 8_000_000  # pixels of an image that takes much memory to decode
_AT_ONCE = 2  # images that the device reads at a time


@dataclasses.dataclass(frozen=True)
class Begun:
    """An image and its prompt that have been read.

    Attributes:
      prompt: their keys and values.
      hidden: dtype[1, D], the hidden state that gives the first token.
      key: key[1], random key of the image.
      tokens: number of tokens of image and prompt.
    """

    prompt: Prompt
    hidden: jax.Array
    key: jax.Array
    tokens: int


class Turns:
    """What readers of one engine share: who decodes a large image, and who uses the device."""

    def __init__(self) -> None:
        # Decoding the largest image takes a GB, so only one of them is decoded at a time. What the
        # device holds while it reads an image is bounded, too.
        self.decoding_large = threading.Lock()
        self.on_device = threading.Semaphore(_AT_ONCE)


class PromptReader:
    """Decodes images and reads them with the model.

    Attributes:
      captioner: as given.
    """

    def __init__(
        self, captioner: Captioner, turns: Turns, *, prompt_tokens: int, apply_exif: bool = True
    ):
        """Takes the model, what it shares, and the arguments of `Engine` with the same names."""
        self.captioner = captioner
        longest = whole("PromptReader: prompt_tokens", prompt_tokens, 2, MAX_TOKENS)
        self._lengths = sorted({min(_SHORT, longest), longest})
        self._apply_exif = apply_exif
        self._sharding = images_sharding(None, captioner.params)
        self._turns = turns

    def read(self, job: Job) -> Begun:
        """Returns what a slot begins with.

        Raises:
          ValueError: the bytes are not an image within `data.image_bounds`, or the prompt is too
            long or cannot be encoded.
        """
        tokens = self.captioner.tokenizer.encode_prefix(job.prompt)
        if len(tokens) > self._lengths[-1]:
            raise ValueError(
                f"The prompt has {len(tokens)} tokens; at most {self._lengths[-1]} are allowed. "
                "Make it shorter."
            )
        pixels = self._decode(job.image)
        key = image_keys(jax.random.key(job.seed), [job.number])
        return self._read(pixels, tokens, key)

    def blank(self) -> list[Begun]:
        """Reads a blank image with a prompt of each size, which compiles what reading needs."""
        file = io.BytesIO()
        PIL.Image.new("RGB", (2, 2)).save(file, "PNG")
        pixels = self._decode(file.getvalue())  # TensorFlow traces this once
        key = image_keys(jax.random.key(0), [0])
        return [self._read(pixels, [BOS] * length, key) for length in self._lengths]

    def _decode(self, encoded: bytes) -> np.ndarray:
        size = self.captioner.config.vision.image_size
        check_bounds(encoded)
        if _pixels(encoded) < _LARGE:
            return decode_image(encoded, size, apply_exif=self._apply_exif)
        with self._turns.decoding_large:
            return decode_image(encoded, size, apply_exif=self._apply_exif)

    def _read(self, pixels: np.ndarray, tokens: list[int], key: jax.Array) -> Begun:
        config, params = self.captioner.config, self.captioner.params
        length = next(each for each in self._lengths if len(tokens) <= each)
        text = np.full((1, length), PAD, np.int32)
        text[0, : len(tokens)] = tokens
        count = np.array([len(tokens)], np.int32)
        with self._turns.on_device:
            image = pixels[None]
            if self._sharding is not None:
                image = jax.device_put(image, self._sharding)
            read = read_inputs(config, config.dtype, None, params, image, text, count)
            prompt, hidden = jax.block_until_ready(read)
        return Begun(prompt, hidden, key, config.vision.num_tokens + len(tokens))


def _pixels(encoded: bytes) -> int:
    """Returns the number of pixels that the header of an image tells of."""
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            return image.width * image.height
    except Exception:  # a decoder may raise anything, given hostile bytes
        return _LARGE
