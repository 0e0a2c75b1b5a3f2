"""Writes drawn scenes with five captions each, in the layout of Kaggle's Flickr8k, or prompts.

    folder = write_scenes("OUT", count=1500, seed=0)

    OUT/captions.txt              image,caption: five rows for each image
    OUT/Images/scene_00000.jpg    ...

With the wording "boxes", "masks" or "questions", the table is OUT/boxes.jsonl, OUT/masks.jsonl or
OUT/questions.jsonl, whose lines have image, prefix and suffix.

Image k depends only on the seed and on k, so a larger count only adds images.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import numbers
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paligemma_lib.regions import MaskCodec
from paligemma_lib.sample_data import labels, prompts, scenes
from paligemma_lib.sample_data.composing import compose
from paligemma_lib.sample_data.drawing import draw
from paligemma_lib.sample_data.scenes import Scene

_MAX_COUNT = 10_000_000
_MAX_WORKERS = 1024
_WORDING, _DRAWING = "wording", "drawing"  # what the random numbers of a scene are for

Captions = Callable[[Scene, random.Random], list[str]]  # five captions of a scene
Prompts = Callable[[Scene, random.Random], list[tuple[str, str]]]  # prefixes with their suffixes

CAPTIONS: dict[str, Captions] = {"sentences": scenes.captions, "labels": labels.captions}
PROMPTS: dict[str, Prompts] = {"boxes": prompts.boxes, "questions": prompts.questions}
MASKS = "masks"  # prompts, too; their texts need a codec
WORDINGS = (*CAPTIONS, *PROMPTS, MASKS)


def write_scenes(
    folder: str | os.PathLike[str],
    count: int = 1500,
    seed: int = 0,
    wording: str = "sentences",
    workers: int | None = None,
    codec: MaskCodec | None = None,
) -> Path:
    """Writes `count` images and their captions to `folder`, unless they are there already.

    The write is atomic: the folder appears when it is complete. An existing folder is used as it is
    if it holds the same captions, which differ for every count and seed, and images of the same
    names.

    Args:
      folder: a folder that does not exist yet, or one from an earlier call with the same count and
        seed.
      count: number of images, at least 1.
      seed: an int64; another seed gives other scenes.
      wording: "sentences" or "labels", see `scenes` and `labels`; "boxes", "masks" or "questions",
        see `prompts`.
      workers: number of threads, by default one for each core. The result does not depend on it.
      codec: makes the codes of "masks"; None for the other wordings.

    Returns:
      The folder.

    Raises:
      ValueError: a number is out of range, there is no such wording, or "masks" are asked for
        without a codec, or another wording with one.
      FileExistsError: `folder` holds something else.
    """
    for name, value, low, high in (
        ("count", count, 1, _MAX_COUNT),
        ("seed", seed, -(1 << 63), (1 << 63) - 1),
        ("workers", workers or 1, 1, _MAX_WORKERS),
    ):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"{name} is {value!r:.80}, expected a whole number")
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}, expected {low:,} to {high:,}")
    if wording not in WORDINGS:
        raise ValueError(f"wording={wording!r}, expected one of {', '.join(WORDINGS)}")
    if (wording == MASKS) != (codec is not None):
        given = "no codec" if codec is None else "a codec"
        raise ValueError(
            f"wording={wording!r} with {given}: expected a codec with {MASKS!r} alone, see "
            "`load_mask_codec`"
        )
    folder = Path(folder)
    drawn = [compose(seed, index) for index in range(count)]
    if wording in CAPTIONS:
        name, table = "captions.txt", _table(drawn, seed, CAPTIONS[wording])
    elif codec is not None:
        asked = functools.partial(prompts.masks, codec=codec)
        name, table = f"{wording}.jsonl", _lines(drawn, seed, asked, _DRAWING)
    else:
        name, table = f"{wording}.jsonl", _lines(drawn, seed, PROMPTS[wording])
    if os.path.lexists(folder):
        _check_same(folder, name, table, count, seed)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # In the same parent folder, since `rename` is atomic only within a file system.
    with tempfile.TemporaryDirectory(".partial", f".{folder.name}.", folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        (unfinished / "Images").mkdir(parents=True)

        def save(index: int) -> None:
            image = draw(drawn[index], random.Random(f"{seed}/{index}/{_DRAWING}"))
            image.save(unfinished / "Images" / _name(index), quality=92, subsampling=0)

        # Threads, not processes: forking is not safe once the caller has loaded JAX or TensorFlow.
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for _ in pool.map(save, range(count)):
                pass
        (unfinished / name).write_bytes(table)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            _check_same(folder, name, table, count, seed)  # another process was faster
    return folder


def _name(index: int) -> str:
    return f"scene_{index:05d}.jpg"


def _table(drawn: Sequence[Scene], seed: int, captions: Captions) -> bytes:
    """Returns the bytes of captions.txt."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "caption"])
    for index, scene in enumerate(drawn):
        for caption in captions(scene, random.Random(f"{seed}/{index}/{_WORDING}")):
            rows.writerow([_name(index), caption])
    return text.getvalue().encode("ascii")


def _lines(drawn: Sequence[Scene], seed: int, asked: Prompts, purpose: str = _WORDING) -> bytes:
    """Returns the bytes of a .jsonl file, a line for each prompt."""
    lines = [
        json.dumps({"image": _name(index), "prefix": prefix, "suffix": suffix})
        for index, scene in enumerate(drawn)
        for prefix, suffix in asked(scene, random.Random(f"{seed}/{index}/{purpose}"))
    ]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _check_same(folder: Path, name: str, table: bytes, count: int, seed: int) -> None:
    path = folder / name
    if not path.is_file() or path.read_bytes() != table:
        fault = f"its {name} is missing or differs"
    elif lacking := [n for n in map(_name, range(count)) if not (folder / "Images" / n).is_file()]:
        fault = f"{len(lacking)} images are missing, the first is Images/{lacking[0]}"
    else:
        return
    raise FileExistsError(
        f"{folder} exists, but does not hold the {count} scenes of seed {seed}: {fault}. "
        "Remove it, or name another folder."
    )
