"""Reads the YAML at the start of a card of the Hub, of which nobody knows who wrote it.

    card = read_card(path)
    card.get("configs")

Aliases make a few hundred bytes of YAML stand for billions of values, which merging them or showing
them would write out. So what they stand for is counted first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_CARD_BYTES = 4 << 20
_MOST_VALUES = 1_000_000


def read_card(path: str | Path) -> Mapping[str, Any]:
    """Returns what the YAML of a README.md says; nothing if it has none.

    Raises:
      ValueError: it is no UTF-8, no YAML, no mapping, or stands for more than a million values.
    """
    import yaml
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    found = REGEX_YAML_BLOCK.search(Path(path).read_text("utf-8-sig"))
    if found is None:
        return {}
    try:
        loader = yaml.SafeLoader(found[2])
        node = loader.get_single_node()
        if node is None:
            return {}
        _count(node, {})
        card = loader.construct_document(node)
    except (yaml.YAMLError, RecursionError, OverflowError, TypeError, AttributeError) as error:
        # Of a date or a key that is none, and of nested too deeply.
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(card, Mapping):
        raise ValueError(f"its YAML is a {type(card).__name__}, expected a mapping")
    return card


def _count(node: Any, known: dict[int, int]) -> int:
    """Returns how many values a node stands for, those of aliases as often as they are named."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("its YAML holds itself")
        return known[id(node)]
    known[id(node)] = 0  # until it is known; an alias within it stands for itself
    children = node.value if isinstance(node.value, list) else ()
    total = 1
    for child in children:
        for each in child if isinstance(child, tuple) else (child,):
            total += _count(each, known)
    if total > _MOST_VALUES:
        raise ValueError(f"its YAML stands for more than {_MOST_VALUES:,} values")
    known[id(node)] = total
    return total
