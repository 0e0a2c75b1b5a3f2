"""Parses JSON of data, which is not trusted, and takes values of the expected kind from it.

found = object_of(parse_json(b'{"images": []}'))
list_of(found.get("images"), "images"), text_of("a dog", "line 1")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paligemma_lib.data.text import decoded


def parse_json(data: bytes | str) -> Any:
    """Parses JSON. Raises ValueError with the line of the error if the data are not JSON."""
    text = data if isinstance(data, str) else decoded(data)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"the JSON cannot be read: {str(error)[:200]}") from error


def shown(value: Any, length: int = 80) -> str:
    """Returns the beginning of what a value looks like, for messages."""
    try:
        return str(value)[:length]
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"


def object_of(found: Any) -> Mapping[str, Any]:
    """Returns an object of JSON. Raises ValueError if it is none."""
    if not isinstance(found, Mapping):
        raise ValueError(f"the JSON is {shown(found)}, expected an object")
    return found


def list_of(found: Any, what: str) -> list[Any]:
    """Returns a list. Raises ValueError, with `what` it is, if it is none."""
    if not isinstance(found, list):
        raise ValueError(f"{what} is {shown(found)}, expected a list")
    return found


def text_of(value: Any, place: str) -> str:
    """Returns a caption. Raises ValueError, with its place, if it is none."""
    if not isinstance(value, str):
        raise ValueError(f"{place}: {shown(value)!r} is not text, expected a caption")
    if not value.strip():
        raise ValueError(f"{place}: the caption is empty")
    if is_cut(value):
        raise ValueError(f"{place}: {value[:80]!r} contains an unpaired surrogate")
    return value


def is_cut(text: str) -> bool:
    """Returns whether a text cannot be encoded, since a character is cut in two."""
    # JSON can hold half of a pair that encodes one character, where a text was cut off.
    if text.isascii():
        return False
    return any("\ud800" <= character <= "\udfff" for character in text)
