"""Checks that captions and references have the right types and belong to the same images.

check_captions({"a.jpg": ["A dog runs."]}, {"a.jpg": "a dog runs"})
check_same_images(first.image_ids, second.image_ids, "the first scores", "the second")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ImageId = str | int

_SHOWN = 5  # image ids that a message lists


def check_captions(
    references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]
) -> None:
    """Checks that captions and references are text, of the same images, and of at least one.

    Raises:
      ValueError: one of these checks fails. The message lists the first few images concerned.
    """
    _check_ids("captions", captions)
    check_references(references)
    check_same_images(references, captions, "the references", "the captions")
    bad = [i for i, caption in captions.items() if not isinstance(caption, str)]
    if bad:
        raise ValueError(
            f"captions that are not str: {_first(bad)}, where the first is "
            f"{_kind(captions[bad[0]])}; give one caption for each image"
        )


def check_references(references: Mapping[ImageId, Sequence[str]]) -> None:
    """Raises ValueError unless references are lists of text, for at least one image."""
    _check_ids("references", references)
    if not references:
        raise ValueError("there are no references, so nothing to score: is the split empty?")
    bad = [i for i, group in references.items() if not _is_group_of_texts(group)]
    if bad:
        raise ValueError(
            f"references that are empty or not a sequence of str: {_first(bad)}, where the first "
            f"is {references[bad[0]]!r:.60}; give a list of captions, even for a single caption, "
            "and leave out images without captions"
        )


def check_same_images(
    first: Mapping | Sequence, second: Mapping | Sequence, name: str, other: str
) -> None:
    """Raises ValueError, listing the first few differences, unless both have the same image ids."""
    only_first, only_second = set(first) - set(second), set(second) - set(first)
    if not only_first and not only_second:
        return
    sides = [
        f"{len(ids)} only in {which}: {_first([i for i in given if i in ids])}"
        for ids, which, given in ((only_first, name, first), (only_second, other, second))
        if ids
    ]
    cure = "score the same split, each image once"
    # Keys of JSON objects are always str: {7: "a dog"} becomes {"7": "a dog"} in a file.
    if {str(i) for i in only_first} & {str(i) for i in only_second}:
        cure = "some ids are int on one side and str on the other: use one type"
    raise ValueError(f"{name} and {other} have different images: {'; '.join(sides)}; {cure}")


def _check_ids(what: str, mapping: object) -> None:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{what} are {_kind(mapping)}, expected a mapping from image ids")
    # isinstance(True, int) holds, and True == 1: a bool would silently stand for image 1.
    strange = [i for i in mapping if not isinstance(i, str | int) or isinstance(i, bool)]
    if strange:
        raise ValueError(f"image ids of {what} are neither str nor int: {_first(strange)}")


def _is_group_of_texts(group: object) -> bool:
    # A str is a Sequence of str too: "a dog" would pass as the references "a", " ", "d", ...
    if not isinstance(group, Sequence) or isinstance(group, str | bytes) or not group:
        return False
    return all(isinstance(text, str) for text in group)


def _first(image_ids: Sequence[object]) -> str:
    more = f" and {len(image_ids) - _SHOWN} more" if len(image_ids) > _SHOWN else ""
    return ", ".join(map(repr, image_ids[:_SHOWN])) + more


def _kind(thing: object) -> str:
    return f"of type {type(thing).__name__}"
