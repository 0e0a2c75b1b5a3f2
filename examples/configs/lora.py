"""Provides `--config=lora` as a file; it is part of the library."""

from paligemma_lib.run.recipes.lora import get_config

__all__ = ["get_config"]
