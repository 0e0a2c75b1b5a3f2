"""The main job with faults put in, for `fault_driver.py`: the environment's FAULTS says which.

    FAULTS='{"marks": "/tmp/marks", "nan": 3}' python tests/fault_injection.py --config=...

JSON with some of these keys:
  marks: a folder; the n-th beginning of a phase makes a file there, such as `checkpoint-2`.
  nan: a step of training whose loss becomes not a number.
  failing: the share of reads that fail with an input/output error; one of a checkpoint does too.
  stalling: seconds that one read takes.
  full: the name of a mark, a file, and a number: when that phase begins, the file takes all of its
    disk but for so many bytes.
  software: the version of JAX that the run is told.
  tokenizer: text that is added to the bytes of the run's tokenizer.
  silence: seconds after which a process counts as missing.
"""

import errno
import functools
import json
import os
import random
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

import paligemma_lib as pg
from paligemma_lib import captioner
from paligemma_lib.checkpoint import final_export
from paligemma_lib.data import batches, files, pipeline
from paligemma_lib.run import record
from paligemma_lib.runtime import heartbeats, retries
from paligemma_lib.tokenizer import Tokenizer
from paligemma_lib.train import Checkpoints

FINETUNE = Path(__file__).resolve().parents[1] / "examples" / "finetune.py"


def before(owner: object, name: str, act) -> None:
    """Has a function or method of `owner` call `act` with its arguments first."""
    function = getattr(owner, name)

    def wrapped(*args, **kwargs):
        act(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def mark_phases(folder: Path, happens: dict[str, Callable[[], None]]) -> None:
    counts: dict[str, int] = {}

    def marking(phase: str):
        def mark(*args, **kwargs) -> None:
            counts[phase] = counts.get(phase, 0) + 1
            name = f"{phase}-{counts[phase]}"
            (folder / name).touch()
            if name in happens:
                happens[name]()

        return mark

    before(captioner.Captioner, "stream", marking("captions"))
    before(pipeline, "eval_batches", marking("validation"))
    before(Checkpoints, "save", marking("checkpoint"))
    before(batches.Batches, "__next__", marking("batch"))
    before(final_export, "export_final", marking("export"))
    before(pg.metrics, "score", marking("scores"))


def fill_disk(filler: Path, leave: int) -> None:
    with filler.open("wb") as file:
        free = shutil.disk_usage(filler).free
        os.posix_fallocate(file.fileno(), 0, max(1, free - leave))


def spoil_loss(step: int) -> None:
    following = batches.Batches.__next__

    def spoiled(self):
        at, training = self.step, self._examples.seed is not None
        batch = following(self)
        if training and at == step:
            batch["image"] = np.full(batch["image"].shape, np.nan, np.float32)
        return batch

    batches.Batches.__next__ = spoiled


def fail_now_and_then(share: float) -> None:
    def fail(path: str) -> None:
        if random.random() < share:
            raise OSError(errno.EIO, "Input/output error", path)

    left = [1]

    def fail_once(*args, **kwargs) -> None:
        if left:
            left.clear()
            raise OSError(errno.EIO, "Input/output error")

    before(files, "open_file", fail)
    before(ocp.StandardCheckpointHandler, "restore", fail_once)


def stall_once(seconds: float) -> None:
    retries._STALL = 1.0
    left = [random.randint(1, 30)]

    def stall(path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            time.sleep(seconds)

    before(files, "open_file", stall)


if __name__ == "__main__":
    faults = json.loads(os.environ["FAULTS"])
    random.seed(os.getpid())
    happens = {}
    if "full" in faults:
        mark, file, leave = faults["full"]
        happens[mark] = functools.partial(fill_disk, Path(file), leave)
    if "marks" in faults:
        mark_phases(Path(faults["marks"]), happens)
    if "nan" in faults:
        spoil_loss(faults["nan"])
    if "failing" in faults:
        fail_now_and_then(faults["failing"])
    if "stalling" in faults:
        stall_once(faults["stalling"])
    if "software" in faults:
        versions = {**record._versions(), "jax": faults["software"]}
        record._versions = lambda: versions
    if "tokenizer" in faults:
        own, added = Tokenizer.serialized, faults["tokenizer"].encode()
        Tokenizer.serialized = lambda self: own(self) + added
    if "silence" in faults:
        heartbeats.Heartbeats.__init__.__defaults__ = (faults["silence"],)
    sys.path.insert(0, str(FINETUNE.parent))
    sys.argv[0] = str(FINETUNE)
    runpy.run_path(str(FINETUNE), run_name="__main__")
