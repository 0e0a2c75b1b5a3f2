"""A run of fine-tuning: its one config, what is checked before it starts, and the job itself.

    import paligemma_lib as pg

    config = pg.run.RunConfig(workdir="runs/mine", model=pg.run.ModelConfig(checkpoint="nano"))
    pg.run.finetune(config)                         # what `paligemma finetune` does
    for finding in pg.run.examine(pg.run.Setup(config)): print(finding)

    config = pg.run.load("flickr8k", ["--config.batch_size=16"])

The names load when touched (PEP 562): a config costs no TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paligemma_lib.run.config import DataConfig as DataConfig
    from paligemma_lib.run.config import ModelConfig as ModelConfig
    from paligemma_lib.run.config import OptimizerConfig as OptimizerConfig
    from paligemma_lib.run.config import RunConfig as RunConfig
    from paligemma_lib.run.config import StageConfig as StageConfig
    from paligemma_lib.run.config_files import RECIPES as RECIPES
    from paligemma_lib.run.config_files import base_config as base_config
    from paligemma_lib.run.config_files import from_config_dict as from_config_dict
    from paligemma_lib.run.config_files import load as load
    from paligemma_lib.run.findings import ChecksFailed as ChecksFailed
    from paligemma_lib.run.findings import Finding as Finding
    from paligemma_lib.run.findings import examine as examine
    from paligemma_lib.run.findings import require as require
    from paligemma_lib.run.job import finetune as finetune
    from paligemma_lib.run.options import ConfigError as ConfigError
    from paligemma_lib.run.setup import Setup as Setup

_HOMES = {
    "ChecksFailed": "findings",
    "ConfigError": "options",
    "DataConfig": "config",
    "Finding": "findings",
    "ModelConfig": "config",
    "OptimizerConfig": "config",
    "RECIPES": "config_files",
    "RunConfig": "config",
    "Setup": "setup",
    "StageConfig": "config",
    "base_config": "config_files",
    "examine": "findings",
    "finetune": "job",
    "from_config_dict": "config_files",
    "load": "config_files",
    "require": "findings",
}

__all__ = sorted(_HOMES)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
