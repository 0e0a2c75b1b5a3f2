"""Files of predictions in the results format of COCO captions, and parts of them put together.

    write_predictions("predictions.json", {"a.jpg": "a dog runs"})
    captions = read_predictions("predictions.json")
    captions = merge([[("a.jpg", "a dog runs", True)], [("b.jpg", "a cat", True)]])

The format is a JSON list of `{"image_id": ..., "caption": ...}`; ids are strings or whole numbers.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.runtime.atomic import atomic_write, path_of

_MAX_BYTES = 256 << 20  # about two million captions
_SHOWN = 5


def read_predictions(path: str | os.PathLike[str]) -> dict[ImageId, str]:
    """Reads a file of predictions, in its order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is too large, no JSON of this form, or names an image twice; lists the first
        entries that are wrong.
    """
    path = path_of(path)
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: is it a predictions file?")
    try:
        entries = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON in UTF-8: {error}; write it anew") from error
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} holds {reprlib.repr(entries)}, expected a list of objects with image_id and "
            "caption: the results format of COCO captions, not that of its annotations"
        )
    captions: dict[ImageId, str] = {}
    wrong = []
    for number, entry in enumerate(entries):
        fault = _fault(entry) or (
            f"image {entry['image_id']!r} again" if entry["image_id"] in captions else None
        )
        if fault:
            wrong.append(f"entry {number}: {fault}")
        else:
            captions[entry["image_id"]] = entry["caption"]
    if wrong:
        more = f"\n- and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{path}: {len(wrong)} of {len(entries)} entries are wrong; each image wants one "
            "entry, of an id that is str or int and a caption that is str:\n- "
            + "\n- ".join(wrong[:_SHOWN])
            + more
        )
    return captions


def write_predictions(path: str | os.PathLike[str], captions: Mapping[ImageId, str]) -> None:
    """Writes a file of predictions, one a line, whole or not at all.

    Raises:
      ValueError: an id or a caption is of the wrong type.
      FileNotFoundError: the folder is not there.
    """
    entries = [{"image_id": i, "caption": caption} for i, caption in captions.items()]
    for entry in entries:
        if fault := _fault(entry):
            raise ValueError(f"cannot write {path}: {fault}; expected str or int, and str")
    with atomic_write(path_of(path)) as file:
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        file.write(f"[\n{lines}\n]\n".encode("ascii"))


def merge(parts: Iterable[Iterable[tuple[ImageId, str, bool]]]) -> dict[ImageId, str]:
    """Puts together what several processes have captioned.

    Args:
      parts: of each process, its image ids, captions, and whether they are valid: an example that
        only filled up a batch is not, and is left out. An image that came up twice with the same
        caption is kept once.

    Returns:
      Captions by image id, in order of appearance.

    Raises:
      ValueError: one image has got two captions, or an entry is of the wrong type.
    """
    captions: dict[ImageId, str] = {}
    contradictions = []
    for number, part in enumerate(parts):
        for image_id, caption, valid in part:
            if not valid:
                continue
            if fault := _fault({"image_id": image_id, "caption": caption}):
                raise ValueError(f"part {number}: {fault}; expected str or int, and str")
            if captions.setdefault(image_id, caption) != caption:
                contradictions.append(f"{image_id!r}: {captions[image_id]!r} and {caption!r}")
    if contradictions:
        raise ValueError(
            f"{len(contradictions)} images have got two captions, the first {contradictions[0]}; "
            "let each process caption its own share, and all with the same parameters"
        )
    return captions


def _fault(entry: Any) -> str | None:
    """What is wrong with `{"image_id": ..., "caption": ...}`."""
    if not isinstance(entry, dict):
        return f"{reprlib.repr(entry)} is no object"
    missing = [key for key in ("image_id", "caption") if key not in entry]
    if missing:
        return f"{reprlib.repr(entry)} has no {' and no '.join(missing)}"
    image_id, caption = entry["image_id"], entry["caption"]
    if not isinstance(image_id, str | int) or isinstance(image_id, bool):
        return f"the image_id {reprlib.repr(image_id)} is of type {type(image_id).__name__}"
    if not isinstance(caption, str):
        kind = type(caption).__name__
        return f"the caption {reprlib.repr(caption)} of {image_id!r} is of type {kind}"
    return None
