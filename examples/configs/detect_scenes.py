"""Provides `--config=detect_scenes`, a recipe of the library, to copy from here."""

from paligemma_lib.run.recipes.detect_scenes import get_config

__all__ = ["get_config"]
