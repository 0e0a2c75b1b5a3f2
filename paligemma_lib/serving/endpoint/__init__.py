"""The engine over HTTP: chat completions in OpenAI's form, uploads with curl, health and metrics.

    models = ServedModels({"nano": Engine(lambda: pg.captioner.load("nano"))})
    run(make_app(models, Limits()), models, host="127.0.0.1", port=8000, limits=Limits())

It needs `pip install "paligemma_lib[serve]"`: starlette, uvicorn, prometheus_client.
"""

from paligemma_lib.serving.endpoint.application import make_app
from paligemma_lib.serving.endpoint.http_server import run
from paligemma_lib.serving.endpoint.limits import Limits
from paligemma_lib.serving.endpoint.served_models import ServedModels

__all__ = ["Limits", "ServedModels", "make_app", "run"]
