"""Files of configs and changes on a command line: what is taken, and all that is wrong at once."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from process_cases import ROOT

from paligemma_lib.run import RECIPES, ConfigError, RunConfig, StageConfig, base_config, load
from paligemma_lib.run.config import FORMER
from paligemma_lib.run.config_files import split_changes
from paligemma_lib.run.options import options_of, parse

DEMO = load("demo")


def problems_of(file="demo", changes=()):
    with pytest.raises(ConfigError) as caught:
        load(str(file), list(changes))
    assert str(caught.value).startswith(f"{file} has ")
    return list(caught.value.problems)


@pytest.fixture
def written(tmp_path):
    """Writes a file whose get_config has such lines; returns its path."""

    def write(*lines, head="config = base_config()", tail="return config"):
        body = "\n    ".join([head, *lines, tail])
        path = tmp_path / "mine.py"
        path.write_text(
            "import pathlib\nimport numpy as np\nfrom ml_collections import ConfigDict\n"
            f"from paligemma_lib.run import base_config\n\ndef get_config():\n    {body}\n"
        )
        return str(path)

    return write


def test_a_recipe_by_its_name_and_the_demo_without_one():
    assert load() == DEMO == load("demo", [])
    assert "demo" in RECIPES and len(set(RECIPES)) == len(RECIPES)


# --- Changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--config.batch_size=16"], {"batch_size": 16}),
        (["--config.batch_size=16", "--config.batch_size=18"], {"batch_size": 18}),
        (["--config.epochs=3"], {"epochs": 3.0}),
        (["--config.epochs=1e-3"], {"epochs": 0.001}),
        (["--noconfig.lowercase"], {"lowercase": False}),
        (["--config.lowercase"], {"lowercase": True}),
        (["--config.lowercase=True", "--config.evaluate_before=false"],
         {"lowercase": True, "evaluate_before": False}),
        (["--config.prompt=caption en=de now"], {"prompt": "caption en=de now"}),
        (["--config.prompt="], {"prompt": ""}),
        (["--config.workdir=7"], {"workdir": "7"}),
        (["--config.allow_changed=seed"], {"allow_changed": ("seed",)}),
        (["--config.allow_changed=('seed', 'epochs')"], {"allow_changed": ("seed", "epochs")}),
        (["--config.stages[0].top_layers=2"], {"stages": (StageConfig(top_layers=2),)}),
        (["--config.stages[0].trainable=llm"], {"stages": (StageConfig(trainable="llm"),)}),
        (["--config.stages[0].trainable=('llm','projector')"],
         {"stages": (StageConfig(trainable=("llm", "projector")),)}),
    ],
)  # fmt: skip
def test_a_change_of_a_field(changes, expected):
    assert load("demo", changes) == dataclasses.replace(DEMO, **expected)


def test_a_change_of_a_field_in_a_group():
    found = load("demo", ["--config.data.name=7", "--config.optimizer.learning_rate=1"])
    assert found.data == dataclasses.replace(DEMO.data, name="7")
    assert found.optimizer == dataclasses.replace(DEMO.optimizer, learning_rate=1.0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("--config.batch_size=many", "batch_size='many': expected a valid integer"),
        ("--config.batch_size=1.5", "batch_size='1.5': expected a valid integer"),
        ("--config.batch_size=", "batch_size='': expected a valid integer"),
        ("--config.batch_size=0", "batch_size=0: expected greater than or equal to 1"),
        ("--config.epochs=nan", "epochs=nan: expected a finite number"),
        ("--config.epochs=inf", "epochs=inf: expected a finite number"),
        ("--config.lowercase=maybe", "lowercase='maybe': expected a valid boolean"),
        ("--config.seed=None", "seed='None': expected a valid integer"),
        ("--config.data=3", "data: unknown field; did you mean data.dir?"),
        ("--config.bach_size=3", "bach_size: unknown field; did you mean batch_size?"),
        ("--config.learning_rate=3",
         "learning_rate: unknown field; did you mean optimizer.learning_rate?"),
        ("--config.batch-size=3",
         "--config.batch-size=3: unknown field; did you mean batch_size?"),
        ("--config.stages=3", "stages[0]=3: expected an object"),
        ("--config.stages[0]=3", "stages[0]='3': expected an object"),
        ("--config.stages[1].top_layers=2", "stages[1].top_layers: does not exist"),
        ("--config.stages[0].top_layers=x", "stages[0].top_layers='x': expected a valid integer"),
        ("--config.stages[0].top_layer=2",
         "stages[0].top_layer: unknown field; did you mean stages[0].top_layers?"),
        ("--config.batch_size[0]=5", "batch_size[0]: does not exist"),
        ("--config.stages[0].from_step=3",
         "stages begin at steps [3]: expected 0, then increasing steps"),
    ],
)  # fmt: skip
def test_a_wrong_change_is_told(change, problem):
    assert problems_of("demo", [change]) == [problem]


def test_all_wrong_changes_are_told_at_once(written):
    changes = ["--config.bach_size=3", "--config.batch_size=many", "--config.epochs=-1",
               "--config.stages[4].top_layers=1", "--config.data.kind=csv"]  # fmt: skip
    told = problems_of("demo", changes)
    starts = ["bach_size:", "stages[4].top_layers:", "epochs=-1.0:", "batch_size='many':"]
    assert sorted(each.split()[0] for each in told) == sorted([*starts, "data.kind='csv':"])
    file = written("config.seed = -1")
    assert len(problems_of(file, changes)) == 6


TYPED = [each for each in options_of(RunConfig) if each.name != "stages"]


@settings(deadline=None)
@given(st.sampled_from(TYPED), st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
def test_any_text_for_any_field_is_taken_or_told(option, text):
    try:
        made = load("demo", [f"--config.{option.name}={text}"])
    except ConfigError as error:
        assert any(option.name.rpartition(".")[2] in each for each in error.problems)
    else:
        value = made.to_dict()
        for part in option.name.split("."):
            value = value[part]
        if isinstance(option.default, str):
            assert value == text


# --- Command lines


@pytest.mark.parametrize(
    ("words", "changes", "rest"),
    [
        (["--config.a=1", "x", "--cpu"], ["--config.a=1"], ["x", "--cpu"]),
        (["--config.batch_size", "16", "x"], ["--config.batch_size=16"], ["x"]),
        (["--config.lowercase", "x"], ["--config.lowercase"], ["x"]),
        (["--noconfig.lowercase", "x"], ["--noconfig.lowercase"], ["x"]),
        (["--config.data.horizontal_flip", "--config.epochs", "-1"],
         ["--config.data.horizontal_flip", "--config.epochs=-1"], []),
        (["--config.stages[0].top_layers", "2"], ["--config.stages[0].top_layers=2"], []),
        (["--config.batch_size"], ["--config.batch_size"], []),
        (["--config=my.py", "--configs"], [], ["--config=my.py", "--configs"]),
    ],
)  # fmt: skip
def test_what_of_a_command_line_changes_fields(words, changes, rest):
    assert split_changes(words) == (changes, rest)


# --- Files


def test_a_file_that_is_not_there(tmp_path):
    for name in ("no.py", "dmo", str(tmp_path), ""):
        with pytest.raises(FileNotFoundError) as caught:
            load(name)
        assert str(caught.value) == (
            f"--config={name}: no such file or recipe; recipes are {', '.join(RECIPES)}"
        )


def test_an_exception_is_told_with_its_line(written):
    found = problems_of(written("config.seed = 1", "config.epochs = 1 / 0"))
    assert found == ["line 9: ZeroDivisionError: division by zero"]
    found = problems_of(written("raise SystemExit('set ME first')"))
    assert found == ["line 8: SystemExit: set ME first"]
    found = problems_of(written("config.batch_size = 'many'"))
    assert len(found) == 1 and found[0].startswith("line 8: TypeError: ")


def test_a_file_that_is_no_python(tmp_path):
    (tmp_path / "bad.py").write_text("def get_config():\n    return (\n")
    (problem,) = problems_of(tmp_path / "bad.py")
    assert problem.startswith("SyntaxError: ") and "bad.py, line 2" in problem
    (tmp_path / "bad.py").write_bytes(b"\x00\xff")
    assert problems_of(tmp_path / "bad.py")
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    (problem,) = problems_of(tmp_path / "bad.py")
    assert problem == "line 1: ModuleNotFoundError: No module named 'no_such_module'"


def test_a_file_without_a_config(tmp_path, written):
    expected = ["expected a function get_config that returns a ConfigDict"]
    (tmp_path / "empty.py").touch()
    assert problems_of(tmp_path / "empty.py") == expected
    assert problems_of(written(tail="return None")) == expected
    assert problems_of(written(tail="return config.to_dict()")) == expected


def test_what_stands_behind_a_colon_is_given_to_the_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from paligemma_lib.run import base_config\n\ndef get_config(which='a'):\n"
        "    config = base_config()\n    config.workdir = which\n    return config\n"
    )
    file = str(tmp_path / "mine.py")
    assert load(file).workdir == "a"
    assert load(f"{file}:b:c").workdir == "b:c"
    (problem,) = problems_of("demo:b")
    assert problem.startswith("TypeError: get_config() takes 0 positional arguments")


def test_fields_that_a_file_has_wrong_are_told_at_once(written):
    file = written("config.bach_size = 3", "config.data.knd = 'jsonl'", "config.max_skipped = 0")
    assert sorted(problems_of(file)) == [
        "bach_size: unknown field; did you mean batch_size?",
        "data.knd: unknown field; did you mean data.kind?",
        "max_skipped=0: expected greater than or equal to 1",
    ]


def test_scalars_of_numpy_are_numbers_and_other_objects_are_told(written):
    file = written(
        "config.epochs = np.float32(0.5)", "config.data.horizontal_flip = np.bool_(True)",
        head="config = ConfigDict({'data': {}, 'seed': np.int64(3)})",
    )  # fmt: skip
    found = load(file, ["--config.seed=4"])
    assert (type(found.epochs), found.epochs) == (float, 0.5)
    assert (found.seed, found.data.horizontal_flip) == (4, True)
    assert load(file).seed == np.int64(3)
    file = written(head="config = ConfigDict({'workdir': pathlib.Path('x'), 'seed': {1}})")
    told = problems_of(file)
    assert [each.partition("=")[0] for each in told] == ["workdir", "seed"]
    assert "PosixPath('x')" in told[0] and told[0].endswith("expected a valid string")


def test_the_base_has_every_field_and_can_be_changed():
    config = base_config()
    assert parse(RunConfig, config.to_dict()) == RunConfig()
    config.stages = ({"trainable": "all"}, {"from_step": 3})
    config.allow_changed = ("seed",)
    config.epochs = 3
    assert parse(RunConfig, config.to_dict()).stages[1].from_step == 3
    assert base_config().allow_changed == ()  # each is another


def test_reading_a_config_costs_no_tensorflow():
    code = (
        "import sys, paligemma_lib as pg\npg.run.load('flickr8k', ['--config.batch_size=20'])\n"
        "print(pg.__file__)\nprint('tensorflow' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    file, loaded = done.stdout.splitlines()
    assert file.startswith(str(ROOT)) and loaded == "False"


def test_fields_are_known_by_their_former_names(tmp_path, caplog):
    file = tmp_path / "mine.py"
    file.write_text(
        "from paligemma_lib.run import base_config\n"
        "def get_config():\n"
        "    config = base_config()\n"
        "    config.data.damaged = 'replace'\n"
        "    config.may_differ = ('epochs',)\n"
        "    return config\n"
    )
    found = load(str(file), ["--config.data.mirror", "--config.test_pictures=7"])
    assert (found.data.on_corrupt_image, found.data.horizontal_flip) == ("replace", True)
    assert (found.allow_changed, found.test_images) == (("epochs",), 7)
    assert "data.damaged is called data.on_corrupt_image now" in caplog.text
    for before, now in FORMER.items():
        names = [each.name for each in options_of(RunConfig)]
        assert now in names and before not in names
