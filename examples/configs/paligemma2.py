"""Provides `--config=paligemma2` under its former path; it is now part of the library."""

from paligemma_lib.run.recipes.paligemma2 import get_config

__all__ = ["get_config"]
