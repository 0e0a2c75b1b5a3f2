"""`--config=paligemma2`, under the path that it had before it came with the library."""

from paligemma_lib.run.recipes.paligemma2 import get_config

__all__ = ["get_config"]
