"""Bounds of what a client may send, and how long it may take.

limits = Limits(max_image_bytes=5 << 20, keys=keys_of(os.environ))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.runtime.bounds import real, whole

KEYS = "PALIGEMMA_API_KEYS"  # environment variable: keys, with commas between them
_SHORTEST = 16  # characters of a key


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of an endpoint.

    Attributes:
      max_image_bytes: of an encoded image.
      max_choices: largest `n`.
      max_requests: requests at a time, of all clients.
      max_bytes: bytes of requests in memory, of all clients.
      head_seconds: time for the head of a request, from the connection or its first byte.
      body_seconds: time for the body of a request.
      send_seconds: time in which a client must take a part of the answer.
      caption_seconds: time for a caption, in the queue and in the model.
      drain_seconds: time for requests that are there when the server is to end.
      keys: API keys; empty: everybody may ask.
    """

    max_image_bytes: int = 20 << 20
    max_choices: int = 8
    max_requests: int = 512
    max_bytes: int = 512 << 20
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    send_seconds: float = 30.0
    caption_seconds: float = 120.0
    drain_seconds: float = 30.0
    keys: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        whole("Limits: max_image_bytes", self.max_image_bytes, 1, MAX_IMAGE_BYTES)
        for name in ("max_choices", "max_requests", "max_bytes"):
            whole(f"Limits: {name}", getattr(self, name), 1)
        for name in ("head_seconds", "body_seconds", "send_seconds", "caption_seconds"):
            real(f"Limits: {name}", getattr(self, name), above=0)
        real("Limits: drain_seconds", self.drain_seconds, least=0)

    @property
    def max_body_bytes(self) -> int:
        """Bytes of a request: an image in base64, and 64 KiB for everything else."""
        return self.max_image_bytes * 4 // 3 + (64 << 10)


def keys_of(environment: Mapping[str, str]) -> frozenset[str]:
    """Returns the API keys of the environment variable `KEYS`.

    Raises:
      ValueError: a key is so short that it could be guessed, or cannot stand in a header.
    """
    keys = [key.strip() for key in environment.get(KEYS, "").split(",")]
    keys = [key for key in keys if key]
    for number, key in enumerate(keys):
        if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"{KEYS}: key {number} has {len(key)} characters, expected at least {_SHORTEST} "
                "printable ASCII characters without spaces; make one with: openssl rand -hex 24"
            )
    return frozenset(keys)
