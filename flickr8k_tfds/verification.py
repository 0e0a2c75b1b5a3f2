"""Reports on a build: the images in each split, what is left out and why, and other findings.

report = Verification(source="...", table=table)
report.record("train", "a.jpg", "Images/a.jpg", facts)
report.leave_out(Defect("Images/b.jpg", "b.jpg", "empty file"))
print(report.text())
path.write_text(report.json())
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from flickr8k_tfds.caption_tables import Defect, Table
from flickr8k_tfds.image_checks import ImageFacts
from flickr8k_tfds.splitting import SPLITS, official_splits
from flickr8k_tfds.trees import DatasetError, visible

_CAPTIONS_PER_IMAGE = 5
_EXAMPLES_SHOWN = 3


@dataclasses.dataclass
class Verification:
    """Collects the findings of a build; `summary` computes the report from them.

    Attributes:
      source: name of the file with the captions.
      table: the parsed captions.
      strict: whether the first defect stops the build.
      fingerprint: what the data set is built from, plain data for JSON.
      planned: names of all images that have captions. Images that are neither kept nor left out at
        the end were not written, for instance because of `--max_examples_per_split`.
      digests: name -> sha256 of the images that were read.
    """

    source: str
    table: Table
    strict: bool = False
    fingerprint: dict[str, Any] = dataclasses.field(default_factory=dict)
    planned: list[str] = dataclasses.field(default_factory=list)
    digests: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._images: dict[str, ImageFacts] = {}
        self._split: dict[str, str] = {}
        self._left_out: list[Defect] = []
        self._faults: dict[str, Defect] = {}
        for defect in self.table.defects:
            self.leave_out(defect)

    def leave_out(self, defect: Defect) -> None:
        """Records a row or an image that is left out. Raises DatasetError when strict."""
        self._left_out.append(self._checked(defect))

    def record(self, split: str, name: str, where: str, image: ImageFacts) -> bool:
        """Records what the check of an image found; returns whether the image is kept.

        The order of calls does not matter to the report: it lists images by name.
        """
        self.digests[name] = image.sha256
        if image.fault:
            self._faults[name] = self._checked(Defect(where, name, image.fault))
            return False
        self._images[name] = image
        self._split[name] = split
        return True

    def summary(self) -> dict[str, Any]:
        """Returns the report as plain data for JSON."""
        self._images = dict(sorted(self._images.items()))
        captions = {name: self.table.captions[name] for name in self._images}
        left_out = self._defects()
        return {
            "source": self.source,
            "splits": self._splits(captions),
            # The defect of an image has the image's name as `what`.
            "not_written": len(
                set(self.planned) - captions.keys() - {defect.what for defect in left_out}
            ),
            "left_out": [dataclasses.asdict(defect) for defect in left_out],
            "remarks": _group(
                (remark, name) for name, image in self._images.items() for remark in image.remarks
            ),
            "latin1_rows": self.table.latin1_rows,
            "duplicate_rows": [
                {"image": name, "caption": caption, "times": times}
                for name, texts in captions.items()
                for caption, times in collections.Counter(texts).items()
                if times > 1
            ],
            "identical_images": self._identical_images(),
            "captions_in_several_splits": self._captions_in_several_splits(captions),
            "flickr8k": self._completeness(captions),
            "fingerprint": self.fingerprint,
        }

    def json(self) -> str:
        """Returns the report as indented JSON."""
        return json.dumps(self.summary(), indent=1) + "\n"

    def text(self) -> str:
        """Returns the report as text for people, about ten lines."""
        summary = self.summary()
        lines = [f"Verified {self.source}"]
        for split, counts in summary["splits"].items():
            per_image = ", ".join(
                f"{images:,} with {number}"
                for number, images in counts["captions_per_image"].items()
            )
            lines.append(
                f"  {split:<11}{counts['images']:>6,} images {counts['captions']:>7,} captions"
                f"  ({per_image})"
            )
        reasons = _group((defect.why, defect.where) for defect in self._defects())
        lines.append(f"  left out   {len(summary['left_out']):>6,}")
        lines += [f"    {len(where):>6,} x {why}: {_some(where)}" for why, where in reasons.items()]
        remarks = summary["remarks"].items()
        lines += [f"  {remark}: {len(names):,} ({_some(names)})" for remark, names in remarks]
        if self.table.latin1_rows:
            lines.append(f"  rows not UTF-8, read as Latin-1: {len(self.table.latin1_rows):,}")
        lines.append(f"  duplicate rows: {len(summary['duplicate_rows']):,}")
        identical = summary["identical_images"]
        lines.append(
            f"  identical images: {len(identical):,} groups, "
            f"{sum(not group['same_captions'] for group in identical):,} with different captions, "
            f"{sum(len(group['splits']) > 1 for group in identical):,} in several splits"
        )
        shared = len(summary["captions_in_several_splits"])
        lines.append(f"  captions in several splits: {shared:,}")
        if summary["not_written"]:
            lines.append(f"  not written, as requested: {summary['not_written']:,} images")
        elif summary["flickr8k"]:
            lines.append("  " + _completeness_line(summary["flickr8k"]))
        return "\n".join(map(visible, lines))

    def _checked(self, defect: Defect) -> Defect:
        if self.strict:
            raise DatasetError(
                f"{defect.where}: {defect.why} ({defect.what!r}). The build is strict: fix or "
                "remove this, or build without strict to leave it out."
            )
        return defect

    def _defects(self) -> list[Defect]:
        return self._left_out + [defect for _, defect in sorted(self._faults.items())]

    def _splits(self, captions: dict[str, list[str]]) -> dict[str, Any]:
        counts = {}
        for split in SPLITS:
            sizes = [len(captions[name]) for name, of in self._split.items() if of == split]
            if sizes:
                counts[split] = {
                    "images": len(sizes),
                    "captions": sum(sizes),
                    "captions_per_image": dict(sorted(collections.Counter(sizes).items())),
                }
        return counts

    def _identical_images(self) -> list[dict[str, Any]]:
        # Files with the same bytes under several names. In several splits, they leak test images
        # into training.
        groups = _group((image.sha256, name) for name, image in self._images.items())
        return [
            {
                "images": names,
                "splits": sorted({self._split[name] for name in names}),
                "same_captions": len({tuple(self.table.captions[name]) for name in names}) == 1,
            }
            for names in groups.values()
            if len(names) > 1
        ]

    def _captions_in_several_splits(self, captions: dict[str, list[str]]) -> list[dict[str, Any]]:
        splits = collections.defaultdict(set)
        for name, texts in captions.items():
            for caption in texts:
                splits[caption].add(self._split[name])
        return [
            {"caption": caption, "splits": sorted(where)}
            for caption, where in splits.items()
            if len(where) > 1
        ]

    def _completeness(self, captions: dict[str, list[str]]) -> dict[str, Any] | None:
        """Returns how complete Flickr8k is; None if no image is one of Flickr8k."""
        official = official_splits()
        here = {name: len(texts) for name, texts in captions.items() if name in official}
        if not here:
            return None
        missing = _group((split, name) for name, split in official.items() if name not in here)
        odd = {name: count for name, count in here.items() if count != _CAPTIONS_PER_IMAGE}
        return {
            "complete": not missing and not odd,
            "images": len(here),
            "images_expected": len(official),
            "captions": sum(here.values()),
            "captions_expected": _CAPTIONS_PER_IMAGE * len(official),
            "missing_images": missing,
            "images_without_five_captions": odd,
        }


def _completeness_line(found: dict[str, Any]) -> str:
    if found["complete"]:
        return "Flickr8k is complete."
    missing = ", ".join(f"{len(names):,} of {s}" for s, names in found["missing_images"].items())
    odd = found["images_without_five_captions"]
    return (
        f"Flickr8k is not complete: {found['images']:,} of {found['images_expected']:,} "
        f"images, {found['captions']:,} of {found['captions_expected']:,} captions"
        + (f"; missing {missing}" if missing else "")
        + (f"; not five captions: {_some(list(odd))}" if odd else "")
    )


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _EXAMPLES_SHOWN else ""
    return ", ".join(names[:_EXAMPLES_SHOWN]) + more
