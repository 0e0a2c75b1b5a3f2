"""Draws scenes to pretrain a small model on, each when it is read: no folder holds them.

    source = PretrainingScenes("0:300000")
    source.read([17])[0].captions       # a label, see `labels`

Some things never come together in these scenes, so that a fine-tuned model can be asked about
combinations that are new to it, see `held_out`.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Sequence

from paligemma_lib.data.sources.protocol import Record, check_numbers
from paligemma_lib.sample_data import labels
from paligemma_lib.sample_data.composing import compose
from paligemma_lib.sample_data.drawing import draw
from paligemma_lib.sample_data.scenes import Scene

SEED = 2024  # scenes of other seeds are other scenes
COLOURS_APART = {  # kind -> a colour that nothing of this kind has
    "ball": "green",
    "house": "purple",
    "car": "white",
    "child": "orange",
    "boat": "blue",
    "duck": "red",
    "kite": "yellow",
    "balloon": "black",
}
AT_MOST_THREE = ("car", "dog", "duck", "kite")  # kinds of which there are never four


def held_out(scene: Scene) -> bool:
    """Whether the scene holds a combination that no scene of the pretraining has."""
    return any(
        (not scene.greyscale and COLOURS_APART.get(group.kind) == group.colour)
        or (group.kind in AT_MOST_THREE and len(group.boxes) > 3)
        for group in scene.groups
    )


class PretrainingScenes:
    """A source of scenes that are drawn when they are read.

    Args:
      numbers: "FIRST:END", the first scene and the one after the last, such as "0:300000".

    Raises:
      ValueError: `numbers` has another form, or there are none.
    """

    def __init__(self, numbers: str) -> None:
        found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", numbers)
        if not found or int(found[1]) >= int(found[2]):
            raise ValueError(f"scenes {numbers!r:.60}: expected FIRST:END, such as 0:300000")
        self._first, self._end = int(found[1]), int(found[2])

    def __len__(self) -> int:
        return self._end - self._first

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Returns images, drawn now, with their labels."""
        return self._records(numbers, drawn=True)

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns labels without their images."""
        return self._records(numbers, drawn=False)

    def where(self, number: int) -> str:
        return f"scene {self._first + number}"

    def fingerprint(self) -> str:
        return f"{SEED}{self._first:09d}{self._end:09d}"

    def _records(self, numbers: Sequence[int], drawn: bool) -> list[Record]:
        check_numbers(numbers, len(self))
        return [_record(self._first + int(number), drawn) for number in numbers]


def _record(number: int, drawn: bool) -> Record:
    scene = scene_of(number)
    image = b""
    if drawn:
        file = io.BytesIO()
        drawing = draw(scene, random.Random(f"{SEED}/{number}/drawing"))
        drawing.save(file, "JPEG", quality=92, subsampling=0)
        image = file.getvalue()
    label, *_ = labels.captions(scene, random.Random(f"{SEED}/{number}/wording"))
    return Record(image, (label,), f"scene {number}")


def scene_of(number: int) -> Scene:
    """Returns scene `number`: the first of a sequence of its own that holds nothing held out."""
    tries = 0
    while held_out(scene := compose(SEED, number + tries * 1_000_000_000)):
        tries += 1
    return scene
