"""Reads caption tables in JSON that have an object for each row: JSON lines, and lists.

for row in jsonl_rows(b'{"image": "a.jpg", "suffix": ["a dog", "a brown dog"]}', Columns()): ...
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from paligemma_lib.data.sources.json_values import is_cut, list_of, parse_json, shown, text_of
from paligemma_lib.data.text import lines_of
from paligemma_lib.runtime.visible_text import visible

_log = logging.getLogger(__name__)

IMAGE_KEYS = ("image", "file_name", "image_path", "img", "filename", "image_name", "path")
CAPTION_KEYS = ("suffix", "caption", "captions", "text", "answer", "answers", "sentences")
PREFIX_KEYS = ("prefix", "question", "instruction")


class Columns(NamedTuple):
    """Names of columns, keys or features; "" stands for the usual names."""

    image: str = ""
    caption: str = ""
    prompt: str = ""
    image_id: str = ""
    split: str = ""


USUAL = Columns()


class Row(NamedTuple):
    """Row of a table: an image with at most one caption.

    Attributes:
      image: name of the image in the table.
      caption: the caption; None for an image that is to be captioned.
      prefix: the prompt; None if the table has none.
      split: name of the row's split in the table, or "".
      place: place of the row in the table, such as "line 7".
      problem: why the row cannot be used, with its place; "" if it can.
    """

    image: str
    caption: str | None
    prefix: str | None
    split: str
    place: str
    problem: str = ""


def damaged(problem: str, place: str, split: str = "") -> Row:
    """Returns a row that cannot be used; its split is "" if it is not known."""
    return Row("", None, None, split, place, problem)


def jsonl_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from a JSON object in each line; blank lines are skipped."""

    def objects() -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(lines_of(data), start=1):
            if line.strip():
                place = f"line {number}"
                try:
                    yield place, json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield place, damaged(f"{place} is not valid JSON: {str(error)[:200]}", place)

    return rows_of(objects(), columns)


def json_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from a list of the objects that `jsonl_rows` reads, such as LLaVA's.

    Raises:
      ValueError: the data are no JSON, or no list.
    """
    found = list_of(parse_json(data), "the JSON")
    return rows_of(((f"item {n}", each) for n, each in enumerate(found, start=1)), columns)


def rows_of(objects: Iterable[tuple[str, Any]], columns: Columns) -> Iterator[Row]:
    """Reads rows from objects with their places; of one that cannot be used, a row that says why.

    Conversations about no image are left out, and counted in one line of the log.
    """
    left, first = 0, ""
    for place, found in objects:
        try:
            rows = [found] if isinstance(found, Row) else list(object_rows(found, place, columns))
        except ValueError as error:
            split = found.get(columns.split or "split") if isinstance(found, Mapping) else ""
            named = shown(split or "")
            rows = [damaged(str(error), place, "" if is_cut(named) else named)]
        if not rows:
            left, first = left + 1, first or place
        yield from rows
    if left:
        _log.warning(
            "%d conversations without an image are left out, the first is %s",
            left,
            visible(str(first)),
        )


def object_rows(found: Any, place: str, columns: Columns) -> Iterator[Row]:
    """Reads rows from one object; a caption each, or a question and its answer.

    Raises:
      ValueError: the object has no image, or holds what is no text.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{place} is not an object: {shown(found)}")
    for name in filter(None, (columns.prompt, columns.split)):
        if name not in found:
            raise ValueError(f"{place} has no {name!r}, only {', '.join(map(str, found))[:200]}")
    image = _value(found, (columns.image,) if columns.image else IMAGE_KEYS)
    if image is None and "conversations" in found:
        return  # one about no image, of which LLaVA's own data have some: nothing to learn here
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"{place} has no image, expected an object with its file name")
    if is_cut(image):
        raise ValueError(f"{place}: the name {image!r} contains an unpaired surrogate")
    split = shown(found.get(columns.split or "split") or "")
    if is_cut(split):
        raise ValueError(f"{place}: the split {split!r} contains an unpaired surrogate")
    if isinstance(turns := found.get("conversations"), list):
        yield from _conversation_rows(image, turns, split, place)
        return
    prefix = _value(found, (columns.prompt,) if columns.prompt else PREFIX_KEYS)
    said = _value(found, (columns.caption,) if columns.caption else CAPTION_KEYS)
    captions = said if isinstance(said, list) else [] if said is None else [said]
    if prefix is not None and not isinstance(prefix, str):
        raise ValueError(f"{place}: the prefix must be text")
    if prefix is not None and is_cut(prefix):
        raise ValueError(f"{place}: the prefix {prefix!r} contains an unpaired surrogate")
    if not captions:
        yield Row(image, None, prefix, split, place)
    for caption in captions:
        if isinstance(caption, Mapping):  # {"caption": ...} within a list
            caption = _value(caption, ("caption", "text", "raw", "answer"))
        yield Row(image, text_of(caption, place), prefix, split, place)


def _conversation_rows(image: str, turns: list[Any], split: str, place: str) -> Iterator[Row]:
    """Reads rows from a conversation of LLaVA: each question with its answer is a row.

    The question becomes the prefix. A turn of "human" or "user" is a question, any other an answer.
    """
    question, pairs = None, 0
    for turn in turns:
        said = turn.get("value") if isinstance(turn, Mapping) else None
        # LLaVA marks the position of the image as <image>. In PaliGemma, the image comes first.
        text = re.sub(r"\s*<image>\s*", " ", text_of(said, place)).strip()
        if str(turn.get("from")).casefold() in ("human", "user"):
            question = text
        elif question is not None:
            yield Row(image, text, question or None, split, place)
            question, pairs = None, pairs + 1
    if not pairs:
        raise ValueError(f"{place}: no 'human' turn is followed by a 'gpt' turn")


def _value(found: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((found[key] for key in keys if found.get(key) is not None), None)
