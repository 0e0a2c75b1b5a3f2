"""Every field of a run at its default; `paligemma finetune --help` says what each means."""

from paligemma_lib.run import base_config as get_config

__all__ = ["get_config"]
