"""The command-line program `paligemma`, with one module for each subcommand."""

from paligemma_lib.cli.main import main

__all__ = ["main"]
