"""Files of configs and changes on the command line: read, or everything that is wrong told."""

import pytest

from paligemma_lib.run import ConfigError, load
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.config_files import split_changes

HEAD = (
    "from paligemma_lib.run import base_config\n\ndef get_config():\n    config = base_config()\n"
)


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        return str(tmp_path / "mine.py")

    return write


def changed(*changes: str) -> RunConfig:
    return load("demo", [f"--config.{each}" for each in changes])


def test_changes_of_every_kind():
    config = changed(
        "batch_size=16",
        "epochs=3",
        "lowercase=false",
        "data.mirror",
        "stages[0].top_layers=2",
        "may_differ=('seed', 'keep')",
        "prompt=caption de",
        "optimizer.name=sgd",
        "data.train=a=b",
    )
    assert (config.batch_size, config.epochs, config.lowercase) == (16, 3.0, False)
    assert (config.data.mirror, config.stages[0].top_layers) == (True, 2)
    assert config.may_differ == ("seed", "keep")
    assert (config.prompt, config.optimizer.name, config.data.train) == ("caption de", "sgd", "a=b")
    assert load("demo", ["--noconfig.lowercase"]).lowercase is False


def test_all_changes_that_are_wrong_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        changed("batch_size=many", "bach=1", "epochs=0", "stages[7].top_layers=1", "data=3")
    assert str(caught.value).startswith("demo has 5 problems:\n")
    assert set(caught.value.problems) == {
        "bach: there is no such field; did you mean batch_size?",
        "stages[7].top_layers=1: tuple index out of range",
        "data: there is no such field; did you mean data.dir?",
        "batch_size='many': expected a valid integer",
        "epochs=0.0: expected greater than 0",
    }


def test_words_of_a_command_line_are_parted():
    words = ["a.jpg", "--config.seed", "3", "--config.lowercase", "b.jpg", "--config.epochs=2"]
    changes, rest = split_changes([*words, "--noconfig.truncate", "--cpu", "--config.keep"])
    assert changes == [
        "--config.seed=3", "--config.lowercase", "--config.epochs=2", "--noconfig.truncate",
        "--config.keep",
    ]  # fmt: skip
    assert rest == ["a.jpg", "b.jpg", "--cpu"]


def test_a_file_may_take_an_argument(file):
    text = HEAD.replace("get_config()", "get_config(size)") + "    config.batch_size = int(size)\n"
    assert load(file(text + "    return config\n") + ":24").batch_size == 24


def test_values_of_numpy_are_plain_values(file):
    text = "import numpy as np\nfrom ml_collections import ConfigDict\n\ndef get_config():\n"
    text += "    return ConfigDict({'seed': np.int64(7), 'epochs': np.float32(0.5)})\n"
    config = load(file(text))
    assert (config.seed, config.epochs) == (7, 0.5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def get_config(:\n", "SyntaxError: invalid syntax"),
        ("import nothing_of_the_kind\n", "line 1: ModuleNotFoundError: No module named 'nothing"),
        (HEAD + "    raise KeyError('x')\n", "line 5: KeyError: 'x'"),
        (HEAD + "    config.batch_size = 'x'\n", "line 5: TypeError: Could not override field"),
        ("config = 3\n", "expected a function get_config that returns a ConfigDict"),
        ("def get_config():\n    return 3\n", "expected a function get_config that returns a Con"),
        (HEAD + "    config.batch_sise = 3\n    return config\n", "batch_sise: there is no such"),
    ],
)
def test_a_file_that_is_wrong(file, text, problem):
    with pytest.raises(ConfigError) as caught:
        load(file(text))
    (told,) = caught.value.problems
    assert told.startswith(problem), told


def test_what_is_no_file_and_no_recipe():
    with pytest.raises(FileNotFoundError, match="no such recipe; recipes are demo, flickr8k,"):
        load("flickr9k")
