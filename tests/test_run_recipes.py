"""Recipes of the library, the thin files of examples/configs, and files in the old style."""

import runpy
import sys

import pytest
from process_cases import ROOT

import paligemma_lib as pg
from paligemma_lib.checkpoint.configuration import MODELS
from paligemma_lib.parameter_spec import abstract
from paligemma_lib.run import RECIPES, ConfigError, RunConfig, load
from paligemma_lib.run.assembly import optimizer_of, parameters_of, trainable_of
from paligemma_lib.train.microbatching import number_of_parts

CONFIGS = ROOT / "examples" / "configs"
OLD = '''"""A run of somebody's, written when the configs lay in examples."""

from configs import base


def get_config():
    """Returns the run."""
    config = base.get_config()
    config.workdir = "mine"
    config.data.train = "train[:100]"
    config.stages = (
        {"from_step": 0, "trainable": "attention"},
        {"from_step": 9, "trainable": ("llm", "projector"), "top_layers": 2},
    )
    config.epochs = 3
    config.optimizer.learning_rate = 1e-4
    config.allow_changed = ("epochs",)
    return config
'''


@pytest.fixture(autouse=True)
def fresh_imports(monkeypatch):
    """A config finds others of its folder, in whichever folder that is."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if not each.endswith("/examples")])
    for name in [each for each in sys.modules if each.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [each for each in sys.modules if each.partition(".")[0] == "configs"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_values_that_work(name):
    config = load(name)
    model = MODELS[config.model.name]()
    params = abstract(parameters_of(config, model))
    for stage in config.stages:
        assert pg.trainable.trained_rows(params, trainable_of(stage))
    optimizer_of(config, total_steps=100)
    assert config.model.dtype in pg.model.variants.DTYPES
    assert config.model.remat in pg.model.variants.REMAT
    assert config.batch_size % config.microbatches == 0


@pytest.mark.parametrize("name", ["flickr8k_448", "textcaps_896", "lora", "qlora", "qlora_10b"])
def test_a_recipe_for_one_card_runs_on_several(name):
    config = load(name)

    def at_a_time(devices):
        parts = number_of_parts(config.batch_size, devices, config.microbatches)
        return config.batch_size // devices // parts

    assert [at_a_time(devices) <= at_a_time(1) for devices in (2, 4, 8)] == [True] * 3


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_every_field_and_no_other(name):
    made = runpy.run_path(f"{pg.run.recipes.__path__[0]}/{name}.py")["get_config"]()

    def fields(values):
        return {key: fields(each) if hasattr(each, "items") else None
                for key, each in values.items()}  # fmt: skip

    assert fields(made) == fields(RunConfig().to_dict())


@pytest.mark.parametrize("name", RECIPES)
def test_the_thin_file_of_the_examples_is_the_same_run(name):
    assert load(str(CONFIGS / f"{name}.py")) == load(name)


def test_the_base_of_the_examples_is_the_default_run():
    assert load(str(CONFIGS / "base.py")) == RunConfig()
    assert {each.stem for each in CONFIGS.glob("*.py")} == {*RECIPES, "base"}


def test_no_two_recipes_share_a_workdir():
    assert len({load(name).workdir for name in RECIPES}) == len(RECIPES) > 5


@pytest.mark.parametrize("base", ["beside", "of the examples"])
def test_a_file_in_the_old_style_still_works(tmp_path, base):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text(OLD)
    if base == "beside":
        (folder / "base.py").write_text((CONFIGS / "base.py").read_text())
    else:
        sys.path.append(str(CONFIGS.parent))
    config = load(str(folder / "mine.py"), ["--config.batch_size=16"])
    first, second = config.stages
    assert (first.trainable, first.top_layers) == (("attention",), 0)
    assert (second.from_step, second.trainable, second.top_layers) == (9, ("llm", "projector"), 2)
    assert (config.epochs, config.allow_changed, config.batch_size) == (3.0, ("epochs",), 16)
    assert (config.data.train, config.data.kind) == ("train[:100]", "auto")
    assert sys.path.count(str(tmp_path)) == 0  # nothing is left behind


def test_what_a_file_in_the_old_style_gets_wrong_is_told(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    file = folder / "mine.py"
    (folder / "base.py").write_text((CONFIGS / "base.py").read_text())
    file.write_text(OLD.replace("config.epochs", "config.epocs").replace("top_l", "l"))
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert sorted(caught.value.problems) == [
        "epocs: unknown field; did you mean epochs?",
        "stages[1].layers: unknown field; did you mean stages[1].top_layers?",
    ]
    file.write_text(OLD.replace("epochs = 3", "epochs = '3'"))  # ml_collections refuses it
    with pytest.raises(ConfigError, match="a problem:\n  line 15: TypeError: .*epochs"):
        load(str(file))


@pytest.mark.parametrize("rest", ["", ", 'data': {'kind': 'jsonl'}"])
def test_a_config_of_few_fields_has_the_defaults_of_the_others(tmp_path, rest):
    (tmp_path / "few.py").write_text(
        "from ml_collections import ConfigDict\n\ndef get_config():\n"
        f"    return ConfigDict({{'epochs': 3, 'stages': [{{'trainable': 'all'}}]{rest}}})\n"
    )
    config = load(str(tmp_path / "few.py"), ["--config.lowercase", "--config.epochs=3.5"])
    expected = {"epochs": 3.5, "lowercase": True, "stages": [{"trainable": ["all"]}]}
    if rest:
        expected["data"] = {"kind": "jsonl"}
    assert config == pg.run.options.parse(RunConfig, expected)
