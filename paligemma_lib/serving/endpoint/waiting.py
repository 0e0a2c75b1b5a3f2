"""Waits for a job in an event loop, and cancels it when its client leaves.

async for answer in news(job):
    ...
answer = await outcome(job, request)        # or raises ApiError
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.endpoint.api_errors import failure
from paligemma_lib.serving.jobs import Job


class ClientLeft(Exception):
    """Raised when nobody waits for the answer any more."""


async def news(job: Job) -> AsyncIterator[Answer]:
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

    end = asyncio.ensure_future(last())
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            raise ClientLeft
        answer = end.result()
    finally:
        for task in (end, gone):
            task.cancel()
        job.cancel()
    if answer.problem is not None:
        raise failure(answer)
    return answer


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
