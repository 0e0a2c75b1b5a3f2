"""Provides `--config=flickr8k` under its former path; it is now part of the library."""

from paligemma_lib.run.recipes.flickr8k import get_config

__all__ = ["get_config"]
