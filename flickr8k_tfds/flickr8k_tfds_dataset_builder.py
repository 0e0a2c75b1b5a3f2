"""Defines the TFDS builder of Flickr8k, and of any images with captions in the same layout.

tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP

import flickr8k_tfds
data = tfds.load("flickr8k_tfds", split="train[:1200]")
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from flickr8k_tfds.caption_tables import Defect
from flickr8k_tfds.image_checks import BadImage, ImageFacts, decode, describe, sha256, square_png
from flickr8k_tfds.layout import (
    WAYS_OUT,
    Layout,
    fetch_from_kaggle,
    is_empty,
    locate,
)
from flickr8k_tfds.parallel import map_ahead
from flickr8k_tfds.splitting import SPLITS, check_fractions, hashed_split, official_splits
from flickr8k_tfds.trees import MAX_IMAGE_BYTES, DatasetError, UnreadableFile
from flickr8k_tfds.verification import Verification

REPORT_FILE = "verification.json"

Example = dict[str, Any]


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """Configuration of the builder: how images are stored and split.

    On the command line: `--config='{"name": "mine", "fractions": {"train": 0.8, "test": 0.2}}'`.

    Attributes:
      side: None stores the bytes of each file unchanged; a number resizes each image once to
        side x side pixels and stores a PNG.
      fractions: split -> share of the images. Flickr8k's own images have official splits instead.
      strict: whether the build stops at the first row or image that it would leave out.
    """

    side: int | None = None
    fractions: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1}
    )
    strict: bool = False

    def __post_init__(self):
        check_fractions(self.fractions)
        if self.side is not None and not (isinstance(self.side, int) and 1 <= self.side <= 4096):
            raise ValueError(f"side is {self.side!r}, expected 1 to 4096 pixels, or null")
        if not isinstance(self.strict, bool):
            raise ValueError(f"strict is {self.strict!r}, expected true or false")


class Builder(tfds.core.GeneratorBasedBuilder):
    """Flickr8k: photographs with five captions each."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    # `tfds build` builds every config of BUILDER_CONFIGS unless one is named. The square configs
    # are in `builder_configs` only, so that they are built on request.
    BUILDER_CONFIGS = [Config(name="original", description="The image files as they are.")]
    DEFAULT_BUILDER_CONFIG_NAME = "original"
    builder_configs = {
        config.name: config
        for config in (
            *BUILDER_CONFIGS,
            Config(name="square224", side=224, description="Resized to 224 x 224, as PNG."),
            Config(name="square448", side=448, description="Resized to 448 x 448, as PNG."),
        )
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = WAYS_OUT

    _manual_dir: str | None = None
    _report: Verification | None = None

    def download_and_prepare(self, *, download_config=None, **kwargs) -> None:
        """Builds as TFDS does, but the manual folder may be a zip, be empty, or not be given."""
        given = download_config.manual_dir if download_config else None
        self._manual_dir = os.fspath(given) if given else None
        super().download_and_prepare(download_config=download_config, **kwargs)
        if self._report:
            # After the data is written, since printing may fail: a terminal's encoding may lack
            # characters of file names. These are escaped.
            encoding = sys.stdout.encoding or "ascii"
            print(self._report.text().encode(encoding, "backslashreplace").decode(encoding))

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(self.builder_config.side, self.builder_config.side, 3)
                    ),
                    "image_id": tfds.features.Text(doc="The image's file name."),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "height": tfds.features.Scalar(np.int32, doc="Of the original, in pixels."),
                    "width": tfds.features.Scalar(np.int32, doc="Of the original, in pixels."),
                }
            ),
            homepage="https://hockenmaier.cs.illinois.edu/8k-images.html",
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[str, Example]]]:
        layout = self._locate(dl_manager)
        report = Verification(str(layout.table), layout.read_table(), self.builder_config.strict)
        self._report = report
        names = self._names_by_split(layout, report)
        generators: dict[str, Iterator[tuple[str, Example]]] = {}
        for split in SPLITS:
            examples = self._generate_examples(split, names[split], layout, report)
            first = next(examples, None)
            # TFDS refuses a split without examples, so the first one is taken off, and put back.
            if first is not None:
                generators[split] = itertools.chain([first], examples)
        if not generators:
            raise DatasetError(
                f"{layout.table} has no usable images with captions.\n{report.text()}\n{WAYS_OUT}"
            )
        return generators

    def _generate_examples(
        self, split: str, names: list[str], layout: Layout, report: Verification
    ) -> Iterator[tuple[str, Example]]:
        side = self.builder_config.side

        def load(name: str) -> tuple[ImageFacts, bytes] | Defect:
            file = layout.images[name]
            try:
                data = file.read(MAX_IMAGE_BYTES)
                image = decode(data)
                facts = describe(image, data, name)
                return facts, square_png(image, side) if side else data
            except (UnreadableFile, BadImage) as error:
                return Defect(file.name, name, str(error))

        for name, loaded in zip(names, map_ahead(load, names), strict=True):
            if isinstance(loaded, Defect):
                report.leave_out(loaded)
                continue
            facts, data = loaded
            report.keep(split, name, facts)
            yield (
                name,
                {
                    "image": data,
                    "image_id": name,
                    "captions": report.table.captions[name],
                    "height": facts.height,
                    "width": facts.width,
                },
            )

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        if self._report:  # TFDS generates nothing for --max_examples_per_split=0
            # This is the temporary folder that TFDS renames at the end, so data and report appear
            # together.
            (self.data_path / REPORT_FILE).write_text(self._report.json())

    def _locate(self, dl_manager) -> Layout:
        given = Path(self._manual_dir).expanduser() if self._manual_dir else None
        if given and not is_empty(given):
            return locate(given)
        if not given:
            # TFDS asserts that its default manual folder exists. It may also hold other data sets.
            try:
                return locate(Path(dl_manager.manual_dir))
            except AssertionError:
                pass
            except DatasetError as error:
                logging.info("No data set in the default folder, trying Kaggle: %s", error)
        return locate(fetch_from_kaggle())

    def _names_by_split(self, layout: Layout, report: Verification) -> dict[str, list[str]]:
        """Returns the names of images with captions by split; reports those without a partner."""
        images, captions = layout.images, report.table.captions
        for name in sorted(images.keys() - captions.keys()):
            report.leave_out(Defect(images[name].name, name, "image without caption"))
        for name in sorted(captions.keys() - images.keys()):
            for line, caption in zip(report.table.lines[name], captions[name], strict=True):
                where = f"{Path(layout.table.name).name}:{line}"
                report.leave_out(Defect(where, f"{name}: {caption}", "caption without image"))
        for defect in layout.defects:
            report.leave_out(defect)
        official = official_splits()
        names: dict[str, list[str]] = collections.defaultdict(list)
        present = report.planned = sorted(captions.keys() & images.keys())

        def split_of(name: str) -> str:
            if name in official:
                return official[name]
            try:
                data = images[name].read(MAX_IMAGE_BYTES)
            except UnreadableFile:
                data = b""  # `_generate_examples` leaves it out and reports why
            return hashed_split(sha256(data), self.builder_config.fractions)

        for name, split in zip(present, map_ahead(split_of, present), strict=True):
            names[split].append(name)
        return names
