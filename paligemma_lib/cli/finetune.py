"""Fine-tunes a model to caption images, from data to a report, on one machine or many.

  paligemma finetune                              # a demo: drawn scenes, nano
  paligemma finetune --config=flickr8k --config.workdir=runs/mine

Checkpoints, metrics, the exported model and report.html are written to the config's workdir. After
a stop or a kill, the same command resumes the run, also with another number of processes.
"""

import argparse

from paligemma_lib.cli.console import load_tensorflow
from paligemma_lib.cli.parser import Parser


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.takes_config()
    parser.takes_processes()


def run(args: argparse.Namespace) -> int:
    """Runs or resumes the job; returns the exit code."""
    from paligemma_lib.runtime import processes

    load_tensorflow()
    with processes.joined(args.coordinator, args.processes, args.process):
        from paligemma_lib.run import finetune

        return finetune(args.config)
