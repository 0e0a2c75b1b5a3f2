"""What a type checker sees of the library from outside: its types, and not Any."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SNIPPET = """\
import paligemma_lib as pg
from paligemma_lib.decode import Beam

captioner = pg.load("nano")
one = captioner.caption("dog.jpg", sampler=Beam(4))
many = captioner.caption(["a.jpg", b"..."], batch_size=16)
text = one.text + many[0].image_id
source = pg.data.from_tfds("flickr8k_tfds", split="train[:1200]")
batch = next(pg.data.train_batches(
    source, captioner.tokenizer, image_size=224, text_len=128, batch_size=8, seed=0))
scores = pg.metrics.score({"a.jpg": ["a dog"]}, {"a.jpg": text})
config = pg.run.RunConfig(batch_size=8, data=pg.run.DataConfig(train="mine"))
code = pg.run.finetune(config)
"""
TYPES = {
    "pg.load": "Captioner",
    "captioner": "Captioner",
    "one": "Captioned",
    "many": "list[",
    "text": "str",
    "source": "Source",
    "batch": "Mapping[",
    "scores": "Scores",
    "config.optimizer.learning_rate": "float",
    "code": "int",
    "pg.__version__": "str",
}


@pytest.fixture
def snippet(tmp_path) -> Path:
    """A user's file, which asks the checker for the types of what it uses."""
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET + "".join(f"reveal_type({name})\n" for name in TYPES))
    return file


def revealed(command: list[str], snippet: Path) -> str:
    done = subprocess.run(
        [*command, snippet.name],
        cwd=snippet.parent,
        env=os.environ | {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(lines: list[str]) -> None:
    assert len(lines) == len(TYPES)
    for line, (name, kind) in zip(lines, TYPES.items(), strict=True):
        assert kind in line, (name, line)
        line = re.sub(
            r"devices: [\w.]*Sequence\[(Any|Unknown)\]", "", line
        )  # jax.Device has no type
        assert not re.search(r"\bAny\b|Unknown", line) or name == "batch", (name, line)


@pytest.mark.slow
def test_mypy_sees_types(snippet):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("needs mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    command += ["--cache-dir", str(snippet.parent / "cache")]
    command += ["--exclude", "/site-packages/"]
    told = revealed(command, snippet)
    check(re.findall(r"snippet.py:\d+: note: (Revealed .*)", told))


@pytest.mark.slow
def test_pyright_sees_types(snippet):
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("needs basedpyright")
    checker = shutil.which("basedpyright", path=Path(sys.executable).parent)
    config = f'{{"extraPaths": ["{ROOT}"], "typeCheckingMode": "standard"}}'
    (snippet.parent / "pyrightconfig.json").write_text(config)
    told = revealed([str(checker)], snippet)
    check(re.findall(r"information: (Type of .*)", told))
