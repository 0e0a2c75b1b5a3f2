"""Answers what is no caption: health, readiness, metrics, the models, and the API's description."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from paligemma_lib.serving.endpoint.openapi import document, page
from paligemma_lib.serving.endpoint.served_models import Served
from paligemma_lib.serving.endpoint.server_state import ServerState


async def healthz(request: Request) -> Response:
    """200 while captions can be expected, now or once models are loaded; else 503: restart it."""
    state: ServerState = request.app.state.server
    problems = {
        name: "could not be loaded" if engine.problem else "captions fail, or do not come"
        for name, engine in state.models.engines.items()
        if not engine.healthy
    }
    return JSONResponse({"healthy": not problems, "problems": problems}, 503 if problems else 200)


async def readyz(request: Request) -> Response:
    """200 once all models are loaded and compiled; else 503: send clients elsewhere."""
    state: ServerState = request.app.state.server
    engines = state.models.engines.items()
    waiting = [name for name, engine in engines if not (engine.ready and engine.healthy)]
    problems = {
        program.adapter or name: problem
        for name, engine in engines
        for program, problem in engine.program_problems.items()
    }
    told = {"ready": not waiting, "not_ready": waiting, "problems": problems}
    return JSONResponse(told, 503 if waiting else 200)


async def metrics(request: Request) -> Response:
    """Metrics in Prometheus's text format."""
    state: ServerState = request.app.state.server
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def models(request: Request) -> Response:
    """The models by name, in OpenAI's form."""
    state: ServerState = request.app.state.server
    found = [_described(state, model) for model in state.models.all()]
    return JSONResponse({"object": "list", "data": found})


async def model(request: Request) -> Response:
    """One model, in OpenAI's form."""
    state: ServerState = request.app.state.server
    found = state.models.named(request.path_params["name"])
    return JSONResponse(_described(state, found))


async def openapi(_: Request) -> Response:
    """The API's description, as OpenAPI has it."""
    return JSONResponse(document())


async def docs(_: Request) -> Response:
    """The API's description as a page."""
    return HTMLResponse(page())


def _described(state: ServerState, model: Served) -> dict[str, object]:
    created = state.models.created
    told = {"id": model.name, "object": "model", "created": created, "owned_by": "paligemma_lib"}
    return told | ({"parent": model.base} if model.adapter else {})
