"""Defines the TFDS builder of Flickr8k, and of any images with captions in the same layout.

tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP

import flickr8k_tfds
data = tfds.load("flickr8k_tfds", split="train[:1200]")
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from flickr8k_tfds import image_tasks
from flickr8k_tfds.beam_maps import beam_examples, check_by_beam
from flickr8k_tfds.build_config import Config
from flickr8k_tfds.build_fingerprint import changes, contents, fingerprint, read_fingerprint
from flickr8k_tfds.build_lock import build_lock
from flickr8k_tfds.caption_tables import Defect
from flickr8k_tfds.image_checks import sha256
from flickr8k_tfds.image_tasks import Checked, KeyExample
from flickr8k_tfds.layout import WAYS_OUT, File, Layout, fetch_from_kaggle, given_path, has_files
from flickr8k_tfds.layout import locate as locate_layout
from flickr8k_tfds.parallel import map_ahead
from flickr8k_tfds.reproducible_writer import ReproducibleWriter
from flickr8k_tfds.splitting import SPLITS, hashed_split, official_splits
from flickr8k_tfds.trees import DatasetError
from flickr8k_tfds.verification import Verification

REPORT_FILE = "verification.json"

_SIDE = "In pixels, before the image was made square."


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
        """Builds as TFDS does, but the manual folder may be a zip, or not be given.

        Raises:
          DatasetError: the data set cannot be built from the given files; or it exists, and was
            built from other files or with other options; or another process is building it.
        """
        self._report = None
        self._config = config = download_config or tfds.download.DownloadConfig()
        self._manual_dir = given_path(config.manual_dir)
        reuse = config.download_mode == tfds.download.GenerateMode.REUSE_DATASET_IF_EXISTS
        # What exists is not built: to load it needs no lock, and perhaps no right to write.
        exists = reuse and self.data_path.exists()
        if exists and self._manual_dir and has_files(self._manual_dir):
            self._refuse_if_stale(self._manual_dir)
        with contextlib.nullcontext() if exists else build_lock(self.data_path):
            super().download_and_prepare(download_config=download_config, **kwargs)
        if self._report:
            # After the data is written. Characters that a terminal's encoding lacks are escaped.
            encoding = sys.stdout.encoding or "ascii"
            print(self._report.text().encode(encoding, "backslashreplace").decode(encoding))

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.builder_config.side
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(side, side, 3)),
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
        _report_unpaired(layout, report)
        present = report.planned = sorted(report.table.captions.keys() & layout.images.keys())
        files = {name: layout.images[name] for name in present}
        make = self._generators_by_beam if self._by_beam else self._generators_in_threads
        generators = make(files, report)
        if not generators:
            raise DatasetError(
                f"{layout.table} has no usable images with captions.\n{report.text()}\n{WAYS_OUT}"
            )
        return generators

    def _generators_in_threads(
        self, files: dict[str, File], report: Verification
    ) -> dict[str, Iterator[KeyExample]]:
        # These are read twice: their split depends on their content, and TFDS writes by split.
        own = {name: file for name, file in files.items() if name not in official_splits()}
        digests = dict(zip(own, map_ahead(image_tasks.digest, own.values()), strict=True))
        generators: dict[str, Iterator[KeyExample]] = {}
        for split, names in self._names_by_split(files, digests).items():
            members = {name: files[name] for name in names}
            examples = self._generate_examples(split, members, digests, report)
            first = next(examples, None)
            # TFDS refuses a split without examples, so the first one is taken off, and put back.
            if first is not None:
                generators[split] = itertools.chain([first], examples)
        return generators

    def _generate_examples(
        self, split: str, files: dict[str, File], digests: dict[str, str], report: Verification
    ) -> Iterator[KeyExample]:
        config = self.builder_config
        load = functools.partial(image_tasks.load, side=config.side, apply_exif=config.apply_exif)
        loaded = map_ahead(load, files.values())
        for (name, file), (facts, data) in zip(files.items(), loaded, strict=True):
            if digests.get(name, facts.sha256) != facts.sha256:
                raise image_tasks.changed(file)  # perhaps it belongs to another split now
            if report.record(split, name, file.name, facts):
                yield name, image_tasks.example(name, report.table.captions[name], facts, data)

    def _generators_by_beam(self, files: dict[str, File], report: Verification) -> dict[str, Any]:
        config, most = self.builder_config, self._config.max_examples_per_split
        check = functools.partial(image_tasks.check, apply_exif=config.apply_exif)
        load = functools.partial(
            image_tasks.load_checked, side=config.side, apply_exif=config.apply_exif
        )
        checked = check_by_beam(
            check,
            list(files.values()),
            self.data_path,
            runner=self._config.beam_runner,
            options=self._config.beam_options,
        )
        facts = dict(zip(files, checked, strict=True))
        digests = {name: found.sha256 for name, found in facts.items()}
        generators = {}
        for split, names in self._names_by_split(files, digests).items():
            kept = (
                Checked(name, files[name], report.table.captions[name], facts[name])
                for name in names
                if report.record(split, name, files[name].name, facts[name])
            )
            if planned := list(itertools.islice(kept, most)):
                generators[split] = beam_examples(load, planned)
        return generators

    def _names_by_split(
        self, names: Iterable[str], digests: Mapping[str, str]
    ) -> dict[str, list[str]]:
        fractions = self.builder_config.fractions
        by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
        for name in names:
            split = official_splits().get(name)
            # A file that cannot be read has no hash, and will be left out of any split.
            split = split or hashed_split(digests[name] or sha256(b""), fractions)
            by_split[split].append(name)
        return by_split

    @property
    def _by_beam(self) -> bool:
        return (self._config.beam_runner, self._config.beam_options) != (None, None)

    def _options(self) -> dict[str, Any]:
        most = self._config.max_examples_per_split
        return self.builder_config.options() | {"max_examples_per_split": most}

    def _refuse_if_stale(self, source: Path) -> None:
        """Raises DatasetError if what exists was built from something else."""
        layout = self._locate_in(source)
        names = layout.read_table().captions.keys() & layout.images.keys()
        try:
            built = read_fingerprint(self.data_path / REPORT_FILE)
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
            # TFDS renames this temporary folder at the end: data and report appear together.
            self._report.fingerprint["contents"] = contents(self._report.digests)
            (self.data_path / REPORT_FILE).write_text(self._report.json())

    def _locate(self, dl_manager) -> Layout:
        if self._manual_dir:
            return self._locate_in(self._manual_dir)
        # TFDS asserts that its default manual folder exists. It may also hold other data sets.
        try:
            return self._locate_in(Path(dl_manager.manual_dir))
        except AssertionError:
            pass
        except DatasetError as error:
            logging.info("No data set in the default folder, trying Kaggle: %s", error)
        return locate_layout(fetch_from_kaggle(), allow_outside=True)  # its cache may be links

    def _locate_in(self, path: Path) -> Layout:
        return locate_layout(path, allow_outside=self.builder_config.allow_outside)


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
