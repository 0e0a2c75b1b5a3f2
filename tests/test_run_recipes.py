"""Every config that comes with the library: it loads, and its values work."""

import dataclasses
import importlib
import textwrap

import pytest
from configs import base

import paligemma_lib as pg
from paligemma_lib.run import RECIPES, load
from paligemma_lib.run.assembly import optimizer_of, trainable_of
from paligemma_lib.run.config import RunConfig


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_values_that_work(name):
    config = load(name)
    model = getattr(pg.model.variants, config.model.name)()
    for stage in config.stages:
        assert pg.trainable.trained_rows(pg.model.abstract_params(model), trainable_of(stage))
    optimizer_of(config, total_steps=100)


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_still_found_where_it_was(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert pg.run.from_config_dict(config) == load(name)


def test_no_two_recipes_share_a_workdir():
    assert len({load(name).workdir for name in RECIPES}) == len(RECIPES)


def test_the_defaults_are_those_of_the_dataclass():
    assert pg.run.from_config_dict(base.get_config()) == RunConfig()


def test_a_file_as_it_was_written_before_still_works(tmp_path):
    """Beside `base.py`, which it imports as its folder's."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "base.py").write_text("from paligemma_lib.run import base_config as get_config\n")
    (folder / "mine.py").write_text(
        textwrap.dedent("""
            from configs import base

            def get_config():
                config = base.get_config()
                config.batch_size = 8
                config.stages = ({"from_step": 0, "trainable": "llm", "top_layers": 2},)
                config.optimizer.learning_rate = 3e-4
                return config
        """)
    )
    config = load(str(folder / "mine.py"))
    assert (config.batch_size, config.optimizer.learning_rate) == (8, 3e-4)
    assert dataclasses.asdict(config.stages[0]) == {
        "from_step": 0, "trainable": ("llm",), "top_layers": 2,
    }  # fmt: skip
