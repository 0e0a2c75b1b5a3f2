"""Provides `--config=textcaps_896` as a file; it is part of the library."""

from paligemma_lib.run.recipes.textcaps_896 import get_config

__all__ = ["get_config"]
