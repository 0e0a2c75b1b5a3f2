"""Parses JSON that is not trusted, behind one kind of error.

fields = json_object(data)                 # ValueError, whatever is wrong with it
fields = json_object(data, unique=True)    # two values of one name are an error too
"""

import json
from typing import Any

from paligemma_lib.runtime.stand_ins import stand_in
from paligemma_lib.runtime.visible_text import visible


def json_object(data: bytes, *, unique: bool = False) -> dict[str, Any]:
    """Returns the object that a text holds.

    Args:
      data: the text, of a size that the caller has bounded.
      unique: whether a name that stands twice in an object is an error. Parsers differ in which of
        the two values they take.

    Raises:
      ValueError: it is no JSON, or no object; the message says what it is instead, if known.
    """
    if told := stand_in(data[:64]):
        raise ValueError(told)
    try:
        value = json.loads(data, object_pairs_hook=_unique if unique else None)
    except Exception as error:  # ValueError, UnicodeDecodeError, RecursionError, MemoryError, ...
        raise ValueError(visible(str(error))[:300] or type(error).__name__) from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{visible(name)[:100]} stands there twice")
        values[name] = value
    return values
