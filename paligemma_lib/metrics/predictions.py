"""Reads, writes and merges predictions in the results format of COCO captions.

    write_predictions("predictions.json", {"a.jpg": "a dog runs"})
    captions = read_predictions("predictions.json")
    captions = merge([[("a.jpg", "a dog runs", True)], [("b.jpg", "a cat", True)]])

The format is a JSON list of `{"image_id": ..., "caption": ...}`; ids are strings or integers.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.runtime.atomic import atomic_write, path_of
from paligemma_lib.runtime.regular_files import read_bounded

_MAX_BYTES = 256 << 20  # about two million captions
_SHOWN = 5  # faulty entries that a message lists
_TYPES = "an id that is str or int and a caption that is str"


def read_predictions(path: str | os.PathLike[str]) -> dict[ImageId, str]:
    """Reads a file of predictions; the result has the order of the file.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is too large, is not JSON of this format, or names an image twice. The
        message lists the first faulty entries.
    """
    path = path_of(path)
    try:
        data = read_bounded(path, _MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"{error}: is it a predictions file?") from error
    try:
        entries = json.loads(data.decode("utf-8-sig"))
    except Exception as error:  # a RecursionError, too, for thousands of brackets
        raise ValueError(f"{path} is not JSON in UTF-8: {error}; write it again") from error
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} holds {reprlib.repr(entries)}, expected a list of objects with image_id and "
            "caption: the results format of COCO captions, not that of its annotations"
        )
    captions: dict[ImageId, str] = {}
    wrong = []
    for number, entry in enumerate(entries):
        fault = _fault(entry) or (
            f"duplicate image {reprlib.repr(entry['image_id'])}"
            if entry["image_id"] in captions
            else None
        )
        if fault:
            wrong.append(f"entry {number}: {fault}")
        else:
            captions[entry["image_id"]] = entry["caption"]
    if wrong:
        more = f"\n- and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{path}: {len(wrong)} of {len(entries)} entries are wrong; each image needs one "
            f"entry, with {_TYPES}:\n- " + "\n- ".join(wrong[:_SHOWN]) + more
        )
    return captions


def write_predictions(path: str | os.PathLike[str], captions: Mapping[ImageId, str]) -> None:
    """Writes a file of predictions atomically, one entry per line.

    Raises:
      ValueError: an id or a caption has the wrong type.
      FileNotFoundError: the folder does not exist.
    """
    entries = [{"image_id": i, "caption": caption} for i, caption in captions.items()]
    for entry in entries:
        if fault := _fault(entry):
            raise ValueError(f"cannot write {path}: {fault}, expected {_TYPES}")
    with atomic_write(path_of(path)) as file:
        # json.dumps escapes everything but ASCII, also unpaired surrogates: encoding cannot fail.
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        file.write(f"[\n{lines}\n]\n".encode("ascii"))


def merge(parts: Iterable[Iterable[tuple[ImageId, str, bool]]]) -> dict[ImageId, str]:
    """Merges the captions that several processes have generated.

    Args:
      parts: for each process, its tuples of image id, caption and whether the example is valid. An
        example that only pads a batch is not valid and is left out. An image that occurs twice
        with the same caption appears once in the result.

    Returns:
      Captions by image id, in order of first appearance.

    Raises:
      ValueError: an image has two different captions, or an entry has the wrong type.
    """
    captions: dict[ImageId, str] = {}
    contradictions = []
    for number, part in enumerate(parts):
        for image_id, caption, valid in part:
            if not valid:
                continue
            if fault := _fault({"image_id": image_id, "caption": caption}):
                raise ValueError(f"part {number}: {fault}, expected {_TYPES}")
            # setdefault returns the caption already there, or this one after storing it.
            if captions.setdefault(image_id, caption) != caption:
                contradictions.append(f"{image_id!r}: {captions[image_id]!r} and {caption!r}")
    if contradictions:
        raise ValueError(
            f"{len(contradictions)} images have two captions, the first is {contradictions[0]}; "
            "each process must caption its own share, all with the same parameters"
        )
    return captions


def _fault(entry: Any) -> str | None:
    """Returns what is wrong with an entry `{"image_id": ..., "caption": ...}`, or None."""
    if not isinstance(entry, dict):
        return f"{reprlib.repr(entry)} is not an object"
    missing = [key for key in ("image_id", "caption") if key not in entry]
    if missing:
        return f"{reprlib.repr(entry)} has no {' and no '.join(missing)}"
    image_id, caption = entry["image_id"], entry["caption"]
    if not isinstance(image_id, str | int) or isinstance(image_id, bool):
        return f"the image_id {reprlib.repr(image_id)} is of type {type(image_id).__name__}"
    if not isinstance(caption, str):
        kind = type(caption).__name__
        return f"the caption {reprlib.repr(caption)} of {reprlib.repr(image_id)} is of type {kind}"
    return None
