"""README's commands and code run as they stand, one after the other, on a few drawn scenes.

What stands for something of the reader's own is replaced, and runs are made short. .ci/run has the
two commands and the installations; other tests have the web app and several machines.
"""

import csv
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coco_cases import write_coco_captions
from readme_cases import PAGES, ROOT, blocks, commands

from paligemma_lib.sample_data import write_scenes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ELSEWHERE = ("pip", "pytest", "pre-commit", "streamlit", "gcloud", "mkdocs", "cd")
NOT_HERE = (
    "python examples/finetune.py",  # one of the two commands
    "paligemma finetune",  # the same; both names stand in running text, as does the next
    "paligemma plan",
    "python benchmarks/on_accelerator.py --out results",  # wants an accelerator
    "tfds build",  # downloads
    "tfds build --overwrite",  # the same, in running text
    "python tests/fault_driver.py",  # an hour; test_faults.py has some of it
    "tfds build --imports=flickr8k_tfds flickr8k_tfds",
)
RUN = [c for c in commands() if c.words[0] not in ELSEWHERE and str(c) not in NOT_HERE]
RUN = [c for c in RUN if "--config=pod" not in c.words]  # large models

SCENES = 40
EXTENSIONS = dict(  # docs/extending.md, by the names that its commands use
    re.findall(
        r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```",
        (ROOT / "docs" / "extending.md").read_text("utf-8"),
        re.DOTALL,
    )
)
STANDS_FOR = {
    "FOLDER_OR_ZIP": "scenes",
    "FOLDER": "scenes",
    "CHECKPOINT": "nano",
    "PATH": "mine/train",
    "workdir/demo": "nano",  # of the first command, which is not run here
}
SHORT = ["--config.epochs=0.5", "--config.test_images=3", "--config.max_new_tokens=8"]
SMALL = {  # config -> data that make it small
    "flickr8k": ["--config.data.train=train", "--config.data.validation=validation"],
    "": ["--config.data.name=40"],  # drawn images
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder that looks like the checkout to a reader who has images."""
    desk = tmp_path_factory.mktemp("desk")
    for name in ("examples", "paligemma_lib", "flickr8k_tfds"):
        (desk / name).symlink_to(ROOT / name)
    scenes = write_scenes(desk / "scenes", SCENES, seed=3)
    (desk / "mine").mkdir()
    for name in ("train", "validation", "test"):
        (desk / "mine" / name).symlink_to(scenes)
    (desk / "Images").symlink_to(scenes / "Images")
    for name, code in EXTENSIONS.items():
        (desk / name).write_text(code)
    rows = list(csv.reader((scenes / "captions.txt").open(encoding="utf-8")))[1:]
    with sqlite3.connect(desk / "photos.db") as database:
        for split in ("train", "validation", "test"):
            database.execute(f"CREATE TABLE {split} (path TEXT, caption TEXT)")
            paths = [(str(scenes / "Images" / image), caption) for image, caption in rows]
            database.executemany(f"INSERT INTO {split} VALUES (?, ?)", paths)
    images = [path.read_bytes() for path in sorted((scenes / "Images").iterdir())[:24]]
    titled = [{"photo": {"bytes": image, "path": None}, "title": "a scene"} for image in images]
    pq.write_table(pa.Table.from_pylist(titled), desk / "my.parquet")
    splits = {"train": images[:16], "val": images[16:20], "restval": images[20:]}
    write_coco_captions(desk / "tfds", splits)
    run(["tfds", "build", "flickr8k_tfds", "--manual_dir=scenes"], desk)
    return desk


def run(command: list[str], desk: Path) -> str:
    """Runs a command on the desk; returns what it printed."""
    scripts = Path(sys.executable).parent  # tfds lies beside python
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TFDS_DATA_DIR": str(desk / "tfds"),
        "XDG_CACHE_HOME": str(desk / "cache"),
    }
    done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return done.stdout


def made_small(words: tuple[str, ...]) -> list[str]:
    """The command with what stands for something replaced, and a run made short."""
    programs = {"python": [sys.executable], "paligemma": [sys.executable, "-m", "paligemma_lib"]}
    given = [*programs.get(words[0], words[:1]), *words[1:]]
    for placeholder, value in STANDS_FOR.items():
        given = [word.replace(placeholder, value) for word in given]
    if "data" in words[:2]:
        return given
    if any(word.endswith(("finetune", "finetune.py", "sweep", "doctor")) for word in words[:4]):
        configs = [w.removeprefix("--config=") for w in words if w.startswith("--config=")]
        has_data = any(
            word.startswith(("--config.data.kind", "--config.data.train")) for word in words
        )
        given += SHORT + ["--config.model.checkpoint=nano"] * bool(configs)
        given += [] if has_data else SMALL[configs[0] if configs else ""]
    return given


def left(words: tuple[str, ...]) -> list[str]:
    """The files that a command says it will write."""
    if "doctor" in words:
        return []
    files = [word.partition("=")[2] + "/report.html" for word in words if "workdir=" in word]
    for option, name in (("--out", ""), ("--out-dir", "/report.html"), ("--folder", "/sweep.html")):
        files += [words[k + 1] + name for k, word in enumerate(words) if word == option]
    files += [words[-1] + "/config.json"] if "convert" in words else []
    return files + [w.partition("=")[2] for w in words if w.startswith("--data_dir=")]


@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_does_what_it_says(command, desk):
    if "--compare" in command.words:
        for name in ("a.json", "b.json"):
            shutil.copy(desk / "results" / "predictions.json", desk / name)
    if "--predictions" in command.words:
        shutil.copy(desk / "scenes" / "captions.txt", desk / "captions.txt")
        rows = list(csv.reader((desk / "captions.txt").open(encoding="utf-8")))[1::5]
        predictions = [{"image_id": image, "caption": caption} for image, caption in rows]
        (desk / "predictions.json").write_text(json.dumps(predictions))
    printed = run(made_small(command.words), desk)
    for file in left(command.words):
        assert (desk / file).exists(), file
    assert left(command.words) or printed


STANDS_FOR_IN_CODE = {
    "google/paligemma/jax/paligemma-3b-mix-224": "nano",
    'pg.load("runs/mine")': 'pg.load("nano")',
    '["a.jpg", "b.jpg"]': '["dog.jpg", "dog.jpg"]',
    '"paligemma_tokenizer.model"': "pg.captioner.tokenizer_of('nano')",
    "paligemma-3b-pt-224.f16.npz": "nano",
    "image_size=224": "image_size=96",
    "train[:1200]": "train[:20]",
    "batch_size=32": "batch_size=8",
    "for batch in batches:": "for batch in itertools.islice(batches, 2):",
}
# Pages whose code is one program, from top to bottom; another test has those of the other pages.
PROGRAMS = ("README.md", "index.md", "library.md", "own-data.md", "recipes.md")


@pytest.mark.parametrize("page", [p for p in PAGES if p.name in PROGRAMS], ids=lambda p: p.name)
def test_the_code_runs_from_top_to_bottom(page, desk):
    code = "\n".join(blocks(page, "python"))
    shutil.copy(desk / "Images" / "scene_00000.jpg", desk / "dog.jpg")
    for written, here in STANDS_FOR_IN_CODE.items():
        code = code.replace(written, here)
    # 3B would be loaded for hours, or train for ever, if something were not replaced.
    assert not re.search(r"3b|1200\]|batches:", code)
    printed = run([sys.executable, "-c", f"import itertools\n{code}"], desk)
    if page.name == "library.md":
        assert "at     id token" in printed
        assert (desk / "captioner.npz").is_file()


def test_no_page_has_code_that_nothing_runs():
    elsewhere = ("extending.md",)  # test_extending.py
    assert {p.name for p in PAGES if blocks(p, "python")} == {*PROGRAMS, *elsewhere}
