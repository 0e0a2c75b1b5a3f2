"""Captions the test images of a run, before, during and after training.

found = caption_test_images(prepared, params, count=2)
before = captions_before(prepared)           # made once, and kept as predictions_before.json
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import jax

from paligemma_lib import sharding
from paligemma_lib.captioner import Captioned, Captioner, Skipped
from paligemma_lib.data.fingerprints import same
from paligemma_lib.data.replacing import check_share
from paligemma_lib.metrics import ImageId, read_predictions, write_predictions
from paligemma_lib.run.assembly import sampler_of
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.run.record import tokenizer_fingerprint
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import atomic_write
from paligemma_lib.runtime.put_aside import put_aside
from paligemma_lib.runtime.regular_files import read_bounded

BEFORE = "predictions_before.json"
MADE_WITH = "predictions_before.settings.json"  # what those captions depend on
_MAX_BYTES = 1 << 20
_SHOWN = 3  # images that are left out, in the log; the report names all

_log = logging.getLogger(__name__)


def caption_test_images(
    prepared: Prepared, params: dict[str, Any], count: int = 0
) -> tuple[list[Captioned], list[Skipped]]:
    """Captions the first test images.

    Args:
      prepared: the run.
      params: nested dict of parameters, or of tuples of their parts.
      count: number of images; 0: as many as the config's `test_images`.

    Returns:
      The captions, and the images that could not be read or decoded, which are not scored.

    Raises:
      ValueError: an image cannot be read or decoded, and the config's `on_corrupt_image` is
        "raise"; or more than `max_corrupt` of the test images cannot.
    """
    config, source = prepared.config, prepared.data["test"]
    bound = first_of(prepared)
    if bound and not count and jax.process_index() == 0:
        _log.info("captions %d test images%s; test_images=0 takes all", config.test_images, bound)
    # In the layout of training, FSDP, every decoded token would all-gather all weights.
    params = sharding.resharded(params, "tensor")
    results = Captioner(prepared.model, params, prepared.tokenizer).stream(
        source,
        prompt=config.prompt,
        sampler=sampler_of(config.sampler),
        batch_size=config.decode_batch_size,
        max_new_tokens=config.max_new_tokens,
        count=count or config.test_images or None,
        apply_exif=config.data.apply_exif,
    )
    captioned: list[Captioned] = []
    skipped: list[Skipped] = []
    damage: dict[int, str] = {}
    seen: set[str] = set()
    for result in results:
        if isinstance(result, Captioned):
            if result.image_id in seen:
                raise ValueError(
                    f"{result.image_id} is in the test images twice: put all captions of an image "
                    "into one record, and give each record its own id"
                )
            seen.add(result.image_id)
            captioned.append(result)
        elif config.data.on_corrupt_image == "raise":
            raise ValueError(f"{result.where}: {result.problem}")
        else:
            damage[len(skipped)] = f"{result.where}: {result.problem}"
            skipped.append(result)
            check_share(damage, len(source), config.data.max_corrupt)
            if jax.process_index() == 0 and len(skipped) <= _SHOWN:
                _log.warning("skipped %s: %s", result.where, result.problem)
    if not captioned and not count:
        raise ValueError(f"none of the test images can be read, the first: {skipped[0].problem}")
    return captioned, skipped


def first_of(prepared: Prepared) -> str:
    """Returns ", the first of 5,000" if not all test images are captioned; else ""."""
    total = len(prepared.data["test"])
    return f", the first of {total:,}" if 0 < prepared.config.test_images < total else ""


def captions_before(prepared: Prepared) -> Mapping[ImageId, str] | None:
    """Captions the test images before training; returns None if the config does not ask for it.

    The captions are saved in the workdir. A resumed run reads them from there instead of captioning
    again, unless the test images, the model or the decoding have changed since.
    """
    if not prepared.config.evaluate_before:
        return None
    path, settings = prepared.workdir / BEFORE, _settings(prepared)
    known = _known_captions(prepared, settings) if jax.process_index() == 0 else None
    # A shared file system may show the file to some processes only. All follow the main process, as
    # they caption together.
    (told, *_) = processes.gather(
        b"" if known is None else json.dumps(list(known.items())).encode()
    )
    if told:
        return dict(json.loads(told))
    results, _ = caption_test_images(prepared, prepared.params)
    captions: dict[ImageId, str] = {each.image_id: each.caption.text for each in results}
    if jax.process_index() == 0:
        write_predictions(path, captions)
        # Written last: captions without these settings, or with others, are made again.
        with atomic_write(prepared.workdir / MADE_WITH) as file:
            file.write(json.dumps(settings, indent=1).encode())
    return captions


def _settings(prepared: Prepared) -> dict[str, Any]:
    """Returns what the captions before training depend on, in plain values of JSON."""
    config = prepared.config
    return {
        "params": prepared.record["params"],
        "tokenizer": tokenizer_fingerprint(prepared.tokenizer),
        "test": prepared.data["test"].fingerprint(),
        "image_size": prepared.model.vision.image_size,
        "dtype": prepared.model.dtype,
        "prompt": config.prompt,
        "sampler": config.sampler,
        "max_new_tokens": config.max_new_tokens,
        "test_images": config.test_images,
        "apply_exif": config.data.apply_exif,
    }


def _known_captions(
    prepared: Prepared, settings: Mapping[str, Any]
) -> Mapping[ImageId, str] | None:
    """Returns the captions of an earlier start; None if there are none that were made like this.

    They may be of more images than are asked for now.
    """
    path, made_with = prepared.workdir / BEFORE, prepared.workdir / MADE_WITH
    try:
        made = json.loads(read_bounded(made_with, _MAX_BYTES)) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None  # missing, or damaged: it is written again
    if not isinstance(made, dict):
        return None
    had, wanted = made.get("test_images"), settings["test_images"]
    enough = type(had) is int and (not had or 0 < wanted <= had)  # 0 is all of them
    # A fingerprint may be of two parts, of which an earlier version wrote the first alone.
    test = settings["test"] if same(str(made.get("test")), settings["test"]) else None
    if not enough or {**made, "test_images": wanted, "test": test} != settings:
        return None
    try:
        return read_predictions(path)
    except (OSError, ValueError) as error:
        put_aside(path, str(error))
        return None
