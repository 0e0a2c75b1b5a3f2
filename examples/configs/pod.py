"""Provides `--config=pod` under its former path; it is now part of the library."""

from paligemma_lib.run.recipes.pod import get_config

__all__ = ["get_config"]
