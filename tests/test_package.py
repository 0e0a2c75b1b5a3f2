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
start = time.process_time()
import paligemma_lib
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""
    seconds, modules = json.loads(run(code))
    assert seconds < 0.3
    assert not {"tensorflow", "jax", "numpy"} & set(modules)


@pytest.mark.slow
def test_submodules_load_when_touched_each_before_all_others():
    """In one process, for TensorFlow and JAX take seconds; the library's own are forgotten."""
    code = """
import sys
import paligemma_lib
for name in [each for each in paligemma_lib.__all__ if each not in ('Captioner', 'load')]:
    for module in [each for each in sys.modules if each.startswith("paligemma_lib")]:
        del sys.modules[module]
    import paligemma_lib as pg
    print(getattr(pg, name).__name__)
"""
    modules = [name for name in pg.__all__ if name not in ("Captioner", "load")]
    assert run(code).split() == [f"paligemma_lib.{name}" for name in modules]


def test_dir_lists_the_submodules_without_loading_them():
    assert set(pg.__all__) <= set(dir(pg))


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="No paligemma_lib attribute nothing"):
        _ = pg.nothing


def test_the_names_in_the_readme_exist():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    names = set(re.findall(r"\bpg((?:\.[a-z]\w*)+)", text))
    assert ".data.train_batches" in names
    for name in names:
        functools.reduce(getattr, name[1:].split("."), pg)


def test_the_citation_has_the_version():
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text()
    assert f"\nversion: {pg.__version__}\n" in text
