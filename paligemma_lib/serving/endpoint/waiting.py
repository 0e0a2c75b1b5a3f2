"""Waits for a job in an event loop, and cancels it when its client leaves.

async for answer in news(job):
    ...
answer = await outcome(job, request)        # or raises ApiError
answer = await while_connected(request, anything())
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from starlette.requests import Request

from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.endpoint.api_errors import failure
from paligemma_lib.serving.jobs import Job


class ClientLeft(Exception):
    """Raised when nobody waits for the answer any more."""


async def news(job: Job) -> AsyncGenerator[Answer, None]:
    """Yields answers as they change, the last one over; cancels the job if not read to its end."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(changed.set)

    job.add_listener(wake)
    seen: Answer | None = None
    try:
        while seen is None or not seen.over:
            await changed.wait()
            changed.clear()
            if job.answer is not seen:
                seen = job.answer
                yield seen
    finally:
        job.cancel()  # does nothing to a job that is over


async def outcome(job: Job, request: Request) -> Answer:
    """Waits for the end of a job.

    Raises:
      ApiError: there is no caption.
      ClientLeft: the client has closed its connection.
    """

    async def last() -> Answer:
        async for _ in news(job):
            pass
        return job.answer

    try:
        answer = await while_connected(request, last())
    finally:
        job.cancel()
    if answer.problem is not None:
        raise failure(answer)
    return answer


async def while_connected(request: Request, coming: Coroutine[Any, Any, Answer]) -> Answer:
    """Waits for an answer, as long as somebody waits for it.

    Raises:
      ClientLeft: the client has closed its connection; what was waited for is cancelled.
    """
    end = asyncio.ensure_future(coming)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            raise ClientLeft
        return end.result()
    finally:
        for task in (end, gone):
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
