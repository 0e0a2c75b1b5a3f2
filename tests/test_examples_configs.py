"""Every config of a run: known fields alone, and values that the library takes."""

import importlib
from pathlib import Path

import pytest
from configs import base

import paligemma_lib as pg
from paligemma_lib import doctor

CONFIGS = Path(base.__file__).parent
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")


def fields(config, prefix=""):
    for name, value in config.items():
        yield from fields(value, f"{name}.") if hasattr(value, "items") else [f"{prefix}{name}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_sets_known_fields_to_values_that_work(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert sorted(fields(config)) == sorted(fields(base.get_config()))
    model = getattr(pg.model.variants, config.model.name)()
    for stage in doctor.stages_of(config):
        assert pg.trainable.trained_rows(pg.model.abstract_params(model), stage.trainable)
    doctor.optimizer_of(config, total_steps=100)
    assert config.model.dtype in pg.model.variants.DTYPES
    assert config.model.remat in pg.model.variants.REMAT
    assert config.batch_size % config.microbatches == 0


def test_no_two_configs_share_a_workdir():
    configs = [importlib.import_module(f"configs.{name}").get_config() for name in NAMES]
    assert len({config.workdir for config in configs}) == len(NAMES)
