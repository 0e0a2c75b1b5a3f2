"""The command `paligemma`: a file for each subcommand, all in one style."""

from paligemma_lib.cli.main import main

__all__ = ["main"]
