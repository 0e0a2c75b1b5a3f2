"""Checks images and makes examples on the workers of Apache Beam, where the user asks for Beam.

    facts = check_by_beam(check, files, folder, runner=None, options=options)
    examples = beam_examples(load_checked, planned)     # for TFDS to run and to write

What travels to the workers are names, captions and facts of images. They read the files themselves,
so these have to lie where every worker finds them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from flickr8k_tfds.image_checks import ImageFacts
from flickr8k_tfds.image_tasks import Checked, KeyExample
from flickr8k_tfds.layout import File

_PREFIX = "image_facts"


def check_by_beam(
    check: Callable[[File], ImageFacts],
    files: Sequence[File],
    folder: epath.Path,
    *,
    runner: Any,
    options: Any,
) -> list[ImageFacts]:
    """Checks images on the workers of Beam.

    Args:
      check: the check of a file.
      files: their files, which every worker can read.
      folder: a folder that every worker can write to. Nothing is left in it.
      runner: a runner of Beam, or None for the one that the options name.
      options: Beam's `PipelineOptions`, or None.

    Returns:
      What each check found, in the order of the files.
    """
    import apache_beam as beam

    def line(numbered: tuple[int, File]) -> str:
        number, file = numbered
        return json.dumps([number, dataclasses.asdict(check(file))])

    with beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(enumerate(files)))
            | beam.Reshuffle()
            | beam.Map(line)
            | beam.io.WriteToText(str(folder / _PREFIX))
        )
    found = {}
    for path in folder.glob(f"{_PREFIX}-*"):
        for text in path.read_text().splitlines():
            number, facts = json.loads(text)
            found[number] = ImageFacts(**facts | {"remarks": tuple(facts["remarks"])})
        path.unlink()
    return [found[number] for number in range(len(files))]


def beam_examples(load: Callable[[Checked], KeyExample], planned: Sequence[Checked]) -> Any:
    """Returns a PTransform that makes the examples of a split, as TFDS takes it."""
    import apache_beam as beam

    return beam.Create(list(planned)) | beam.Reshuffle() | beam.Map(load)
