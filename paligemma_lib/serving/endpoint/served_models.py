"""The models of a server, by name: base models, each with an engine of its own, and adapters.

models = ServedModels({"nano": engine})
models.named("nano"), models.named(None)        # None: the first one
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from paligemma_lib.serving.endpoint.api_errors import ApiError
from paligemma_lib.serving.engine import Engine


class Served(NamedTuple):
    """A model that clients may ask for.

    Attributes:
      name: its name.
      base: name of its engine, which is its own unless it is an adapter.
      engine: the engine.
      adapter: name of the adapter there; None: it is the base model.
    """

    name: str
    base: str
    engine: Engine
    adapter: str | None = None


class ServedModels:
    """What clients may ask for, by the names that they know.

    Attributes:
      engines: name of the base model -> engine; the first one is the default.
      created: when the server began, in seconds since 1970.
    """

    def __init__(self, engines: Mapping[str, Engine]):
        """Takes at least one engine; their adapters are models beside them.

        Raises:
          ValueError: there is no engine, or two models have one name.
        """
        if not engines:
            raise ValueError("ServedModels: there is no engine, expected at least one")
        self.engines = dict(engines)
        self.created = int(time.time())
        self._models = {name: Served(name, name, engine) for name, engine in engines.items()}
        for base, engine in engines.items():
            for adapter in engine.adapters:
                if adapter in self._models:
                    raise ValueError(f"ServedModels: two models are named {adapter!r}")
                self._models[adapter] = Served(adapter, base, engine, adapter)

    def named(self, name: str | None) -> Served:
        """Returns a model.

        Raises:
          ApiError: there is no model of this name.
        """
        name = name or next(iter(self.engines))
        if name not in self._models:
            raise ApiError(
                404,
                f"There is no model {name!r:.80}, only {', '.join(self._models)}.",
                param="model",
                code="model_not_found",
            )
        return self._models[name]

    def all(self) -> list[Served]:
        """Returns all models."""
        return list(self._models.values())

    def drain(self, seconds: float) -> None:
        """Has all engines end what is there, in so many seconds together; see `Engine.drain`."""
        end = time.monotonic() + seconds
        for engine in self.engines.values():
            engine.drain(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Closes all engines, whose threads end side by side."""
        for engine in self.engines.values():
            engine.stop()
        for engine in self.engines.values():
            engine.close()
