"""`--config=flickr8k_scratch`, under the path that it had before it came with the library."""

from paligemma_lib.run.recipes.flickr8k_scratch import get_config

__all__ = ["get_config"]
