"""The body of a chat completion, in OpenAI's form, and what it asks for.

asked = ChatRequest.model_validate_json(body).asked(max_image_bytes=20 << 20)
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paligemma_lib.serving.endpoint.api_errors import ApiError
from paligemma_lib.serving.endpoint.asked import MAX_BEAMS, PROMPT, Asked

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, values: Any) -> Any:
        """Drops fields that ask for nothing, which some clients send: null, and [] or {}."""
        if not isinstance(values, dict):
            return values
        return {
            name: value
            for name, value in values.items()
            if value is not None and (name in cls.model_fields or value not in ([], {}))
        }


class TextPart(_Part):
    """Text: the prompt."""

    type: Literal["text"]
    text: str = Field(max_length=4096)


class ImageUrl(_Part):
    """An address of an image."""

    url: str = Field(description="data:image/...;base64,...", repr=False)
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Part):
    """The image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(_Part):
    """A message of the user: one image, and perhaps a prompt."""

    role: Literal["user"]
    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] = Field(
        min_length=1, max_length=8
    )
    name: str | None = None


class StreamOptions(_Part):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(_Part):
    """A chat completion: one image and a prompt, such as "caption en"; the answer is a caption.

    The model sees one image and one prompt, and no conversation. Fields of OpenAI's API that are
    not here would have no effect, and are refused.
    """

    model: str | None = Field(None, max_length=512)
    messages: list[Message] = Field(min_length=1, max_length=1)
    n: int = Field(1, ge=1, le=128)
    temperature: float | None = Field(None, ge=0, le=2, description="0, as by default: greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="needs temperature")
    beams: int | None = Field(None, ge=1, le=MAX_BEAMS, description="a beam search; not of OpenAI")
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = Field(False, description="with beams, all text comes at the end")
    stream_options: StreamOptions | None = None
    logprobs: bool | None = False
    top_logprobs: Literal[0] | None = None
    user: str | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None

    def asked(self, max_image_bytes: int, max_choices: int) -> Asked:
        """Returns what is asked for.

        Raises:
          ApiError: there is no image or there are several, or it is not given as data.
        """
        parts = self.messages[0].content
        images = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
        if len(images) != 1:
            raise ApiError(
                400, f"the message has {len(images)} images, expected one", param="messages"
            )
        if self.n > max_choices:
            raise ApiError(400, f"n={self.n}, expected at most {max_choices}", param="n")
        text = " ".join(part.text for part in parts if isinstance(part, TextPart)).strip()
        return Asked(
            image_of(images[0], max_image_bytes),
            text or PROMPT,
            self.temperature,
            self.top_p,
            self.n,
            self.beams,
            self.max_completion_tokens or self.max_tokens,
            self.seed,
            # The best beam changes to the last token: what is sent of it could not be taken back.
            bool(self.stream) and self.beams is None,
        )


def parse(body: bytes) -> ChatRequest:
    """Returns the request that a body holds.

    Raises:
      ApiError: it is no JSON, or has fields that are missing, unknown or out of range.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ApiError(
            400, f"{where or 'the body'}: {first['msg']}{more}; see /docs", param=where or None
        ) from None


def image_of(url: str, max_bytes: int) -> bytes:
    """Returns the bytes of an image that is given as a data URL.

    Raises:
      ApiError: it is another address, damaged, or too large.
    """
    head = _DATA_URL.match(url)
    if head is None:
        raise ApiError(
            400,
            f"image_url begins with {url[:24]!r}, expected data:image/jpeg;base64,...: this "
            "server fetches no images; send the bytes",
            param="messages",
            code="invalid_image_url",
        )
    if (len(url) - head.end()) * 3 // 4 > max_bytes + 2:
        raise ApiError(
            413, f"the image has more than {max_bytes:,} bytes: save a smaller copy",
            param="messages", code="image_too_large",
        )  # fmt: skip
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            400, "image_url is no valid base64", param="messages", code="invalid_image_url"
        ) from None
