"""Runs the endpoint with uvicorn, until SIGTERM or Ctrl-C.

run(app, models, host="127.0.0.1", port=8000, limits=Limits())

At a signal it takes no more connections, and answers the requests that are there: with a caption,
or after `drain_seconds` with an error. Then the signal takes its way: exit code 143 or 130.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from paligemma_lib.serving.endpoint.limits import Limits
from paligemma_lib.serving.endpoint.served_models import ServedModels

_HEAD_BYTES = 16 << 10
_KEEP_ALIVE = 15  # seconds until an idle connection is closed
_LAST_ANSWERS = 5  # seconds for errors to reach the clients of captions that took too long


def run(app: ASGIApp, models: ServedModels, *, host: str, port: int, limits: Limits) -> None:
    """Serves until a signal comes.

    Args:
      app: from `make_app`.
      models: those of the app.
      host, port: where to listen.
      limits: those of the app.

    Raises:
      OSError: nobody can listen there.
    """

    DrainingServer(config_of(app, host=host, port=port, limits=limits), models, limits).run()


class DrainingServer(uvicorn.Server):
    """Answers what is there before it ends; also requests whose body is still coming."""

    def __init__(self, config: uvicorn.Config, models: ServedModels, limits: Limits):
        """Takes uvicorn's configuration, and the models and limits of its app."""
        super().__init__(config)
        self._models, self._limits = models, limits

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more requests, answers those that have begun, and closes the engines."""
        answering = asyncio.create_task(super().shutdown(sockets))
        await asyncio.wait({answering}, timeout=self._limits.drain_seconds)
        # uvicorn waits a little longer, for those that are told now that there is no time left.
        await asyncio.to_thread(self._models.drain, 0.0)
        await answering


def config_of(app: ASGIApp, *, host: str, port: int, limits: Limits) -> uvicorn.Config:
    """Returns uvicorn's configuration, for `run` and for tests."""

    class Protocol(_TimedProtocol):
        head_seconds = limits.head_seconds

    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=round(limits.drain_seconds) + _LAST_ANSWERS,
    )


class _TimedProtocol(H11Protocol):
    """Closes connections on which no whole head of a request comes in time.

    uvicorn itself waits for it forever: a few thousand such connections would be all there can be.
    """

    head_seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm()
        elif self._timer is None:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def on_response_complete(self) -> Any:
        self._disarm()
        return super().on_response_complete()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
