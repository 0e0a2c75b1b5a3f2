"""Answers `POST /caption`: an image as curl uploads it, and a caption as plain JSON.

curl -F image=@dog.jpg http://127.0.0.1:8000/caption
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from paligemma_lib.serving.endpoint.api_errors import ApiError
from paligemma_lib.serving.endpoint.asked import MAX_BEAMS, PROMPT, Asked
from paligemma_lib.serving.endpoint.server_state import ServerState
from paligemma_lib.serving.endpoint.waiting import outcome

_FIELD_BYTES = 8 << 10


class CaptionForm(BaseModel):
    """The fields beside the image."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=512)
    prompt: str = Field(PROMPT, max_length=4096)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1, description="needs temperature")
    beams: int | None = Field(None, ge=1, le=MAX_BEAMS)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)


async def caption(request: Request) -> Response:
    """Captions an uploaded image."""
    state: ServerState = request.app.state.server
    image, fields = await _form(request, state.limits.max_image_bytes)
    try:
        form = CaptionForm.model_validate(fields)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise ApiError(400, f"{where}: {first['msg']}; see /docs", param=where) from None
    model = state.models.named(form.model)
    values = form.model_dump(exclude={"model"})
    job = Asked(image, **values).submit(
        model, request.state.client, state.limits.caption_seconds
    )  # fmt: skip
    answer = await outcome(job, request)
    state.metrics.captioned(job)
    assert answer.caption is not None
    return JSONResponse(
        {
            "caption": answer.caption.text,
            "logprob": round(sum(answer.caption.logprobs), 4),
            "tokens": len(answer.caption.tokens),
            "model": model.name,
            "seconds": round(answer.seconds, 4),
        }
    )


async def _form(request: Request, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Returns the image and the other fields.

    Raises:
      ApiError: the body is no form, or has no image or several.
    """
    if not request.headers.get("Content-Type", "").startswith("multipart/form-data"):
        raise ApiError(
            415, "the body is no multipart/form-data: use curl -F image=@dog.jpg", param="image"
        )
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=1, max_fields=16, max_part_size=_FIELD_BYTES
    )
    parser.spool_max_size = max_bytes + 1  # uploads never reach the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeError) as error:
        raise ApiError(400, f"the form is damaged: {error}") from None
    try:
        items = dict(form.multi_items())
        image = items.pop("image", None)
        if not isinstance(image, UploadFile) or len(items) + 1 != len(form.multi_items()):
            raise ApiError(
                400, "the form needs one file named image, and each field once", param="image"
            )
        if (image.size or 0) > max_bytes:
            raise ApiError(413, f"the image has more than {max_bytes:,} bytes", param="image")
        return await image.read(), {name: str(value) for name, value in items.items()}
    finally:
        await form.close()
