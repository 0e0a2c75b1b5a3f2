"""A tiny run of the main job: its config, the same as a file, and what it leaves."""

import functools
import itertools
import json
from pathlib import Path

import captioning_cases as cases
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.run import assembly, base_config, from_config_dict, validate
from paligemma_lib.train.compatibility import RECORD
from paligemma_lib.train.digests import checksum
from paligemma_lib.train.progress import FILE

IMAGES = 12


def tiny_run(folder: Path):
    """A run of nine steps: 12 images, 3 epochs in batches of 4, stages from step 5 on."""
    _, checkpoint, _, tokenizer, *_ = cases.write_captioner(folder)
    names = [f"{number}.png" for number in range(IMAGES)]
    cases.write_images(folder, names)
    captions = itertools.cycle(pg.testing.tiny_captions()[::5])
    for split, count in (("train", IMAGES), ("other", 4)):
        lines = [
            {"image": name, "prefix": "caption en", "suffix": next(captions)} for name in names
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines[:count])
        (folder / f"{split}.jsonl").write_text(text)
    config = base_config()
    config.data.kind = "jsonl"
    config.data.train = str(folder / "train.jsonl")
    config.data.validation = config.data.test = str(folder / "other.jsonl")
    config.model.checkpoint, config.model.tokenizer = checkpoint, tokenizer
    config.model.frozen_dtype = "bfloat16"
    config.text_len = 64
    config.stages = (
        {"from_step": 0, "trainable": ("attention",), "top_layers": 2},
        {"from_step": 5, "trainable": ("attention", "projector"), "top_layers": 0},
    )
    config.batch_size = 4
    config.epochs = 3.0
    config.optimizer.learning_rate = 0.01
    config.validate_every = 1.0
    config.save_every = 0.34  # every step or two
    config.decode_batch_size = 2  # as many as a validation shows: one program for both
    config.max_new_tokens = 6
    config.export_dtype = "float32"
    return config


def of(config, workdir, **changes):
    """The same run elsewhere, with some fields changed."""
    changed = config.copy_and_resolve_references()
    changed.workdir = str(workdir)
    with changed.unlocked():
        changed.update_from_flattened_dict(changes)
    return changed


# Runs of the same optimizer and model compile their step once.
_make_optimizer, _make_train_step, _make_eval_step = map(
    functools.cache, (pg.train.make_optimizer, pg.train.make_train_step, pg.train.make_eval_step)
)


def finetune(config) -> int:
    """Runs the main job in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "make_optimizer", _make_optimizer)
        patch.setattr(assembly, "make_train_step", _make_train_step)
        patch.setattr(validate, "make_eval_step", _make_eval_step)
        return pg.run.finetune(from_config_dict(config))


def setup_of(config) -> pg.run.Setup:
    """What the checks look at."""
    return pg.run.Setup(from_config_dict(config))


def write_config(config, path: Path) -> Path:
    """Writes a config to a file that --config takes."""
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\ndef get_config():\n"
        f"    return ConfigDict(json.loads({config.to_json()!r}))\n"
    )
    return path


def losses(workdir, name="loss") -> dict[int, float]:
    """The loss of every step; later lines count."""
    lines = (Path(workdir) / FILE).read_text().splitlines()
    return {r["step"]: r[name] for r in map(json.loads, lines) if name in r}


def exported(workdir) -> dict[str, np.ndarray]:
    """The parameters of the model that a run has exported."""
    (model,) = Path(workdir).glob("*.npz")
    with np.load(model) as file:
        return {name: file[name] for name in file.files}


def leave_record(folder: Path, step: int, run, validation_loss=None) -> Path:
    """What a checkpoint has beside its arrays; returns its path."""
    record = {"run": run, "validation_loss": validation_loss, "state": {}}
    path = folder / str(step) / RECORD
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**record, "checksum": checksum(record)}))
    return path
