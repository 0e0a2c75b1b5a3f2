"""Writes captions of scenes as lists of facts: of each group noun, colour and number, then more.

    scene = compose(seed=0, index=42)
    for label in labels.captions(scene, random.Random(42)):
        print(label)     # "red balls two small and blue house one large . in a field with sun"

The embedded model was pretrained on these labels. Fine-tuning it on the sentences of `scenes` then
teaches it something: same images, same words, another order. A label has one order of noun, colour
and number for all of its things, any but that of sentences: so a model learns to choose a thing
before any word of it is told. After 96,000 scenes with the noun always first, 85 % of the captions
of the default run became true; after 224,000 scenes with these labels, 90 %.

Nearly all of a label is to be seen in the image. Half of the labels tell sizes, places, what things
do or how two of them stand, so that they have every word of the sentences.
"""

from __future__ import annotations

import itertools
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

MOST_WORDS = 20
_SENTENCE = ("number", "colour", "noun")
_ORDERS = [order for order in itertools.permutations(_SENTENCE) if order != _SENTENCE]
_WITHOUT_COLOUR = ("noun", "number")
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
    order = rng.choice(_ORDERS)
    found = relations(scene) if more == "relation" else []
    if found:
        one, relation, other = rng.choice(found)
        told = f"{_thing(scene, one, order, rng)} : {relation} {_thing(scene, other, order, rng)}"
    else:
        things = [_thing(scene, group, order, rng, more) for group in scene.groups]
        told = rng.choice([" , ", " and "]).join(things)
    if rng.random() < 0.5:
        told += f" . {_around(scene, rng)}"
    return f"there : {told}" if rng.random() < 0.03 else told


def _thing(
    scene: Scene, group: Group, order: Sequence[str], rng: random.Random, more: str = ""
) -> str:
    """Returns words on a group, such as "red balls two small"."""
    many = len(group.boxes) > 1
    one = rng.choice(("a", "an")) if rng.random() < 0.07 else "one"
    told = {
        "noun": rng.choice(NOUNS[group.kind])[many],
        "colour": group.colour,
        "number": NUMBERS.get(len(group.boxes), one),
    }
    words = [told[part] for part in (_WITHOUT_COLOUR if scene.greyscale else order)]
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
