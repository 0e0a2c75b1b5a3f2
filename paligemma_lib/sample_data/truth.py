"""Says what is true, false and missing in a caption of a drawn scene.

    found = truth(compose(seed=0, index=42), "Two red balls lie on the grass .")
    found.is_true, found.is_whole              # every word is true; every group is named, too
    [each for each in found.said if not each.true]      # Statement("number", "two", False)

The grammar is that of `scenes.captions`, by whoever it is written: a model that has learned the
wording is read as people's captions are. What does not belong to it is unread, and not true. Where
a place may be that of either of two things, it is enough that it is that of one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from paligemma_lib.sample_data import scenes
from paligemma_lib.sample_data.composing import COLOURS
from paligemma_lib.sample_data.scenes import Group, Scene

About = Literal["kind", "number", "colour", "size", "doing", "place", "relation", "surroundings"]

_COUNTS = {"a": 1, "an": 1, "one": 1} | {word: count for count, word in scenes.NUMBERS.items()}
_SIZES = {word: size for size, words in scenes.SIZES.items() for word in words} | {"tall": "large"}
_KINDS = {noun: kind for kind, nouns in scenes.NOUNS.items() for pair in nouns for noun in pair}
_PLURALS = {plural for nouns in scenes.NOUNS.values() for _, plural in nouns}
_PLACES = {
    "on the left": "left",
    "in the middle": "middle",
    "on the right": "right",
    "at the top left": "left",
    "at the top": "middle",
    "at the top right": "right",
}
_RELATIONS = ("to the left of", "to the right of", "next to", "above", "under")
_AROUND = {text for texts in (scenes.AROUND | scenes.DETAILS).values() for text in texts}
_STANDING = {text for texts in scenes.UNDERFOOT.values() for text in texts}
_STANDING |= {*scenes.AFLOAT, *scenes.SKY}
_DOING = {verb.split()[-1] for pair in scenes.VERBS.values() for verb in pair}
_FILLERS = {"there", "is", "are", "and", "with", ",", "."}
# The longest first: "under the moon" is no relation, "at the top left" is not "at the top".
_PHRASES = sorted(
    {*_PLACES, *_RELATIONS, *_AROUND, *_STANDING}, key=lambda text: -len(text.split())
)


class Statement(NamedTuple):
    """Something that a caption says.

    Attributes:
      about: what it is about. "number" is also singular or plural; "doing" is the verb; "place" is
        also what a thing stands on; "surroundings" is what is around all of them.
      text: the words.
      true: whether it holds in the scene.
    """

    about: About
    text: str
    true: bool


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a caption says of a scene.

    Attributes:
      said: its statements, in order. A thing that is not there, or that is named twice, has a false
        "kind", and nothing more is said of it.
      missing: kinds of groups that it does not name.
      unread: words that are of no statement.
    """

    said: tuple[Statement, ...]
    missing: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def is_true(self) -> bool:
        """Whether it names something, and every word is true."""
        named = any(each.about == "kind" for each in self.said)
        return named and not self.unread and all(each.true for each in self.said)

    @property
    def is_whole(self) -> bool:
        """Whether it is true, and names every group."""
        return self.is_true and not self.missing

    def things(self) -> list[bool]:
        """Returns for each thing whether kind, number and colour are right."""
        found: list[bool] = []
        for each in self.said:
            if each.about == "kind":
                found.append(each.true)
            elif each.about in ("number", "colour"):
                found[-1] &= each.true
        return found


def truth(scene: Scene, caption: str) -> Truth:
    """Reads a caption and holds it against its scene."""
    words = re.findall(r"[\w-]+|[^\w\s]", caption.lower())
    groups = {group.kind: group for group in scene.groups}
    named: set[str] = set()
    said: list[Statement] = []
    unread: list[str] = []
    last: list[Group] = []  # what was named last, and what that is related to
    relation: str | None = None  # whose other side comes next
    at = 0
    while at < len(words):
        if (thing := _thing(words, at)) is not None:
            kind = _KINDS[thing.noun]
            group = groups.get(kind) if kind not in named else None
            said += _of_thing(scene, thing, group)
            new = [group] if group is not None else []
            named |= {each.kind for each in new}
            if relation is not None:
                holds = any((one, relation, group) in scenes.relations(scene) for one in last)
                said.append(Statement("relation", relation, holds))
            last = new if relation is None else last + new
            relation = None
            at += thing.length
        elif (phrase := _phrase(words, at)) is not None:
            if phrase in _RELATIONS:
                relation = phrase
            else:
                said.append(_of_phrase(scene, last, phrase))
            at += len(phrase.split())
        elif words[at] in _DOING:
            verbs = {v.split()[-1] for one in last for v in scenes.VERBS[one.kind]}
            said.append(Statement("doing", words[at], words[at] in verbs))
            at += 1
        else:
            unread += [] if words[at] in _FILLERS else [words[at]]
            at += 1
    if relation is not None:
        unread.append(relation)  # to nothing
    return Truth(tuple(said), tuple(sorted(groups.keys() - named)), tuple(unread))


class _Thing(NamedTuple):
    number: str | None
    size: str | None
    colour: str | None
    noun: str
    length: int


def _thing(words: list[str], first: int) -> _Thing | None:
    """Reads "two small red balls" or "a child in red", from a word on."""
    at, found = first, []
    for table in (_COUNTS, _SIZES, COLOURS):
        known = at < len(words) and words[at] in table
        found.append(words[at] if known else None)
        at += known
    if at == len(words) or (noun := words[at]) not in _KINDS:
        return None
    number, size, colour = found
    dressed = _KINDS[noun] == "child" and words[at + 1 : at + 2] == ["in"]
    if colour is None and dressed and at + 2 < len(words) and words[at + 2] in COLOURS:
        return _Thing(number, size, words[at + 2], noun, at + 3 - first)
    return _Thing(number, size, colour, noun, at + 1 - first)


def _phrase(words: list[str], first: int) -> str | None:
    for text in _PHRASES:
        length = len(text.split())
        if text.split() == words[first : first + length]:
            return text
    return None


def _of_thing(scene: Scene, thing: _Thing, group: Group | None) -> Iterator[Statement]:
    yield Statement("kind", thing.noun, group is not None)
    if group is None:
        return
    count = len(group.boxes)
    agrees = (thing.noun in _PLURALS) == (count > 1)
    if thing.number is not None:
        agrees &= _COUNTS[thing.number] == count
    yield Statement("number", thing.number or thing.noun, agrees)
    if thing.colour is not None:
        seen = not scene.greyscale and thing.colour == group.colour
        yield Statement("colour", thing.colour, seen)
    if thing.size is not None:
        yield Statement("size", thing.size, _SIZES[thing.size] == group.size)


def _of_phrase(scene: Scene, last: list[Group], text: str) -> Statement:
    around = (*scenes.AROUND[scene.background], *scenes.DETAILS.get(scene.detail, ()))
    if text in around:
        return Statement("surroundings", text, True)
    if text in _AROUND and text not in _STANDING:
        return Statement("surroundings", text, False)
    return Statement("place", text, any(_is_at(scene, group, text) for group in last))


def _is_at(scene: Scene, group: Group, text: str) -> bool:
    if text not in _PLACES:
        return text in _standing(scene, group)
    at_its_height = (group.kind in scenes.AIR) == text.startswith("at the top")
    return at_its_height and group.place == _PLACES[text]


def _standing(scene: Scene, group: Group) -> tuple[str, ...]:
    """Returns all texts of `scenes.where`."""
    if group.kind in scenes.AIR:
        return scenes.OVERHEAD.get(scene.background, scenes.SKY)
    if group.kind in scenes.WATER:
        return scenes.AFLOAT
    return scenes.UNDERFOOT.get(scene.background, ())
