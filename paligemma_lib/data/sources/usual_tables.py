"""Makes sources of the two usual tables: JSON lines, and Kaggle's captions.txt.

source = from_jsonl("gs://longcap100/data_train90.jsonl")     # image, prefix, suffix
source = from_folder("flickr8k")                              # captions.txt and Images/
"""

from __future__ import annotations

import os

from paligemma_lib.data.files import join
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.table_source import TableSource, folder_of


def from_jsonl(path: str | os.PathLike[str], *, images: str | None = None) -> Source:
    """Returns a source of a JSON-lines file; each line has `image` and may have `suffix`, `prefix`.

    `image` is a file below the folder of images. `suffix` is a caption or a list of captions; a
    line without it is an image to be captioned. Lines of the same image and prefix are one record.

    Args:
      path: path of the file, local or remote.
      images: folder of the images, if it is not the folder of the file.
    """
    path = os.fspath(path)
    return TableSource("jsonl", path, images or folder_of(path))


def from_folder(
    folder: str | os.PathLike[str], *, table: str = "captions.txt", images: str = "Images"
) -> Source:
    """Returns a source of a folder like Kaggle's Flickr8k: a table `image,caption`, and images.

    The table is UTF-8. To train on a copy with broken rows, build `flickr8k_tfds` from it: the
    builder leaves out broken rows and lists them.

    Args:
      folder: path of the folder, local or remote.
      table: name of the table in the folder, with a header and one caption per line.
      images: name of the folder of images in the folder.
    """
    folder = os.fspath(folder)
    return TableSource("captions.txt", join(folder, table), join(folder, images))
