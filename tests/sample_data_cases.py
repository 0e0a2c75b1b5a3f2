"""Scenes of paligemma_lib.sample_data with what is said of them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from paligemma_lib import sample_data
from paligemma_lib.sample_data import labels, scenes

COUNT = 400  # scenes looked at where no image is drawn


def sentences_of(index: int, seed: int = 0) -> tuple[scenes.Scene, list[str]]:
    scene = sample_data.compose(seed, index)
    return scene, scenes.captions(scene, random.Random(f"{seed}/{index}/wording"))


def labels_of(index: int, seed: int = 0) -> tuple[scenes.Scene, list[str]]:
    scene = sample_data.compose(seed, index)
    return scene, labels.captions(scene, random.Random(f"{seed}/{index}/wording"))


def rows(folder: Path) -> list[list[str]]:
    """Of captions.txt, its header first."""
    with open(folder / "captions.txt", newline="", encoding="ascii") as file:
        return list(csv.reader(file))
