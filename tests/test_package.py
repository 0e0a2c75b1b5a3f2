import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import paligemma_lib as pg


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_importing_the_library_is_instant_and_loads_neither_tensorflow_nor_jax():
    code = """
import json, sys, time
start = time.perf_counter()
import paligemma_lib
print(json.dumps([time.perf_counter() - start, sorted(sys.modules)]))
"""
    seconds, modules = json.loads(run(code))
    assert seconds < 0.3
    assert not {"tensorflow", "jax", "numpy"} & set(modules)


@pytest.mark.parametrize("name", pg.__all__)
def test_submodules_load_when_touched(name):
    assert (
        run(f"import paligemma_lib as pg; print(pg.{name}.__name__)") == f"paligemma_lib.{name}\n"
    )


def test_dir_lists_the_submodules_without_loading_them():
    assert set(pg.__all__) <= set(dir(pg))


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="no attribute 'nothing'; it has .*'tokenizer'"):
        _ = pg.nothing


def test_the_names_in_the_readme_exist():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    names = set(re.findall(r"\bpg((?:\.[a-z]\w*)+)", text))
    assert ".data.train_batches" in names
    for name in names:
        functools.reduce(getattr, name[1:].split("."), pg)
