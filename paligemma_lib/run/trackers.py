"""Starts the trackers that a config names: those of the library, or a user's own.

with Trackers(trackers_of(config)) as trackers:      # in the main process alone
    trackers.scalars({"test/CIDEr": 87.4}, step=1200)
"""

import logging

from paligemma_lib.run.config import TRACKERS, RunConfig
from paligemma_lib.run.dotted import load_dotted
from paligemma_lib.train import Tracker

_log = logging.getLogger(__name__)


def trackers_of(config: RunConfig) -> list[Tracker]:
    """Starts the trackers that a config names; one that fails is logged and left out.

    Each goes on with the run that an earlier start of this workdir began at the service.

    Raises:
      ConfigError: the import of one fails.
    """
    paths = [TRACKERS.get(name, name) for name in dict.fromkeys(config.trackers)]
    kinds = [load_dotted(path, "trackers") for path in paths]
    found = []
    for kind in kinds:
        try:
            found.append(kind(config.workdir, config.to_dict()))
        except Exception as error:  # the client of a service may raise anything
            name = getattr(kind, "__name__", repr(kind))
            _log.warning("%s cannot be started: %s: %s", name, type(error).__name__, error)
    return found
