"""A tiny run to be checked: its checkpoint, tokenizer and images, and changes of its config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import captioning_cases as cases

from paligemma_lib.data.sources import from_folder
from paligemma_lib.run import RunConfig, Setup
from paligemma_lib.run.config import SPLITS
from paligemma_lib.run.options import parse

IMAGES = 12


def write_run(folder: Path) -> RunConfig:
    """Twelve images, which train, validate and test, and a captioner of one layer."""
    _, checkpoint, _, tokenizer, *_ = cases.write_captioner(folder)
    names = [f"{number}.png" for number in range(IMAGES)]
    cases.write_images(folder / "Images", names)
    rows = [f"{name},a dog runs over {name}" for name in names]
    (folder / "captions.txt").write_text("image,caption\n" + "\n".join(rows) + "\n")
    return changed(
        RunConfig(),
        data={"kind": "folder", **dict.fromkeys(SPLITS, str(folder))},
        model={"checkpoint": checkpoint, "tokenizer": tokenizer},
        text_len=32,
    )


def sources_of(config: RunConfig) -> dict[str, Any]:
    """The same images, opened."""
    return {split: from_folder(getattr(config.data, split)) for split in SPLITS}


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    """The same run with some fields changed; of groups, those that are named."""
    values = config.to_dict()
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, Mapping) else value
    return parse(RunConfig, values)


def setup_of(config: RunConfig, *, given=None, seconds=60.0, **changes: Any) -> Setup:
    """What is known of such a run."""
    return Setup(changed(config, **changes), given, seconds)
