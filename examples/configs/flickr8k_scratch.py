"""Provides `--config=flickr8k_scratch` under its former path; it is now part of the library."""

from paligemma_lib.run.recipes.flickr8k_scratch import get_config

__all__ = ["get_config"]
