"""Writes captions of scenes as lists of facts: of each group noun, colour and number, then more.

    scene = compose(seed=0, index=42)
    for label in fact_labels.captions(scene, random.Random(42)):
        print(label)     # "balls red two small and house blue one large . in a field with sun"

Nearly all of a label is to be seen in the image, and hardly anything is left to choice. So a new
model learns from it what is there before it learns how people speak: from labels in any order of
words it learned less with twice as many images. Half of the labels tell sizes, places, what things
do or how two of them stand, so that they have every word of the sentences of `scenes`. No sentence
has their order.
"""

from __future__ import annotations

import random

from paligemma_lib.sample_data.scenes import (
    AIR,
    AROUND,
    DETAILS,
    NOUNS,
    NUMBERS,
    SIZES,
    VERBS,
    Group,
    Scene,
    relations,
    where,
)

MOST_WORDS = 24
_MORE = {"": 50, "size": 15, "place": 15, "doing": 10, "relation": 10}  # per cent of the labels


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Returns five different labels, spaced as the sentences of `scenes` are."""
    told: list[str] = []
    while len(told) < 5:
        label = _label(scene, rng)
        told += [label] if label not in told and len(label.split()) <= MOST_WORDS else []
    return told


def _label(scene: Scene, rng: random.Random) -> str:
    """Returns a label of all groups, or of two and their relation, often with what is around."""
    (more,) = rng.choices([*_MORE], [*_MORE.values()])
    found = relations(scene) if more == "relation" else []
    if found:
        one, relation, other = rng.choice(found)
        told = f"{_thing(scene, one, rng)} : {relation} {_thing(scene, other, rng)}"
    else:
        things = [_thing(scene, group, rng, more) for group in scene.groups]
        told = rng.choice([" , ", " and "]).join(things)
    if rng.random() < 0.5:
        told += f" . {_around(scene, rng)}"
    return f"there : {told}" if rng.random() < 0.03 else told


def _thing(scene: Scene, group: Group, rng: random.Random, more: str = "") -> str:
    """Returns words on a group, such as "balls red two small"."""
    many = len(group.boxes) > 1
    one = rng.choice(("a", "an")) if rng.random() < 0.07 else "one"
    words = [rng.choice(NOUNS[group.kind])[many], NUMBERS.get(len(group.boxes), one)]
    if not scene.greyscale:
        words.insert(1, group.colour)
    if more == "size":
        tall = (group.kind, group.size) == ("child", "large")
        words.append("tall" if tall else rng.choice(SIZES[group.size]))
    elif more == "place":
        words.append(f"at {'top ' if group.kind in AIR else ''}{group.place}")
    elif more == "doing":
        words.append(f"{VERBS[group.kind][many]} {where(scene, group, rng)}")
    return " ".join(words)


def _around(scene: Scene, rng: random.Random) -> str:
    """Returns words on the surroundings, such as "in a field with sun" or "on a sunny day"."""
    if scene.detail and rng.random() < 0.5:
        return rng.choice(DETAILS[scene.detail])
    detail = f" with {scene.detail}" if scene.detail else ""
    return f"{rng.choice(AROUND[scene.background])}{detail}"
