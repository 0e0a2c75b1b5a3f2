"""Answers `POST /v1/chat/completions`, at once or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from paligemma_lib.batch import EOS
from paligemma_lib.decode import Caption
from paligemma_lib.runtime.strict_json import dumps
from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.endpoint.api_errors import failure
from paligemma_lib.serving.endpoint.chat_request import ChatRequest, parse
from paligemma_lib.serving.endpoint.server_state import ServerState
from paligemma_lib.serving.endpoint.waiting import news, outcome, while_connected
from paligemma_lib.tokenizer import Tokenizer

_LARGE = 1 << 18  # bytes of a body that would keep the event loop from other clients
_AT_ONCE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies pass events on


async def chat_completions(request: Request) -> Response:
    """Captions the image of a chat completion."""
    state: ServerState = request.app.state.server
    body, limits = await request.body(), state.limits

    def read() -> tuple[ChatRequest, Any]:
        chat = parse(body)
        return chat, chat.asked(limits.max_image_bytes, limits.max_choices)

    chat, asked = await asyncio.to_thread(read) if len(body) > _LARGE else read()
    model = state.models.named(chat.model)
    job = asked.submit(model, request.state.client, limits.caption_seconds)
    reply = _Reply(model.name, chat)
    if chat.stream:
        begun = news(job)
        try:
            first = await while_connected(request, _first(begun))
        except BaseException:
            job.cancel()
            raise
        if first.problem is not None:  # an image that is damaged is a 400
            raise failure(first)
        state.metrics.first_text(job)
        events = _events(reply, first, begun, model.engine.captioner)
        return StreamingResponse(events, media_type="text/event-stream", headers=_AT_ONCE)
    answer = await outcome(job, request)
    state.metrics.captioned(job)
    assert model.engine.captioner is not None
    return JSONResponse(reply.whole(answer, model.engine.captioner.tokenizer))


class _Reply:
    """The objects of an answer, which share an id, a model and a time."""

    def __init__(self, model: str, chat: ChatRequest):
        self._chat = chat
        self._same = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
        """Returns the answer as one object."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": each.text, "refusal": None},
                "finish_reason": finish_reason(each),
                "logprobs": self._logprobs(each, tokenizer),
            }
            for index, each in enumerate(_choices(answer))
        ]
        return self._object("chat.completion", choices) | {"usage": usage(answer)}

    def delta(self, index: int, delta: dict[str, str]) -> dict[str, Any]:
        """Returns an object of a stream, with more text of a choice."""
        choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}
        return self._object("chat.completion.chunk", [choice])

    def last(self, answer: Answer, tokenizer: Tokenizer) -> list[dict[str, Any]]:
        """Returns the last objects of a stream."""
        choices = [
            {
                "index": index,
                "delta": {},
                "finish_reason": finish_reason(each),
                "logprobs": self._logprobs(each, tokenizer),
            }
            for index, each in enumerate(_choices(answer))
        ]
        found = [self._object("chat.completion.chunk", [choice]) for choice in choices]
        if self._chat.stream_options and self._chat.stream_options.include_usage:
            found.append(self._object("chat.completion.chunk", []) | {"usage": usage(answer)})
        return found

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._same, "object": kind, "choices": choices}

    def _logprobs(self, caption: Caption, tokenizer: Tokenizer) -> dict[str, Any] | None:
        if not self._chat.logprobs:
            return None
        content = []
        for token, logprob in zip(caption.tokens, caption.logprobs, strict=True):
            if token != EOS:
                text = tokenizer.decode([token])
                content.append(
                    {
                        "token": text,
                        "logprob": logprob,
                        "bytes": list(text.encode()),
                        "top_logprobs": [],
                    }
                )
        return {"content": content, "refusal": None}


def finish_reason(caption: Caption) -> str:
    """Returns why a caption ends: "stop" or "length"."""
    return "stop" if caption.tokens[-1:] == (EOS,) else "length"


def usage(answer: Answer) -> dict[str, int]:
    """Returns numbers of tokens: of image and prompt, and of all choices."""
    written = sum(len(each.tokens) for each in _choices(answer))
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": answer.prompt_tokens + written,
    }


def _choices(answer: Answer) -> tuple[Caption, ...]:
    assert answer.caption is not None
    return answer.rows or (answer.caption,)


async def _first(begun: AsyncIterator[Answer]) -> Answer:
    """Returns the first answer that shows text, or is over."""
    while True:
        answer = await anext(begun)
        if answer.prompt_tokens or answer.over:
            return answer


async def _events(
    reply: _Reply, first: Answer, begun: AsyncGenerator[Answer, None], captioner: Any
) -> AsyncIterator[str]:
    sent = [""] * max(1, len(first.texts))
    answer = first
    for index in range(len(sent)):
        yield _event(reply.delta(index, {"role": "assistant", "content": ""}))
    try:
        while True:
            for index, text in enumerate(answer.texts):
                # Text only grows, but for what decodes otherwise with its next token.
                if text.startswith(sent[index]) and len(text) > len(sent[index]):
                    yield _event(reply.delta(index, {"content": text[len(sent[index]) :]}))
                    sent[index] = text
            if answer.over:
                break
            answer = await anext(begun)
        if answer.problem is not None:
            yield _event(failure(answer).body())
            return
        for each in reply.last(answer, captioner.tokenizer):
            yield _event(each)
        yield "data: [DONE]\n\n"
    finally:
        await begun.aclose()  # cancels a job that is not over


def _event(value: dict[str, Any]) -> str:
    return f"data: {dumps(value)}\n\n"
