"""What all requests of a server share."""

from __future__ import annotations

import dataclasses

from paligemma_lib.serving.endpoint.limits import Limits
from paligemma_lib.serving.endpoint.prometheus import Metrics
from paligemma_lib.serving.endpoint.served_models import ServedModels


@dataclasses.dataclass(frozen=True)
class ServerState:
    """What all requests of a server share.

    Attributes:
      models: the engines.
      limits: bounds.
      metrics: what is counted.
    """

    models: ServedModels
    limits: Limits
    metrics: Metrics
