"""Provides `--config=qlora` as a file; it is part of the library."""

from paligemma_lib.run.recipes.qlora import get_config

__all__ = ["get_config"]
