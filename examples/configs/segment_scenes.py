"""Provides `--config=segment_scenes`, a recipe of the library, to copy from here."""

from paligemma_lib.run.recipes.segment_scenes import get_config

__all__ = ["get_config"]
