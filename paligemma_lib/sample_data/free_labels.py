"""Writes captions of scenes in another grammar, whose words stand in any order but people's.

    scene = compose(seed=0, index=42)
    for label in free_labels.captions(scene, random.Random(42)):
        print(label)     # "balls small two red and house blue a . in a field with sun"

A label says of every group its number, colour and kind, some also size, place and what it does. All
groups of a label have one order of words, and no two labels need have the same. The embedded model
was pretrained on labels (`recipes/pretrain_nano.py`). Fine-tuning it on the sentences of `scenes`
then teaches it something: same images, same words, another grammar.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

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

ALWAYS = ("number", "colour", "noun")  # in this order they would be a sentence's: it is left out
SOMETIMES = ("size", "place", "doing")
MOST_WORDS = 24


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Returns five different labels, spaced as the sentences of `scenes` are."""
    told: list[str] = []
    while len(told) < 5:
        label = _label(scene, rng)
        told += [label] if label not in told and len(label.split()) <= MOST_WORDS else []
    return told


def _label(scene: Scene, rng: random.Random) -> str:
    """Returns a label of all groups, often with a relation of two and what is around them."""
    order = _order(rng)
    found = relations(scene) if rng.random() < 0.5 else []
    related = rng.choice(found) if found else None
    things = []
    for group in rng.sample(scene.groups, len(scene.groups)):
        words = _thing(scene, group, order, rng)
        if related and group == related[0]:
            other = _thing(scene, related[2], order[: order.index("noun") + 1], rng)
            words = f"{related[1]} {other} : {words}"
        things.append(words)
    parts = [rng.choice([" , ", " and "]).join(things)]
    if rng.random() < 0.75:
        parts.insert(rng.randrange(2), _around(scene, rng))
    there = "there : " if rng.random() < 0.1 else ""
    return there + " . ".join(parts)


def _order(rng: random.Random) -> list[str]:
    """Returns what is said of each group, in an order that no sentence has."""
    said = [*ALWAYS, *(each for each in SOMETIMES if rng.random() < 0.4)]
    while True:
        rng.shuffle(said)
        if tuple(each for each in said if each in ALWAYS) != ALWAYS:
            return said


def _thing(scene: Scene, group: Group, order: Sequence[str], rng: random.Random) -> str:
    """Returns words on a group, such as "balls small two red"."""
    many = len(group.boxes) > 1
    tall = (group.kind, group.size) == ("child", "large")
    words = {
        "number": NUMBERS.get(len(group.boxes), "a"),
        "colour": "" if scene.greyscale else group.colour,
        "noun": rng.choice(NOUNS[group.kind])[many],
        "size": "tall" if tall else rng.choice(SIZES[group.size]),
        "place": f"at {'top ' if group.kind in AIR else ''}{group.place}",
        "doing": f"{VERBS[group.kind][many]} {where(scene, group, rng)}",
    }
    told = [words[each] for each in order if words[each]]
    for at, (word, after) in enumerate(zip(told, [*told[1:], ""], strict=True)):
        if word == "a":
            told[at] = "one" if not after else "an" if after[0] in "aeiou" else "a"
    return " ".join(told)


def _around(scene: Scene, rng: random.Random) -> str:
    """Returns words on the surroundings, such as "in a field with sun" or "on a sunny day"."""
    if scene.detail and rng.random() < 0.5:
        return rng.choice(DETAILS[scene.detail])
    detail = f" with {scene.detail}" if scene.detail else ""
    return f"{rng.choice(AROUND[scene.background])}{detail}"
