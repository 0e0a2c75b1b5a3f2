"""Puts the endpoint together: routes, errors, and what stands before them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from paligemma_lib.serving.endpoint import status_endpoints
from paligemma_lib.serving.endpoint.api_errors import ApiError, left, told
from paligemma_lib.serving.endpoint.caption_endpoint import caption
from paligemma_lib.serving.endpoint.chat_endpoint import chat_completions
from paligemma_lib.serving.endpoint.guard import Guard
from paligemma_lib.serving.endpoint.limits import Limits
from paligemma_lib.serving.endpoint.prometheus import Metrics
from paligemma_lib.serving.endpoint.served_models import ServedModels
from paligemma_lib.serving.endpoint.server_state import ServerState
from paligemma_lib.serving.endpoint.waiting import ClientLeft


def make_app(models: ServedModels, limits: Limits) -> ASGIApp:
    """Returns an ASGI app, which closes the models when it ends.

    Args:
      models: the engines by name.
      limits: what clients may do.
    """
    state = ServerState(models, limits, Metrics(models))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        models.close()

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/caption", caption, methods=["POST"]),
            Route("/v1/models", status_endpoints.models),
            Route("/v1/models/{name:path}", status_endpoints.model),
            Route("/healthz", status_endpoints.healthz),
            Route("/readyz", status_endpoints.readyz),
            Route("/metrics", status_endpoints.metrics),
            Route("/openapi.json", status_endpoints.openapi),
            Route("/docs", status_endpoints.docs),
        ],
        exception_handlers={
            ApiError: told,
            HTTPException: told,
            Exception: told,
            ClientDisconnect: left,
            ClientLeft: left,
        },
        lifespan=lifespan,
    )
    app.state.server = state
    return Guard(app, state)
