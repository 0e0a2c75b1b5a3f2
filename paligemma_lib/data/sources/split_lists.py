"""Splits a source by lists of images, one file name in each line.

test = ListedSplit(source, "Flickr_8k.testImages.txt")
lists_in("Flickr8k_text")          # {"train": ".../Flickr_8k.trainImages.txt", ...}
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence

from paligemma_lib.data.files import join, read_whole
from paligemma_lib.data.fingerprints import derived, fingerprint
from paligemma_lib.data.sources.image_folder import SHOWN, NameIndex, differing
from paligemma_lib.data.sources.subset import Subset
from paligemma_lib.data.text import lines_of
from paligemma_lib.runtime.visible_text import visible

MAX_LIST_BYTES = 1 << 30
# Names of lists that a folder may have: train.txt, val.txt; Flickr_8k.devImages.txt of UIUC.
_LIST = re.compile(r"(?:.*[._-])?(train|val|valid|validation|dev|test)(?:Images)?\.(?:txt|lst)")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ListedSplit(Subset):
    """Records of the images that a file names; the split is the path of the file.

    Names match those of the images as loosely as names in a table match files.
    """

    @functools.cached_property
    def _names(self) -> list[str]:
        try:
            lines = lines_of(read_whole(self.split, MAX_LIST_BYTES))
        except ValueError as error:
            raise ValueError(f"{self.split}, {error}") from error
        return [line.strip() for line in lines if line.strip()]

    def chosen(self, images: Sequence[str]) -> list[bool]:
        """Returns whether each record is in the split, given the name of each record's image.

        Raises:
          ValueError: an image of the list is not in the source.
        """
        index = NameIndex(list(dict.fromkeys(images)))
        found = {name: index.find(name) for name in self._names}
        if missing := [name for name, image in found.items() if image is None]:
            shown = ", ".join(map(repr, missing[:SHOWN]))
            raise ValueError(
                f"{self.split}: {len(missing):,} of its {len(found):,} names are not images of the "
                f"data: {shown}. The data have {', '.join(map(repr, images[:SHOWN]))}. Remove the "
                "names, or add the images"
            )
        if told := differing((name, image) for name, image in found.items() if image):
            _log.info("%s: %s", self.split, told)
        listed = set(found.values())
        return [image in listed for image in images]

    def fingerprint(self) -> str:
        names = "\n".join(self._names).encode(errors="surrogateescape")
        return derived([self.source.fingerprint()], lambda firsts: fingerprint(*firsts, names))


def lists_in(folder: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the paths of split lists among the files of a folder, by the name of the split.

    A single list does not count, because a text file may have any name. Neither does a file with
    another of the same stem: train.txt beside train.jpg is the caption of that image. Where a split
    has several lists, none is used.

    Args:
      folder: the folder.
      names: names of its files.
    """
    stems = Counter(name.rpartition(".")[0] for name in names)
    matches = [
        (name, _LIST.fullmatch(name)) for name in names if stems[name.rpartition(".")[0]] == 1
    ]
    found = [(match[1], join(folder, name)) for name, match in matches if match]
    if len(dict(found)) < len(found):
        names = ", ".join(path for _, path in found)
        _log.warning(
            "%s: several lists of one split are not used: %s", visible(folder), visible(names)
        )
        return {}
    return dict(found) if len(found) > 1 else {}


def list_named(path: str, split: str) -> str:
    """Returns the file that `split` names, from here or from the folder of the data; "" if none.

    Args:
      path: path of the data.
      split: name of a split, or path of a list.
    """
    if "." not in split:
        return ""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    return next((each for each in (split, join(folder, split)) if os.path.isfile(each)), "")
