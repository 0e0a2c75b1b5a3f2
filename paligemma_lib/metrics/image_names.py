"""Finds the references of captions whose images are named in another way, by the rule of data.

captions = renamed({"IMG_1.JPG": "a dog"}, {"Images/img_1.jpg": ["A dog runs ."]}, "p.json")
captions                                # {"Images/img_1.jpg": "a dog"}
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from paligemma_lib.metrics.caption_checks import ImageId
from paligemma_lib.runtime.name_matching import SHOWN, NameIndex, differing

_log = logging.getLogger(__name__)


def renamed(
    captions: Mapping[ImageId, str],
    names: Iterable[ImageId],
    path: object,
    files: Mapping[ImageId, str] = {},
) -> dict[ImageId, str]:
    """Returns the captions under the names of the same images in the references.

    Names that differ are told in the log, with their number and three examples.

    Args:
      captions: captions by the names of their images.
      names: names of the images in the references.
      path: file of the captions, for messages.
      files: names of the files of images that the references name in another way, such as COCO.

    Raises:
      ValueError: a name has no match, or none that it has alone.
    """
    known = {str(name): name for name in names}  # keys of JSON objects are always str
    known = {file: name for name, file in files.items() if str(name) in known} | known
    index = NameIndex(list(known))
    found = {image: index.find(str(image)) for image in captions}
    often = Counter(known[name] for name in found.values() if name is not None)
    # Of several captions for one image, one under the exact name would not make the others right.
    lost = [image for image, name in found.items() if name is None or often[known[name]] > 1]
    if lost:
        shown = ", ".join(map(repr, lost[:SHOWN]))
        raise ValueError(
            f"{len(lost):,} of {len(captions):,} images of {path} have no captions in the "
            f"references, or none that are theirs alone: {shown}{', ...' * (len(lost) > SHOWN)}; "
            f"the references name {next(iter(known), None)!r}, for example"
        )
    if told := differing((str(image), str(name)) for image, name in found.items()):
        _log.info("%s: %s", path, told)
    return {known[str(found[image])]: caption for image, caption in captions.items()}
