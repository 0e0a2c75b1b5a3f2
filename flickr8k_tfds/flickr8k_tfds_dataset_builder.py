"""Defines the TFDS builder of Flickr8k, and of any images with captions in the same layout.

tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP

import flickr8k_tfds
data = tfds.load("flickr8k_tfds", split="train[:1200]")
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from flickr8k_tfds import image_tasks
from flickr8k_tfds.beam_maps import beam_examples, check_by_beam
from flickr8k_tfds.build_fingerprint import changes, contents, fingerprint
from flickr8k_tfds.caption_tables import Defect
from flickr8k_tfds.image_checks import ImageFacts
from flickr8k_tfds.image_tasks import Planned, make_example
from flickr8k_tfds.layout import WAYS_OUT, File, Layout, fetch_from_kaggle, is_empty, locate
from flickr8k_tfds.parallel import map_ahead
from flickr8k_tfds.reproducible_writer import ReproducibleWriter
from flickr8k_tfds.splitting import SPLITS, check_fractions, hashed_split, official_splits
from flickr8k_tfds.trees import DatasetError
from flickr8k_tfds.verification import Verification

REPORT_FILE = "verification.json"

_SIDE = "In pixels, before the image was made square."


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """Configuration of the builder: how images are stored and split.

    On the command line: `--config='{"name": "mine", "fractions": {"train": 0.8, "test": 0.2}}'`.

    Attributes:
      side: None stores images in their size; a number resizes each once to side x side pixels and
        stores a PNG.
      upright: whether images are stored as a viewer shows them, with their EXIF orientation
        applied. JPEG and PNG files that are upright as they are stay unchanged.
      fractions: split -> share of the images. Flickr8k's own images have official splits instead.
      strict: whether the build stops at the first row or image that it would leave out.
    """

    side: int | None = None
    upright: bool = True
    fractions: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1}
    )
    strict: bool = False

    def __post_init__(self):
        check_fractions(self.fractions)
        if self.side is not None and not (isinstance(self.side, int) and 1 <= self.side <= 4096):
            raise ValueError(f"side is {self.side!r}, expected 1 to 4096 pixels, or null")
        for name in ("upright", "strict"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected true or false")


class Builder(tfds.core.GeneratorBasedBuilder):
    """Flickr8k: photographs with five captions each."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    # `tfds build` builds every config of BUILDER_CONFIGS unless one is named. The square configs
    # are in `builder_configs` only, so that they are built on request.
    BUILDER_CONFIGS = [Config(name="original", description="The images in their size.")]
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

    _manual_dir: Path | None = None
    _config: tfds.download.DownloadConfig = tfds.download.DownloadConfig()
    _report: Verification | None = None

    def download_and_prepare(self, *, download_config=None, **kwargs) -> None:
        """Builds as TFDS does, but the manual folder may be a zip, be empty, or not be given.

        Raises:
          DatasetError: the data set cannot be built from the given files; or it exists, and was
            built from other files or with other options.
        """
        self._report = None
        self._config = config = download_config or tfds.download.DownloadConfig()
        given = Path(config.manual_dir).expanduser() if config.manual_dir else None
        self._manual_dir = None if given is None or is_empty(given) else given
        reuse = config.download_mode == tfds.download.GenerateMode.REUSE_DATASET_IF_EXISTS
        if reuse and self._manual_dir and self._manual_dir.exists() and self.data_path.exists():
            self._refuse_if_stale(self._manual_dir)
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
                    "height": tfds.features.Scalar(np.int32, doc=_SIDE),
                    "width": tfds.features.Scalar(np.int32, doc=_SIDE),
                }
            ),
            homepage="https://hockenmaier.cs.illinois.edu/8k-images.html",
            supervised_keys=None,
        )

    def _split_generators(self, dl_manager) -> dict[str, Any]:
        layout = self._locate(dl_manager)
        built_from = fingerprint(self._options(), layout)  # before anything is read
        strict = self.builder_config.strict
        report = Verification(str(layout.table), layout.read_table(), strict, built_from)
        self._report = report
        planned = self._plan(layout, report)
        if not planned:
            raise DatasetError(
                f"{layout.table} has no usable images with captions.\n{report.text()}\n{WAYS_OUT}"
            )
        # TFDS refuses a split without examples.
        return {
            split: self._generate_examples(planned[split]) for split in SPLITS if split in planned
        }

    def _generate_examples(self, planned: Sequence[Planned]) -> Any:
        config = self.builder_config
        make = functools.partial(make_example, side=config.side, upright=config.upright)
        return beam_examples(make, planned) if self._by_beam else map_ahead(make, planned)

    def _plan(self, layout: Layout, report: Verification) -> dict[str, list[Planned]]:
        """Checks all images with captions and returns those that are written, by split."""
        _report_unpaired(layout, report)
        present = report.planned = sorted(report.table.captions.keys() & layout.images.keys())
        files = [layout.images[name] for name in present]
        digests = {}
        planned: dict[str, list[Planned]] = collections.defaultdict(list)
        most = self._config.max_examples_per_split
        for name, file, facts in zip(present, files, self._check(files), strict=True):
            digests[name] = facts.sha256
            if facts.fault:
                report.leave_out(Defect(file.name, name, facts.fault))
                continue
            fractions = self.builder_config.fractions
            split = official_splits().get(name) or hashed_split(facts.sha256, fractions)
            if most is None or len(planned[split]) < most:
                report.keep(split, name, facts)
                planned[split].append(Planned(name, file, report.table.captions[name], facts))
        report.fingerprint["contents"] = contents(digests)
        return planned

    def _check(self, files: Sequence[File]) -> Iterable[ImageFacts]:
        check = functools.partial(image_tasks.check, upright=self.builder_config.upright)
        if not self._by_beam:
            return map_ahead(check, files)
        runner, options = self._config.beam_runner, self._config.beam_options
        return check_by_beam(check, files, self.data_path, runner=runner, options=options)

    @property
    def _by_beam(self) -> bool:
        return (self._config.beam_runner, self._config.beam_options) != (None, None)

    def _options(self) -> dict[str, Any]:
        """Returns the options that decide what is built."""
        names = ("side", "upright", "fractions", "strict")
        options = {name: getattr(self.builder_config, name) for name in names}
        return options | {"max_examples_per_split": self._config.max_examples_per_split}

    def _refuse_if_stale(self, source: Path) -> None:
        """Raises DatasetError if what exists was built from something else."""
        layout = locate(source)
        names = layout.read_table().captions.keys() & layout.images.keys()
        try:
            built = json.loads((self.data_path / REPORT_FILE).read_text())["fingerprint"]
            found = changes(built, self._options(), layout, names)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            found = [f"no fingerprint of what it was built from is in its {REPORT_FILE}"]
        if found:
            raise DatasetError(
                f"{self.data_path} exists, but is not what would be built now from {source}: "
                f"{'; '.join(found)}. Build it again with `tfds build --overwrite`, or build into "
                "another folder with --data_dir. To use it as it is, leave --manual_dir out."
            )

    def _example_writer(self) -> ReproducibleWriter:
        return ReproducibleWriter(self.info.file_format)

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        if self._report:  # TFDS generates nothing for --max_examples_per_split=0
            # This is the temporary folder that TFDS renames at the end, so data and report appear
            # together.
            (self.data_path / REPORT_FILE).write_text(self._report.json())

    def _locate(self, dl_manager) -> Layout:
        if self._manual_dir:
            return locate(self._manual_dir)
        if not self._config.manual_dir:
            # TFDS asserts that its default manual folder exists. It may also hold other data sets.
            try:
                return locate(Path(dl_manager.manual_dir))
            except AssertionError:
                pass
            except DatasetError as error:
                logging.info("No data set in the default folder, trying Kaggle: %s", error)
        return locate(fetch_from_kaggle())


def _report_unpaired(layout: Layout, report: Verification) -> None:
    """Reports images without captions, captions without images, and files that are not used."""
    images, captions = layout.images, report.table.captions
    for name in sorted(images.keys() - captions.keys()):
        report.leave_out(Defect(images[name].name, name, "image without caption"))
    for name in sorted(captions.keys() - images.keys()):
        for line, caption in zip(report.table.lines[name], captions[name], strict=True):
            where = f"{Path(layout.table.name).name}:{line}"
            report.leave_out(Defect(where, f"{name}: {caption}", "caption without image"))
    for defect in layout.defects:
        report.leave_out(defect)
