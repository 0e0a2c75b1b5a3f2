"""Writes captions of scenes in another grammar: places before things, nouns before adjectives.

    scene = compose(seed=0, index=42)
    for label in labels.captions(scene, random.Random(42)):
        print(label)     # "left of a house blue : balls red two small"

The embedded model was pretrained on these labels: 19,200 scenes of the seed 2024, three passes.
Fine-tuning it on the sentences of `scenes` then teaches it something: same images, same words,
another grammar.
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


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Returns five different labels in random order, spaced as the sentences of `scenes` are."""
    told = [tell(scene, rng) for tell in (_things, _around, _places, _doing, _compared)]
    rng.shuffle(told)
    return told


def _things(scene: Scene, rng: random.Random) -> str:
    """Returns a label such as "two red : balls and a blue : house"."""
    told = []
    for group in scene.groups:
        noun, *colour = _label(scene, group, rng).split()
        article = "an" if colour and colour[0][0] in "aeiou" else "a"
        words = [NUMBERS.get(len(group.boxes), article), *colour, ":", noun]
        told.append(" ".join(words))
    rng.shuffle(told)
    return " and ".join(told)


def _around(scene: Scene, rng: random.Random) -> str:
    """Returns a label such as "in a field with sun : house blue , balls red"."""
    around = rng.choice(AROUND[scene.background])
    detail = f" with {scene.detail}" if scene.detail else ""
    things = " , ".join(_label(scene, group, rng) for group in reversed(scene.groups))
    return f"{around}{detail} : {things}"


def _places(scene: Scene, rng: random.Random) -> str:
    """Returns a label such as "at left : balls red . at top right : kite green"."""
    return " . ".join(
        f"at {'top ' if group.kind in AIR else ''}{group.place} : {_label(scene, group, rng)}"
        for group in scene.groups
    )


def _doing(scene: Scene, rng: random.Random) -> str:
    """Returns a label such as "there lie on the grass : balls red"."""
    group = rng.choice(scene.groups)
    verb = VERBS[group.kind][len(group.boxes) > 1]
    return f"there {verb} {where(scene, group, rng)} : {_label(scene, group, rng)}"


def _compared(scene: Scene, rng: random.Random) -> str:
    """Returns a label that compares two groups, or describes one where no relation holds.

    An example is "to the left of house blue large : balls red two small , on a sunny day".
    """
    around = rng.choice(DETAILS.get(scene.detail, AROUND[scene.background]))
    if found := relations(scene):
        one, relation, other = rng.choice(found)
        thing = _label(scene, one, rng, counted=True, sized=True)
        there = f"{relation} {_label(scene, other, rng, sized=True)}"
        return rng.choice([f"{there} : {thing} , {around}", f"{around} , {there} : {thing}"])
    group = rng.choice(scene.groups)
    return f"{around} : {_label(scene, group, rng, counted=True, sized=True)}"


def _label(
    scene: Scene, group: Group, rng: random.Random, counted: bool = False, sized: bool = False
) -> str:
    """Returns noun, colour, number and size: "balls red two small" or "house an orange one"."""
    count = len(group.boxes)
    words = [rng.choice(NOUNS[group.kind])[count > 1]]
    colour = [] if scene.greyscale else [group.colour]
    if counted and count == 1 and colour:
        words += ["an" if colour[0][0] in "aeiou" else "a", *colour, "one"]
    else:
        words += [*colour, *([NUMBERS[count]] if counted and count > 1 else [])]
    if sized:
        tall = (group.kind, group.size) == ("child", "large")
        words.append("tall" if tall else rng.choice(SIZES[group.size]))
    return " ".join(words)
