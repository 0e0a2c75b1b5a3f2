"""Checks whether a run can start, and says what to fix if it cannot.

  paligemma doctor                                # the demo: this installation
  paligemma doctor --config=flickr8k --config.batch_size=16

Runs the checks that `paligemma finetune` starts with, but reads captions for ten seconds only.
Each process checks its own machine; the first prints all checks, the others those that fail.
"""

import argparse

from paligemma_lib.cli.console import load_tensorflow
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible

TIMEOUT = 4.0  # seconds for each check that uses the network
SECONDS = 10.0  # for reading the captions of each source


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.takes_config()
    parser.takes_processes()


def run(args: argparse.Namespace) -> int:
    """Runs and prints all checks; returns the exit code, which is the same in all processes."""
    load_tensorflow()
    import jax

    from paligemma_lib.run import Setup, run_checks
    from paligemma_lib.runtime import processes

    with processes.joined(args.coordinator, args.processes, args.process):
        is_main = jax.process_index() == 0
        where = "" if is_main else f" (process {jax.process_index()})"
        made = failed = 0
        for finding in run_checks(Setup(args.config, seconds=SECONDS), TIMEOUT):
            made += 1
            failed += not finding.passed
            if is_main or not finding.passed:
                mark = "ok  " if finding.passed else "FAIL"
                text = visible(" ".join(finding.text.split()))
                print(f"{mark} {finding.name:<10} {text}{where}", flush=True)
        failed = max(int(each) for each in processes.gather(b"%d" % failed))
        if is_main:
            print(f"{failed} of {made} checks failed" if failed else "everything is in place")
        return 1 if failed else 0
