"""Provides `--config=pretrain_nano` under its former path; it is now part of the library."""

from paligemma_lib.run.recipes.pretrain_nano import get_config

__all__ = ["get_config"]
