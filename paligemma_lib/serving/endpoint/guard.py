"""Stands before all requests: keys, sizes, slow clients, and how many there are at a time.

app = Guard(app, state)
"""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paligemma_lib.serving.endpoint.api_errors import ApiError
from paligemma_lib.serving.endpoint.server_state import ServerState
from paligemma_lib.serving.endpoint.waiting import ClientLeft

# Without a key: for a cluster, and for a browser, which has none. They tell nothing secret.
_OPEN = ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
_CAPTIONS = ("/v1/chat/completions", "/caption")
_PATHS = (*_OPEN, *_CAPTIONS, "/v1/models")
_STRANGER_SECONDS = 1.0  # for the rest of a body that comes without a key


class Guard:
    """ASGI middleware. It answers by itself what is refused; the app sees the rest.

    It sets `request.state.client`: who is asking, as clients take turns.
    """

    def __init__(self, app: ASGIApp, state: ServerState):
        """Takes the app behind it, and what requests share."""
        self._app = app
        self._state = state
        self._requests = self._bytes = 0  # at present

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(self._state, receive, send)
        begin, path = time.monotonic(), scope["path"]
        counted = False
        try:
            try:
                scope.setdefault("state", {})["client"] = self._client(scope)
                self._check(scope)
                self._requests += 1
                counted = True
                await self._app(scope, self._counted(passage), passage.send)
            except ApiError as error:
                if not passage.status:
                    await self._refuse(error, passage, scope, receive)
        except Exception:
            # `told` has answered and logged it. Of an answer that had begun, the rest is missing,
            # which the client sees by its length; one that has left sees nothing.
            if not passage.status:
                raise
        finally:
            self._requests -= counted
            self._bytes -= passage.bytes
            path = path if path in _PATHS else "other"
            self._state.metrics.answered(path, passage.status, time.monotonic() - begin)

    async def _refuse(
        self, error: ApiError, passage: _Passage, scope: Scope, receive: Receive
    ) -> None:
        """Answers what does not reach the app, and so does not count among requests."""
        limits = self._state.limits
        if error.status == 401:
            passage.hurry(_STRANGER_SECONDS)
        await passage.discard(limits.max_body_bytes)
        response = error.response()
        if not passage.is_whole:
            response.headers["Connection"] = "close"
        await response(scope, receive, passage.send)

    def _client(self, scope: Scope) -> str:
        """Returns who is asking, by key or by address.

        Raises:
          ApiError: the key is missing or wrong.
        """
        keys, host = self._state.limits.keys, (scope.get("client") or ("",))[0]
        if not keys or scope["path"] in _OPEN:
            return str(host)
        header = dict(scope["headers"]).get(b"authorization", b"")
        given = header.removeprefix(b"Bearer ").strip()
        # All keys are compared, each in constant time: how long it takes tells nothing.
        found = [key for key in keys if hmac.compare_digest(key.encode(), given)]
        if not found:
            raise ApiError(
                401, "the API key is missing or wrong: send Authorization: Bearer KEY",
                code="invalid_api_key",
            )  # fmt: skip
        return found[0]

    def _check(self, scope: Scope) -> None:
        limits = self._state.limits
        if self._requests >= limits.max_requests and scope["path"] not in _OPEN:
            raise ApiError(
                429, f"{limits.max_requests} requests are being answered: try again later",
                code="busy", retry_after=1,
            )  # fmt: skip
        # Refused here, a request costs a tenth of what it takes to read what it asks for. So a
        # server that gets many times what it can do has time left to say so.
        engines = self._state.models.engines.values()
        if scope["path"] in _CAPTIONS and all(each.is_full for each in engines):
            raise ApiError(
                429, "too many images are waiting already: try again later", code="busy",
                retry_after=1,
            )  # fmt: skip
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > limits.max_body_bytes:
            raise _too_large(limits.max_body_bytes)

    def _counted(self, passage: _Passage) -> Receive:
        async def receive() -> Message:
            message = await passage.receive()
            size = len(message.get("body", b""))
            passage.bytes += size
            self._bytes += size
            limits = self._state.limits
            if passage.bytes > limits.max_body_bytes:
                raise _too_large(limits.max_body_bytes)
            if self._bytes > limits.max_bytes:
                raise ApiError(
                    429, "requests take too much memory: try again later", code="busy",
                    retry_after=1,
                )  # fmt: skip
            return message

        return receive


class _Passage:
    """A request on its way in, and its answer on its way out."""

    def __init__(self, state: ServerState, receive: Receive, send: Send):
        self._limits = state.limits
        self._receive, self._send = receive, send
        self._end = time.monotonic() + state.limits.body_seconds
        self.is_whole = False
        self.bytes = self.status = 0

    async def receive(self) -> Message:
        if self.is_whole:  # what comes now is that the client leaves
            return await self._receive()
        left = self._end - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError:
            raise ApiError(
                408, f"the body took more than {self._limits.body_seconds:g} s", code="timeout"
            ) from None
        self.is_whole = not message.get("more_body", False)
        return message

    def hurry(self, seconds: float) -> None:
        """Leaves at most so many seconds for the rest of the body."""
        self._end = min(self._end, time.monotonic() + seconds)

    async def discard(self, most: int) -> None:
        """Reads the rest of a body of up to `most` bytes, to no purpose but that it is gone.

        A connection that is closed with bytes unread is reset, and the client might lose the answer
        that was sent before.
        """
        size = self.bytes
        try:
            while not self.is_whole and size <= most:
                message = await self.receive()
                size += len(message.get("body", b""))
        except ApiError:
            pass  # it takes too long

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        # A client that takes nothing is cut off: the error ends its connection.
        try:
            await asyncio.wait_for(self._send(message), self._limits.send_seconds)
        except TimeoutError:
            raise ClientLeft from None


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body has more than {most:,} bytes", code="body_too_large")
