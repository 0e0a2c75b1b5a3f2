"""Provides the config with all defaults; `paligemma finetune --help` explains every field."""

from paligemma_lib.run import base_config as get_config

__all__ = ["get_config"]
