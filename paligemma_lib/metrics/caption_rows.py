"""Reads captions, one or several for each image, from the usual file formats.

references = read_captions("captions.txt")          # {"a.jpg": ["A dog runs .", ...]}
captions = single(read_captions("predictions.json"), "predictions.json")

.csv, .txt   a table with the columns image and caption, among others; Flickr8k.token.txt
.jsonl       lines with image and caption, or image, prefix and suffix
.json        a list of {"image_id", "caption"}, COCO's annotations, those and results of VQA,
             Karpathy's dataset_*.json, or {image: [caption, ...]}
.parquet     a table with the columns image and caption, among others

An image with several prompts is several entries, "1.jpg#1" and "1.jpg#2", as in data.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence

from paligemma_lib.data.sources.json_values import parse_json
from paligemma_lib.data.sources.protocol import unique_ids
from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.metrics.caption_forms import MAX_BYTES, READERS
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.regular_files import read_bounded


def read_captions(
    path: str | os.PathLike[str], *, by_prompt: bool = True
) -> dict[ImageId, list[str]]:
    """Returns all captions of each image, in the order of the file.

    Args:
      path: the file.
      by_prompt: whether an image is an entry for each of its prompts. They are numbered in the
        order of the file, so that of two files only one can be read like this.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file has none of the formats. The message says after how many captions
        reading failed.
    """
    path = path_of(path)
    try:
        data = read_bounded(path, MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"{error}: is it a file of captions?") from error
    if path.suffix not in READERS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(READERS)}")
    captions: dict[tuple[ImageId, str | None], list[str]] = {}
    try:
        for image, prompt, caption in READERS[path.suffix](data):
            if not _is_id(image) or not isinstance(caption, str):
                raise ValueError(
                    f"{reprlib.repr(image)}: {reprlib.repr(caption)} is not an image and its "
                    "caption, expected an id that is str or int and a caption that is str"
                )
            if not isinstance(prompt, str | None):
                raise ValueError(f"{reprlib.repr(prompt)} is not a prompt, expected a str")
            captions.setdefault((image, prompt if by_prompt else None), []).append(caption)
    except ValueError as error:
        read = sum(map(len, captions.values()))
        raise ValueError(f"{path}, after {read:,} captions: {error}") from error
    if not captions:
        raise ValueError(f"{path} holds no captions")
    ids: list[ImageId] = [image for image, _ in captions]
    if len(set(ids)) < len(ids):
        ids = [*unique_ids([*map(str, ids)])]
    return dict(zip(ids, captions.values(), strict=True))


def image_files(path: str | os.PathLike[str]) -> dict[ImageId, str]:
    """Returns the file of each image that COCO's annotations name by a number; {} of other files.

    Raises:
      FileNotFoundError, ValueError: as `read_captions`.
    """
    path = path_of(path)
    if path.suffix != ".json":
        return {}
    found = parse_json(read_bounded(path, MAX_BYTES))
    images = found.get("images") if isinstance(found, dict) else None
    return {
        image["id"]: image["file_name"]
        for image in (images if isinstance(images, list) else [])
        if isinstance(image, dict)
        and _is_id(image.get("id"))
        and isinstance(image.get("file_name"), str)
    }


def single(
    captions: Mapping[ImageId, Sequence[str]], path: str | os.PathLike[str]
) -> dict[ImageId, str]:
    """Returns the only caption of each image. Raises ValueError if an image has several."""
    if several := [image for image, found in captions.items() if len(found) > 1]:
        raise ValueError(
            f"{os.fspath(path)} has several captions for {len(several)} images, the first "
            f"{several[0]!r}: expected one for each. Where an image has several prompts, name each "
            "as the references do, such as '1.jpg#1'"
        )
    return {image: found[0] for image, found in captions.items()}


def _is_id(image: object) -> bool:
    # isinstance(True, int) holds, and True == 1: a bool would silently stand for image 1.
    return isinstance(image, str | int) and not isinstance(image, bool)
