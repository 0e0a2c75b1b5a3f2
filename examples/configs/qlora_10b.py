"""Provides `--config=qlora_10b` as a file; it is part of the library."""

from paligemma_lib.run.recipes.qlora_10b import get_config

__all__ = ["get_config"]
