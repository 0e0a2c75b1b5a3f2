"""Collects what the workdir of a run tells of how its model came about.

    facts = facts_of(Path("runs/mine"))
    facts.base, facts.data, facts.scores["CIDEr"]["value"]

Local paths are told by their last part alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.data.sources.hub_reference import is_hub
from paligemma_lib.hub import huggingface_models
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.train.compatibility import CHECKPOINTS, newest_run

_MAX_BYTES = 4 << 20
_HANDLE = re.compile(r"(?P<owner>google)/paligemma(-?2)?/\w+/(?P<name>[\w-]+)(/\d+)?")  # of Kaggle
_PROMPTS = {"answer": "answer en what colour is it?", "detect": "detect dog"}  # by task


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of how a model came about; all of it may be empty.

    Attributes:
      config: config of its run, nested.
      steps: number of steps of its newest checkpoint.
      scores: name -> value, low and high, times 100.
      warnings: what speaks against believing the scores.
    """

    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 0
    scores: Mapping[str, Mapping[str, float | None]] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def base(self) -> str:
        """The model it began with, as the Hub names it; "" for a new model or a local file."""
        return hub_name(str(self.config.get("model", {}).get("checkpoint", "")))

    @property
    def prompt(self) -> str:
        """A prompt that the model was trained for."""
        task = str(self.config.get("task", "caption"))
        return _PROMPTS.get(task) or str(self.config.get("prompt", "caption en"))

    @property
    def data(self) -> str:
        """The training data: a data set by its name, of a local path the last part."""
        data = self.config.get("data", {})
        train, name = str(data.get("train", "")), str(data.get("name", ""))
        if is_hub(train):
            return train.removeprefix("hf://datasets/")
        if "/" in train or "\\" in train:
            return re.split(r"[/\\]", train.rstrip("/\\"))[-1]
        drawn = f"{name} drawn scenes" if name.isdecimal() else name
        return f"{drawn}, {train}" if train not in ("", "train") else drawn


def hub_name(checkpoint: str) -> str:
    """Returns OWNER/NAME of a published model; "" for one that the Hub does not have."""
    if found := _HANDLE.fullmatch(checkpoint):
        return f"{found['owner']}/{found['name']}"
    is_there = huggingface_models.is_hub_model(checkpoint)
    return checkpoint.partition("@")[0] if is_there else ""


def facts_of(workdir: Path) -> Facts:
    """Returns what the workdir of a run tells; what is not there, or damaged, stays empty."""
    try:
        step, run = newest_run(path_of(workdir) / CHECKPOINTS)
    except OSError:
        step, run = None, {}
    try:
        outcome = json_object(read_bounded(workdir / "scores.json", _MAX_BYTES))
    except (OSError, ValueError):
        outcome = {}
    found, config = outcome.get("scores"), run.get("config")
    scores = {
        str(name): {key: each.get(key) for key in ("value", "low", "high")}
        for name, each in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(each, Mapping) and is_number(each.get("value"))
    }
    warnings = outcome.get("warnings")
    return Facts(
        config if isinstance(config, Mapping) else {},
        step or 0,
        scores,
        tuple(map(str, warnings)) if isinstance(warnings, list) else (),
    )


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
