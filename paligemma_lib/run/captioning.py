"""Captions the test images of a run, before, during and after training.

found = caption_test_images(prepared, params, count=2)
before = captions_before(prepared)           # made once, and kept as predictions_before.json
"""

import logging
from collections.abc import Mapping
from typing import Any

import jax

from paligemma_lib import sharding
from paligemma_lib.captioner import Captioned, Captioner, Skipped
from paligemma_lib.data.replacing import check_share
from paligemma_lib.metrics import ImageId, read_predictions, write_predictions
from paligemma_lib.run.assembly import sampler_of
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.runtime import processes

BEFORE = "predictions_before.json"
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
    told: dict[int, str] = {}
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
            told[len(skipped)] = f"{result.where}: {result.problem}"
            skipped.append(result)
            check_share(told, len(source), config.data.max_corrupt)
            if jax.process_index() == 0 and len(skipped) <= _SHOWN:
                _log.warning("skipped %s: %s", result.where, result.problem)
    if not captioned and not count:
        raise ValueError(f"none of the test images can be read, the first: {skipped[0].problem}")
    return captioned, skipped


def captions_before(prepared: Prepared) -> Mapping[ImageId, str] | None:
    """Captions the test images before training; returns None if the config does not ask for it.

    The captions are saved in the workdir. A resumed run reads them from there instead of captioning
    again.
    """
    if not prepared.config.evaluate_before:
        return None
    path = prepared.workdir / BEFORE
    # A shared file system may show the file to some processes only. All follow the main process, as
    # they caption together.
    if processes.gather(b"known" if path.is_file() else b"")[0]:
        return read_predictions(path)
    results, _ = caption_test_images(prepared, prepared.params)
    captions: dict[ImageId, str] = {each.image_id: each.caption.text for each in results}
    if jax.process_index() == 0:
        write_predictions(path, captions)
    return captions
