"""Provides `--config=flickr8k_rewarded` as a file; it is part of the library."""

from paligemma_lib.run.recipes.flickr8k_rewarded import get_config

__all__ = ["get_config"]
