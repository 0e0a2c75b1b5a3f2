"""Runs the whole job: prepare, train (and validate), export.

code = finetune(config)          # 0, or 143 when it was stopped and can go on
"""

from collections.abc import Mapping

from paligemma_lib.data.sources import Source
from paligemma_lib.run.captioning import captions_before
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.export import export
from paligemma_lib.run.prepare import prepare
from paligemma_lib.run.setup import Setup
from paligemma_lib.run.train import train
from paligemma_lib.runtime.termination import EXIT_CODE


def finetune(config: RunConfig, data: Mapping[str, Source] | None = None) -> int:
    """Runs the whole job, or resumes it from its workdir; returns the exit code.

    Args:
      config: the run.
      data: sources for "train", "validation" and "test", instead of the sources that `config`
        names.

    Returns:
      0 when the run is complete, or 143 when SIGTERM stopped it and it can be resumed.

    Raises:
      ChecksFailed: checks before the start fail. The message lists all that fail.
      ValueError, OSError: the run fails later.
    """
    prepared = prepare(Setup(config, data))
    before = captions_before(prepared)
    outcome = train(prepared)
    if outcome.stopped:
        return EXIT_CODE
    export(prepared, outcome, before)
    return 0
