"""`--config=flickr8k`, under the path that it had before it came with the library."""

from paligemma_lib.run.recipes.flickr8k import get_config

__all__ = ["get_config"]
