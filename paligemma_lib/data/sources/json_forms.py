"""Reads caption tables in JSON: JSON lines, lists of objects, COCO's and Karpathy's formats.

for row in jsonl_rows(b'{"image": "a.jpg", "suffix": ["a dog", "a brown dog"]}', Columns()): ...
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from paligemma_lib.data.text import decoded, lines_of

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


def parse_json(data: bytes) -> Any:
    """Parses JSON. Raises ValueError with the line of the error if the data are not JSON."""
    try:
        return json.loads(decoded(data))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def jsonl_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from a JSON object in each line; blank lines are skipped."""
    for number, line in enumerate(lines_of(data), start=1):
        if line.strip():
            place = f"line {number}"
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield damaged(f"{place} is not valid JSON: {error}", place)
            else:
                yield from rows_or_damage(found, place, columns)


def json_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from a list of the objects that `jsonl_rows` reads, such as LLaVA's."""
    for number, found in enumerate(parse_json(data), start=1):
        yield from rows_or_damage(found, f"item {number}", columns)


def coco_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from COCO's captions.

    `images` have id and file_name; `annotations` have image_id and caption. Images without an
    annotation come last, without a caption.
    """
    del columns
    found = parse_json(data)
    names: dict[Any, str] = {}
    for number, image in enumerate(found.get("images") or [], start=1):
        if _has(image, "file_name") and isinstance(image.get("id"), int | str):
            names[image["id"]] = image["file_name"]
        else:
            problem = f"images: {str(image)[:80]} has no file_name, or no id"
            yield damaged(problem, f"image {number} of images")
    captioned = set()
    for number, annotation in enumerate(found["annotations"], start=1):
        place = f"annotation {number}"
        try:
            image_id = annotation["image_id"]
            if names and image_id not in names:
                raise ValueError(f"{place}: no image has the id {image_id!r}")
            caption = _text(annotation.get("caption"), place)
        except (KeyError, TypeError):
            yield damaged(f"{place}: {str(annotation)[:80]} has no image_id", place)
            continue
        except ValueError as error:
            yield damaged(str(error), place)
            continue
        # Result files and some caption files have no `images`. In COCO, the file name follows from
        # the id: 139 gives 000000000139.jpg.
        name = names.get(image_id, f"{image_id:012d}.jpg" if type(image_id) is int else image_id)
        captioned.add(image_id)
        yield Row(str(name), caption, None, "", place)
    for image_id, name in names.items():
        if image_id not in captioned:
            yield Row(name, None, None, "", f"image {image_id}")


def karpathy_rows(data: bytes, columns: Columns) -> Iterator[Row]:
    """Reads rows from Karpathy's dataset_*.json.

    `images` have filename, split, and `sentences`, each with its text in `raw`.
    """
    del columns
    for number, image in enumerate(parse_json(data)["images"], start=1):
        place = f"image {number}"
        if not _has(image, "filename"):
            yield damaged(f"{place}: {str(image)[:80]} has no filename", place)
            continue
        folder = image.get("filepath")  # only in dataset_coco.json: train2014 or val2014
        name = f"{folder}/{image['filename']}" if folder else image["filename"]
        for sentence in image.get("sentences") or []:
            said = sentence.get("raw") if isinstance(sentence, Mapping) else None
            split = str(image.get("split", ""))
            try:
                yield Row(name, _text(said, place), None, split, place)
            except ValueError as error:
                yield damaged(str(error), place, split)


def rows_or_damage(found: Any, place: str, columns: Columns) -> Iterator[Row]:
    """Reads rows from one object; of one that cannot be used, a row that says why."""
    try:
        yield from list(object_rows(found, place, columns))
    except ValueError as error:
        split = found.get(columns.split or "split") if isinstance(found, Mapping) else ""
        yield damaged(str(error), place, str(split or ""))


def object_rows(found: Any, place: str, columns: Columns) -> Iterator[Row]:
    """Reads rows from one object; a caption each, or a question and its answer.

    Raises:
      ValueError: the object has no image, or holds what is no text.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{place} is not an object: {str(found)[:80]}")
    for name in filter(None, (columns.prompt, columns.split)):
        if name not in found:
            raise ValueError(f"{place} has no {name!r}, only {', '.join(map(str, found))[:200]}")
    image = _value(found, (columns.image,) if columns.image else IMAGE_KEYS)
    if image is None and "conversations" in found:
        # Among LLaVA's own data are conversations about no image, which have nothing to learn here.
        _log.warning("%s is a conversation without an image, and is left out", place)
        return
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"{place} has no image, expected an object with its file name")
    if _is_cut(image):
        raise ValueError(f"{place}: the name {image!r} contains an unpaired surrogate")
    split = str(found.get(columns.split or "split") or "")
    if isinstance(turns := found.get("conversations"), list):
        yield from _conversation_rows(image, turns, split, place)
        return
    prefix = _value(found, (columns.prompt,) if columns.prompt else PREFIX_KEYS)
    said = _value(found, (columns.caption,) if columns.caption else CAPTION_KEYS)
    captions = said if isinstance(said, list) else [] if said is None else [said]
    if prefix is not None and not isinstance(prefix, str):
        raise ValueError(f"{place}: the prefix must be text")
    if not captions:
        yield Row(image, None, prefix, split, place)
    for caption in captions:
        if isinstance(caption, Mapping):  # {"caption": ...} within a list
            caption = _value(caption, ("caption", "text", "raw", "answer"))
        yield Row(image, _text(caption, place), prefix, split, place)


def _conversation_rows(image: str, turns: list[Any], split: str, place: str) -> Iterator[Row]:
    """Reads rows from a conversation of LLaVA: each question with its answer is a row.

    The question becomes the prefix. A turn of "human" or "user" is a question, any other an answer.
    """
    question, pairs = None, 0
    for turn in turns:
        said = turn.get("value") if isinstance(turn, Mapping) else None
        # LLaVA marks the position of the image as <image>. In PaliGemma, the image comes first.
        text = re.sub(r"\s*<image>\s*", " ", _text(said, place)).strip()
        if str(turn.get("from")).casefold() in ("human", "user"):
            question = text
        elif question is not None:
            yield Row(image, text, question or None, split, place)
            question, pairs = None, pairs + 1
    if not pairs:
        raise ValueError(f"{place}: no 'human' turn is followed by a 'gpt' turn")


def _value(found: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((found[key] for key in keys if found.get(key) is not None), None)


def _has(found: Any, key: str) -> bool:
    name = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(name, str) and bool(name.strip())


def _is_cut(text: str) -> bool:
    # JSON can hold half of a pair that encodes one character, where a text was cut off.
    return any("\ud800" <= character <= "\udfff" for character in text)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: {str(value)[:80]!r} is not text, expected a caption")
    if not value.strip():
        raise ValueError(f"{place}: the caption is empty")
    if _is_cut(value):
        raise ValueError(f"{place}: {value[:80]!r} contains an unpaired surrogate")
    return value
