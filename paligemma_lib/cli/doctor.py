"""Says whether a run can start, and what to do where it cannot.

  paligemma doctor                                # the demo: this installation
  paligemma doctor --config=flickr8k --config.batch_size=16

Makes the checks that `paligemma finetune` begins with, of the captions on some records. Of several
processes, each checks its own machine; the first speaks, and the others tell what fails.
"""

import argparse

from paligemma_lib.cli.console import load_tensorflow, printable
from paligemma_lib.cli.parser import Parser

TIMEOUT = 4.0  # seconds for each check that asks a network
RECORDS = 500  # of each source whose captions are looked at


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.takes_config()
    parser.takes_processes()


def run(args: argparse.Namespace) -> int:
    """Makes all checks and prints a line for each; returns the exit code, the same in all."""
    load_tensorflow()
    import jax

    from paligemma_lib.run import Setup, run_checks
    from paligemma_lib.runtime import processes

    with processes.joined(args.coordinator, args.processes, args.process):
        is_main = jax.process_index() == 0
        where = "" if is_main else f" (process {jax.process_index()})"
        made = failed = 0
        for finding in run_checks(Setup(args.config, records=RECORDS), TIMEOUT):
            made += 1
            failed += not finding.passed
            if is_main or not finding.passed:
                mark = "ok  " if finding.passed else "FAIL"
                text = printable(" ".join(finding.text.split()))
                print(f"{mark} {finding.name:<10} {text}{where}", flush=True)
        failed = max(int(each) for each in processes.gather(b"%d" % failed))
        if is_main:
            print(f"{failed} of {made} checks failed" if failed else "everything is in place")
        return 1 if failed else 0
