"""Names and suffixes by which the form of a file of data is known, before anything is opened.

is_packed("data/train-00000-of-00002.parquet"), is_table("notes/captions.csv")     # True, True
"""

import os

from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import join
from paligemma_lib.runtime.atomic import is_remote

# Names of tables in a folder, and how each is read. The first one that exists is used.
TABLES = (
    ("captions.txt", "captions.txt"),
    ("captions.csv", "delimited"),
    ("results.csv", "delimited"),  # Flickr30k
    ("metadata.csv", "delimited"),  # imagefolder
    ("metadata.jsonl", "jsonl"),
    ("metadata.parquet", "parquet"),
    ("Flickr8k.token.txt", "tokens"),
    ("captions.tsv", "delimited"),
)

# Suffixes of files that hold images and captions together, in the order of preference.
PACKED = (".arrow", ".parquet", ".tar")

_IMAGE_FOLDERS = ("Images", "images", "flickr30k_images", "Flicker8k_Dataset")
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".token", ".token.txt", "captions.txt")


def is_usual_table(path: str) -> bool:
    """Returns whether a file has one of the names of TABLES."""
    return path.rpartition("/")[2] in dict(TABLES)


def is_table(path: str) -> bool:
    """Returns whether a file is a table of names of images, by its name."""
    return is_usual_table(path) or path.lower().endswith(_TABLE_SUFFIXES)


def is_packed(path: str) -> bool:
    """Returns whether a file holds images and captions together, by its name."""
    return path.endswith(PACKED) and not is_usual_table(path)


def is_tfrecord(path: str) -> bool:
    """Returns whether a file is a TFRecord or ArrayRecord file, by its name."""
    return ".tfrecord" in path or ".array_record" in path


def is_image(path: str) -> bool:
    """Returns whether a file is an image, by its name."""
    return path.lower().endswith(SUFFIXES)


def images_beside(folder: str) -> str:
    """Returns the folder of images beside a table, by its usual names, else the table's folder."""
    if not is_remote(folder):
        for name in _IMAGE_FOLDERS:
            if os.path.isdir(join(folder, name)):
                return join(folder, name)
    return folder
