"""`--config=demo`, under the path that it had before it came with the library."""

from paligemma_lib.run.recipes.demo import get_config

__all__ = ["get_config"]
