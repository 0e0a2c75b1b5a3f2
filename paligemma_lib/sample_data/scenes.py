"""Describes a scene, and writes five captions of it as five people would.

    scene = compose(seed=0, index=42)
    for caption in scenes.captions(scene, random.Random(42)):
        print(caption)     # "Two red balls lie on the grass to the left of a blue house ."

Every word of a caption is true of its scene. The wording comes only from `captions` and the tables
above it; another wording of the same scenes is another such function, as in `labels`.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the image
AIR = ("kite", "balloon")  # kinds that fly
WATER = ("boat", "duck")  # kinds that swim; all others stand on land
SHORE = 0.18  # height of the sea below the horizon at a beach, as a fraction of the image's height


@dataclass(frozen=True)
class Group:
    """One to four objects of the same kind, colour and size, close together."""

    kind: str
    colour: str
    size: str
    boxes: tuple[Box, ...]

    @property
    def bounds(self) -> Box:
        left, top, right, bottom = zip(*self.boxes, strict=True)
        return min(left), min(top), max(right), max(bottom)

    @property
    def place(self) -> str:
        """Place of the group's centre: "left", "middle" or "right"."""
        left, _, right, _ = self.bounds
        centre = (left + right) / 2
        return "left" if centre < 0.4 else "right" if centre > 0.6 else "middle"

    def is_left_of(self, other: Group) -> bool:
        """Whether all of this group is to the left of another one, and both are on the surface."""
        # Nobody says that a kite is to the left of a car.
        beside = self.kind not in AIR and other.kind not in AIR
        return beside and self.bounds[2] < other.bounds[0]

    def is_above(self, other: Group) -> bool:
        """Whether this group flies above another one, their centres less than 0.1 widths apart."""
        mine, its = self.bounds, other.bounds
        # left + right is twice the centre.
        near = abs(mine[0] + mine[2] - its[0] - its[2]) < 0.2
        return self.kind in AIR and near and mine[3] < its[1]


@dataclass(frozen=True)
class Scene:
    """All that captions may mention. Groups on the surface come first, from left to right."""

    width: int  # pixels
    height: int
    greyscale: bool
    background: str
    horizon: float  # upper edge of the surface, as a fraction of the height
    detail: str  # what captions may mention of the background, or ""
    detail_box: Box
    groups: tuple[Group, ...]


NUMBERS = {2: "two", 3: "three", 4: "four"}
SIZES = {"small": ("small", "little"), "large": ("large", "big")}
NOUNS = {  # kind -> synonyms, each with singular and plural
    "ball": (("ball", "balls"),),
    "house": (("house", "houses"),),
    "tree": (("tree", "trees"),),
    "car": (("car", "cars"),),
    "dog": (("dog", "dogs"),),
    "child": (("child", "children"), ("kid", "kids")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "duck": (("duck", "ducks"),),
    "kite": (("kite", "kites"),),
    "balloon": (("balloon", "balloons"),),
}
VERBS = {  # kind -> singular, plural
    "ball": ("lies", "lie"),
    "house": ("stands", "stand"),
    "tree": ("grows", "grow"),
    "car": ("is parked", "are parked"),
    "dog": ("stands", "stand"),
    "child": ("stands", "stand"),
    "boat": ("sails", "sail"),
    "duck": ("swims", "swim"),
    "kite": ("flies", "fly"),
    "balloon": ("floats", "float"),
}
AROUND = {  # true of everything in the image
    "meadow": ("in a meadow", "in a field"),
    "beach": ("at the beach", "by the sea"),
    "sea": ("at sea", "out at sea"),
    "snow": ("on a snowy day", "in winter"),
    "night": ("at night", "in the dark"),
    "room": ("in a room", "indoors"),
}
UNDERFOOT = {  # true of all that stands on land
    "meadow": ("on the grass", "in the grass"),
    "beach": ("on the sand",),
    "snow": ("in the snow", "on the snow"),
    "night": ("on the ground",),
    "room": ("on the floor",),
}
AFLOAT = ("on the water", "on the waves")
OVERHEAD = {"room": ("in the air",)}  # other backgrounds: SKY
SKY = ("in the sky", "in the air")
DETAILS = {
    "sun": ("on a sunny day", "under the sun"),
    "clouds": ("on a cloudy day", "under the clouds"),
    "moon": ("under the moon", "under a full moon"),
    "window": ("in a room with a window",),
}


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Returns five different captions, brief to detailed, in random order, spaced as Flickr8k's."""
    told = [tell(scene, rng) for tell in (_brief, _listed, _placed, _related, _detailed)]
    rng.shuffle(told)
    return [f"{text[0].upper()}{text[1:]} ." for text in told]


def _brief(scene: Scene, rng: random.Random) -> str:
    return _join([_phrase(scene, group, rng) for group in scene.groups])


def _listed(scene: Scene, rng: random.Random) -> str:
    things = _join([_phrase(scene, group, rng) for group in scene.groups])
    around = rng.choice(AROUND[scene.background])
    there_is = "there is" if len(scene.groups[0].boxes) == 1 else "there are"
    return rng.choice([f"{things} {around}", f"{there_is} {things} {around}"])


def _placed(scene: Scene, rng: random.Random) -> str:
    parts = []
    for group in scene.groups:
        if group.kind in AIR:
            place = "at the top" if group.place == "middle" else f"at the top {group.place}"
        else:
            place = "in the middle" if group.place == "middle" else f"on the {group.place}"
        parts.append(f"{_phrase(scene, group, rng)} {place}")
    return _join(parts)


def _related(scene: Scene, rng: random.Random) -> str:
    found = relations(scene)
    if not found:
        return _join([_acting(scene, group, rng) for group in scene.groups])
    one, relation, other = rng.choice(found)
    return f"{_acting(scene, one, rng)} {relation} {_phrase(scene, other, rng)}"


def _detailed(scene: Scene, rng: random.Random) -> str:
    on_surface = [group for group in scene.groups if group.kind not in AIR]
    text = _acting(scene, on_surface[0], rng, sized=True)
    if len(on_surface) == 2:
        text += f" to the left of {_phrase(scene, on_surface[1], rng, sized=True)}"
    for group in scene.groups[len(on_surface) :]:
        text += f" , with {_phrase(scene, group, rng, sized=True)} {where(scene, group, rng)}"
    around = rng.choice(DETAILS.get(scene.detail, AROUND[scene.background]))
    return rng.choice([f"{around} , {text}", f"{text} {around}"])


def relations(scene: Scene) -> list[tuple[Group, str, Group]]:
    """Returns all true relations of two groups, such as (balls, "to the left of", house)."""
    found = []
    for a, b in itertools.permutations(scene.groups, 2):
        if a.is_left_of(b):
            found += [(a, "to the left of", b), (b, "to the right of", a)]
        if a.is_left_of(b) and b.bounds[0] - a.bounds[2] < 0.2:
            found += [(a, "next to", b), (b, "next to", a)]
        if a.is_above(b):
            found += [(a, "above", b), (b, "under", a)]
    return found


def _phrase(scene: Scene, group: Group, rng: random.Random, sized: bool = False) -> str:
    """Returns the name of a group, such as "two small red balls" or "a child in red"."""
    count = len(group.boxes)
    words = [rng.choice(NOUNS[group.kind])[count > 1]]
    if not scene.greyscale:
        words = [*words, "in", group.colour] if group.kind == "child" else [group.colour, *words]
    if sized:
        tall = (group.kind, group.size) == ("child", "large")
        words = ["tall" if tall else rng.choice(SIZES[group.size]), *words]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([NUMBERS.get(count, article), *words])


def _acting(scene: Scene, group: Group, rng: random.Random, sized: bool = False) -> str:
    """Returns what a group does and where, such as "two red balls lie on the grass"."""
    verb = VERBS[group.kind][len(group.boxes) > 1]
    return f"{_phrase(scene, group, rng, sized)} {verb} {where(scene, group, rng)}"


def where(scene: Scene, group: Group, rng: random.Random) -> str:
    """Returns the place of a group, such as "on the grass"."""
    if group.kind in AIR:
        return rng.choice(OVERHEAD.get(scene.background, SKY))
    return rng.choice(AFLOAT if group.kind in WATER else UNDERFOOT[scene.background])


def _join(parts: list[str]) -> str:
    """Joins one, two or three parts: "a", "a and b" or "a , b and c"."""
    return " , ".join([*parts[:-2], " and ".join(parts[-2:])])
