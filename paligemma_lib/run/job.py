"""Runs the whole job: prepare, train (and validate), export.

code = finetune(config)          # 0, or 130 or 143 when it was stopped and can go on
"""

import contextlib
import logging
from collections.abc import Mapping

import jax

from paligemma_lib import hub
from paligemma_lib.data.sources import Source
from paligemma_lib.run.captioning import captions_before
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.export import export
from paligemma_lib.run.prepare import prepare
from paligemma_lib.run.setup import Setup
from paligemma_lib.run.trackers import trackers_of
from paligemma_lib.run.train import train
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.locks import locked
from paligemma_lib.runtime.signals import stop_if_asked
from paligemma_lib.train.tracking import Trackers

_log = logging.getLogger(__name__)


def finetune(config: RunConfig, data: Mapping[str, Source] | None = None) -> int:
    """Runs the whole job, or resumes it from its workdir; returns the exit code.

    Args:
      config: the run.
      data: sources for "train", "validation" and "test", instead of the sources that `config`
        names.

    Returns:
      0 when the run is complete, or 130 or 143 when Ctrl-C or SIGTERM stopped it and it can be
      resumed.

    Raises:
      ChecksFailed: checks before the start fail. The message lists all that fail.
      ValueError, OSError: the run fails later, or another run uses the workdir.
    """
    is_main = jax.process_index() == 0
    with locked(path_of(config.workdir)) if is_main else contextlib.nullcontext():
        prepared = prepare(Setup(config, data))
        if is_main and prepared.setup.knows_too_little:
            _log.warning(hub.NANO_KNOWS)
        stop_if_asked()
        before = captions_before(prepared)
        stop_if_asked()
        with Trackers(trackers_of(config) if is_main else ()) as trackers:
            outcome = train(prepared, trackers)
            if outcome.stopped:
                return outcome.stopped
            export(prepared, outcome, before, trackers)
        return 0
