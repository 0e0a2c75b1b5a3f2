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

from paligemma_lib import hub
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.hub_reference import parse
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.record import COMMITS, ORIGIN
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.train.compatibility import CHECKPOINTS, newest_run

_MAX_BYTES = 4 << 20
_HANDLE = re.compile(r"(?P<owner>google)/paligemma(-?2)?/\w+/(?P<name>[\w-]+)(/\d+)?")  # of Kaggle
_PROMPTS = {  # by task
    "answer": "answer en what colour is it?",
    "detect": "detect dog",
    "segment": "segment dog",
}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of how a model came about; all of it may be empty.

    Attributes:
      config: config of its run, nested.
      steps: number of steps of its newest checkpoint.
      scores: name -> value, low and high, times 100.
      warnings: what speaks against believing the scores.
      origin: what its run found behind names when it started, see `origin_of`.
      commits: of data sets of the Hub that it read, by repository and revision.
    """

    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 0
    scores: Mapping[str, Mapping[str, float | None]] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    commits: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def base(self) -> str:
        """The model it began with, as `hub_name`; "" for others, or where that is not recorded."""
        return str(self.origin.get("base", ""))

    @property
    def prompt(self) -> str:
        """A prompt that the model was trained for."""
        task = str(self.config.get("task", "caption"))
        return _PROMPTS.get(task) or str(self.config.get("prompt", "caption en"))

    @property
    def data(self) -> str:
        """The training data: a data set by its name, of a local path the last part."""
        return ", ".join(self._told(path) for path in self._trained_on)

    @property
    def datasets(self) -> list[str]:
        """The training data that are on the Hub, as OWNER/NAME."""
        return [name for path in self._trained_on if (name := self._dataset(path))]

    @property
    def _trained_on(self) -> list[str]:
        data = self.config.get("data", {})
        if self.origin.get("data_given") or not data:  # by a program, whatever the config says
            return []
        mixture = [part.get("train") for part in data.get("mixture") or []]
        return [str(path) for path in mixture or [data.get("train", "")]]

    def _told(self, path: str) -> str:
        if self._dataset(path):
            return path.removeprefix("hf://datasets/")
        if "/" in path or "\\" in path:
            return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
        name = str(self.config["data"].get("name", ""))
        drawn = f"{name} drawn scenes" if name.isdecimal() else name
        return f"{drawn}, {path}" if path not in ("", "train") else drawn

    def _dataset(self, path: str) -> str:
        """Returns OWNER/NAME of data that the run took from the Hub; "" for others."""
        place, _ = split_path(path)
        try:
            reference = parse(place)
        except ValueError:
            return ""
        is_there = place.startswith("hf://") or reference.name in self.commits
        return reference.repo if is_there else ""


def origin_of(config: RunConfig, *, data_given: bool) -> dict[str, Any]:
    """Returns what a run records of the names in its config, while they mean what they mean there.

    Whether `mine/train` is a folder or on the Hub depends on the working directory.

    Args:
      config: the run.
      data_given: whether a program gave the data, instead of the config.
    """
    return {"base": hub_name(config.model.checkpoint), "data_given": data_given}


def hub_name(checkpoint: str) -> str:
    """Returns OWNER/NAME or OWNER/NAME@REVISION of a model of the Hub; "" for one that is none.

    Names of Kaggle for the published models become those of the Hub.
    """
    if hub.is_kaggle(checkpoint) and (found := _HANDLE.fullmatch(checkpoint)):
        return f"{found['owner']}/{found['name']}"
    return checkpoint if hub.is_hub_model(checkpoint) else ""


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
    found = outcome.get("scores")
    scores = {
        str(name): {key: each.get(key) for key in ("value", "low", "high")}
        for name, each in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(each, Mapping) and is_number(each.get("value"))
    }
    warnings = outcome.get("warnings")
    config, origin, commits = (
        each if isinstance(each := run.get(name), Mapping) else {}
        for name in ("config", ORIGIN, COMMITS)
    )
    return Facts(
        config,
        step or 0,
        scores,
        tuple(map(str, warnings)) if isinstance(warnings, list) else (),
        origin,
        commits,
    )


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
