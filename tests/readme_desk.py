"""A folder that looks like the checkout to a reader who has images, adapters and data of all kinds.

desk = Desk(folder)
printed = desk.run(("paligemma", "caption", "Images/", "--checkpoint", "CHECKPOINT"))
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

import adapter_cases
import mask_cases
import pyarrow as pa
import pyarrow.parquet as pq
from coco_cases import write_coco_captions
from PIL import Image
from readme_cases import ROOT

import paligemma_lib as pg
from paligemma_lib.sample_data import write_scenes

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
    "BASE": "nano",
    "google/paligemma/jax/paligemma-3b-mix-224": "nano",
    "PATH": "mine/train",
    "workdir/demo": "nano",  # of the first command, which is not run here
    "3000": "40",  # drawn scenes
    "image_size=448": "image_size=120",
}
SHORT = ["--config.epochs=0.9", "--config.test_images=3", "--config.max_new_tokens=8"]
SMALL = {  # config -> data that make it small
    "flickr8k": ["--config.data.train=train", "--config.data.validation=validation"],
    "": ["--config.data.name=40"],  # drawn images
    "lora": ["--config.data.kind=sample", "--config.data.name=40"],
    "flickr8k_scratch": ["--config.data.validation=validation"],
    "flickr8k_rewarded": ["--config.data.validation=validation"],
    "answer_scenes": [],  # brings its data
    "detect_scenes": [],
    "segment_scenes": [],
    "pretrain_nano": ["--config.data.train=0:32", "--config.data.validation=900000:900004"],
}
OUTLINE = [10, 20, 50, 20, 50, 50, 10, 50]
BOX = {"category_id": 1, "bbox": [10, 20, 40, 30], "iscrowd": 0}


class Desk:
    """The folder, and a process that runs commands there."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("examples", "paligemma_lib", "flickr8k_tfds"):
            (folder / name).symlink_to(ROOT / name)
        self._write_captions()
        self._write_boxes_and_answers()
        self._write_adapters()
        scripts = Path(sys.executable).parent  # tfds lies beside python
        self.environment = os.environ | {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TFDS_DATA_DIR": str(folder / "tfds"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self._worker = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "readme_worker.py")],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.run(("tfds", "build", "flickr8k_tfds", "--manual_dir=scenes"))

    def close(self) -> None:
        """Ends the process."""
        self._worker.stdin.close()
        self._worker.wait(60)

    def run(self, words: tuple[str, ...]) -> str:
        """Runs a command of a page; returns what it printed."""
        words = made_small(words)
        if words[0] == "paligemma":
            print(json.dumps(words[1:]), file=self._worker.stdin, flush=True)
            code, out, err = json.loads(self._worker.stdout.readline())
        else:
            command = [sys.executable if word == "python" else word for word in words]
            done = subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True, text=True
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        assert code == 0, f"{words}: {err[-3000:]}"
        return out

    def _write_captions(self) -> None:
        desk = self.folder
        scenes = write_scenes(desk / "scenes", SCENES, seed=3)
        (desk / "mine").mkdir()
        for name in ("train", "validation", "test"):
            (desk / "mine" / name).symlink_to(scenes)
        (desk / "Images").symlink_to(scenes / "Images")
        for name, code in EXTENSIONS.items():
            (desk / name).write_text(code)
        files = sorted((scenes / "Images").iterdir())
        for name, image in zip(("a.jpg", "b.jpg", "dog.jpg"), files, strict=False):
            shutil.copy(image, desk / name)
        shutil.copy(scenes / "captions.txt", desk / "captions.txt")
        rows = list(csv.reader((scenes / "captions.txt").open(encoding="utf-8")))[1:]
        predictions = [{"image_id": image, "caption": caption} for image, caption in rows[::5]]
        (desk / "predictions.json").write_text(json.dumps(predictions))
        with sqlite3.connect(desk / "photos.db") as database:
            for split in ("train", "validation", "test"):
                database.execute(f"CREATE TABLE {split} (path TEXT, caption TEXT)")
                paths = [(str(scenes / "Images" / image), caption) for image, caption in rows]
                database.executemany(f"INSERT INTO {split} VALUES (?, ?)", paths)
        images = [path.read_bytes() for path in files[:24]]
        titled = [{"photo": {"bytes": image, "path": None}, "title": "a scene"} for image in images]
        pq.write_table(pa.Table.from_pylist(titled), desk / "my.parquet")
        splits = {"train": images[:16], "val": images[16:20], "restval": images[20:]}
        write_coco_captions(desk / "tfds", splits)

    def _write_boxes_and_answers(self) -> None:
        mine = self.folder / "mine"
        names = sorted(path.name for path in (self.folder / "Images").iterdir())[:24]
        images = []
        for number, name in enumerate(names):
            shutil.copy(self.folder / "Images" / name, mine)
            width, height = Image.open(mine / name).size
            images.append({"id": number, "file_name": name, "width": width, "height": height})
        instances = {
            "images": images,
            "categories": [{"id": 1, "name": "dog"}],
            "annotations": [
                {"id": k, "image_id": k, **BOX, "segmentation": [OUTLINE]}
                for k in range(len(names))
            ],
        }
        mask_cases.write_codec(self.folder / "vae-oid.npz")
        Image.new("L", (40, 30), 255).save(self.folder / "mask.png")
        (mine / "_annotations.coco.json").write_text(json.dumps(instances))
        answers = [{"image_id": name, "caption": "two"} for name in names]
        (self.folder / "answers.json").write_text(json.dumps(answers))
        (self.folder / "answered.json").write_text(json.dumps(answers))

    def _write_adapters(self) -> None:
        desk, config = self.folder, pg.checkpoint.read_config("nano")
        adapter_cases.write_birds_and_dogs(desk, "nano", 0.02, config)
        shutil.copytree(desk / "dogs", desk / "runs" / "dogs" / "adapter")


def made_small(words: tuple[str, ...]) -> list[str]:
    """The command with what stands for something replaced, and a run made short."""
    given = list(words)
    for placeholder, value in STANDS_FOR.items():
        given = [word.replace(placeholder, value) for word in given]
    if "data" in words[:2]:
        return given
    if words[-1].endswith("pretrain_tower.py"):
        return [*given, "--steps=2", "--batch-size=4"]
    if words[-1].endswith("pretrain_words.py"):
        small = ("batch_size=8", "model.vocab_size=400", "data.validation=validation")
        return [*given, "--epochs=1", *small]
    if any(word.endswith(("finetune", "finetune.py", "sweep", "doctor")) for word in words[:8]):
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
    made = {"pretrain_tower.py": "tower/nano", "pretrain_words.py": "words/words"}
    files += [f"workdir/{made[name]}.params.npz" for name in made if words[-1].endswith(name)]
    for option, name in (("--out", ""), ("--out-dir", "/report.html"), ("--folder", "/sweep.html")):
        files += [words[k + 1] + name for k, word in enumerate(words) if word == option]
    files += [words[-1] + "/config.json"] if "convert" in words else []
    return files + [w.partition("=")[2] for w in words if w.startswith("--data_dir=")]
