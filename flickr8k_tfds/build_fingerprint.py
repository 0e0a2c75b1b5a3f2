"""Tells whether a data set that was built is still what its sources and options would give.

built = fingerprint(options, layout)                    # before images are read
built["contents"] = contents({"a.jpg": sha256})         # kept with what was built
changes(built, options, layout, ["a.jpg"])              # [] if nothing has changed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from flickr8k_tfds.image_checks import sha256
from flickr8k_tfds.image_tasks import digest
from flickr8k_tfds.layout import Layout
from flickr8k_tfds.parallel import map_ahead

Fingerprint = dict[str, Any]


def fingerprint(options: Mapping[str, Any], layout: Layout) -> Fingerprint:
    """Returns plain data for JSON that stand for what a data set is built from.

    No image is read. Names, sizes and times of modification are taken.

    Args:
      options: the options of the build, plain data for JSON.
      layout: the caption table and the files of images.
    """
    stamps = {name: file.stamp() for name, file in sorted(layout.images.items())}
    sizes = {name: size for name, (size, _) in stamps.items()}
    return {
        "options": dict(options),
        "table": sha256(layout.table_bytes()),
        "images": {
            "files": len(sizes),
            "bytes": sum(sizes.values()),
            "names_and_sizes": _digest(sizes),
        },
        "times": _digest(stamps),
    }


def read_fingerprint(report: epath.Path) -> Fingerprint:
    """Returns the fingerprint in the report of a build.

    Raises:
      ValueError: there is no report, or none with a fingerprint in it.
    """
    try:
        return dict(json.loads(report.read_text())["fingerprint"])
    except Exception as error:  # whatever stands there instead
        raise ValueError(f"{report} has no fingerprint: {error}") from error


def contents(digests: Mapping[str, str]) -> str:
    """Returns what stands for the contents of images, given the sha256 of each by its name."""
    return _digest(sorted(digests.items()))


def changes(
    built: Mapping[str, Any], options: Mapping[str, Any], layout: Layout, names: Iterable[str]
) -> list[str]:
    """Returns what is different from when a data set was built, one phrase for each difference.

    Images are read only if all names and sizes are the same, and times of modification are not.

    Args:
      built: the fingerprint of the build.
      options: the options that are asked for now.
      layout: the caption table and the files of images as they are now.
      names: names of the images that have captions.
    """
    now = fingerprint(options, layout)
    found = [
        f"{name} was {json.dumps(built['options'].get(name))} and is {json.dumps(value)}"
        for name, value in (dict.fromkeys(built["options"]) | now["options"]).items()
        if built["options"].get(name) != value
    ]
    if built["table"] != now["table"]:
        found.append(f"{layout.table} has changed")
    if built["images"] != now["images"]:
        before, after = _told(built), _told(now)
        same = "names or sizes of images have changed"
        found.append(same if before == after else f"images were {before} and are {after}")
    elif built["times"] != now["times"] and built["contents"] != _read(layout, names):
        found.append("images have changed, though their names and sizes have not")
    return found


def _read(layout: Layout, names: Iterable[str]) -> str:
    names = list(names)
    return contents(
        dict(zip(names, map_ahead(digest, map(layout.images.__getitem__, names)), strict=True))
    )


def _told(fingerprint: Mapping[str, Any]) -> str:
    images = fingerprint["images"]
    return f"{images['files']:,} files of {images['bytes']:,} bytes"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
