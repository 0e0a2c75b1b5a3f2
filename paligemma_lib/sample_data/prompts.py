"""Writes prompts with true answers about scenes: where things are, their masks, and questions.

    scene = compose(seed=0, index=42)
    for prefix, suffix in boxes(scene, random.Random(42)):
        print(prefix, "->", suffix)       # detect ball -> <loc0600><loc0102>... ball ; <loc0612>...

The prompts are PaliGemma's own: `detect ball`, `segment ball`, `answer en how many balls are
there?`
"""

from __future__ import annotations

import random

from paligemma_lib.regions import Box, MaskCodec, Region, region_of, write_regions
from paligemma_lib.sample_data.drawing import draw_masks
from paligemma_lib.sample_data.scenes import NOUNS, Group, Scene

_ABSENT = 0.5  # share of questions "is there ...?" about what is not there


def boxes(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Returns a prompt for each kind of thing in the scene, and the boxes of all of that kind."""
    del rng  # nothing is left to choice: boxes are written from left to right
    return [(f"detect {_noun(group)}", write_regions(_regions(group))) for group in scene.groups]


def masks(scene: Scene, rng: random.Random, codec: MaskCodec) -> list[tuple[str, str]]:
    """Returns a prompt for each kind of which the scene has one thing, and its box and mask.

    Kinds with several things are left out, so that no text is longer than 4 <loc>, 16 <seg> and a
    noun. A vocabulary without these tokens, such as that of `nano`, spells them in nine and seven:
    a text has 150 tokens, and one of four things would have 600. A scene may have no prompt.

    Args:
      scene: as `compose` returns it.
      rng: as it was before `draw`, so that the masks fit the image.
      codec: makes the codes of the masks.
    """
    drawn = draw_masks(scene, rng)
    return [
        (
            f"segment {_noun(group)}",
            write_regions([region_of(drawn[group.boxes[0]], codec, _noun(group))]),
        )
        for group in scene.groups
        if len(group.boxes) == 1
    ]


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Returns questions about a thing in the scene with their answers, of a word each."""
    group = rng.choice(scene.groups)
    noun, plural = NOUNS[group.kind][0]
    asked = [
        (f"how many {plural} are there?", str(len(group.boxes))),
        (
            f"where is the {noun}?" if len(group.boxes) == 1 else f"where are the {plural}?",
            group.place,
        ),
    ]
    if not scene.greyscale:
        verb, name = ("is", noun) if len(group.boxes) == 1 else ("are", plural)
        asked.append((f"what colour {verb} the {name}?", group.colour))
    there = {each.kind for each in scene.groups}
    if rng.random() < _ABSENT:
        kind = rng.choice([kind for kind in NOUNS if kind not in there])
    else:
        kind = group.kind
    asked.append((f"is there a {NOUNS[kind][0][0]}?", "yes" if kind in there else "no"))
    return [(f"answer en {question}", answer) for question, answer in asked]


def _noun(group: Group) -> str:
    return NOUNS[group.kind][0][0]


def _regions(group: Group) -> list[Region]:
    ordered = sorted(group.boxes)
    return [
        Region(_noun(group), Box(top, left, bottom, right)) for left, top, right, bottom in ordered
    ]
