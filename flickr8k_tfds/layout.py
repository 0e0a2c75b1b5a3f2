"""Locates the caption table and the images of a data set in a user's folder or zip.

    layout = locate(Path("~/Downloads/flickr8k").expanduser())    # a folder or a zip
    layout = locate(fetch_from_kaggle())

There are two known forms: Kaggle's (`captions.txt` and `Images/`, in the folder, one level below
it, or in a zip), and the original one of the University of Illinois, UIUC (`Flickr8k.token.txt`,
split lists and `Flicker8k_Dataset/`, in folders or in two zips).
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from flickr8k_tfds.caption_tables import Defect, Table, parse_csv, parse_tokens
from flickr8k_tfds.trees import (
    MAX_TABLE_BYTES,
    OUTSIDE_CURE,
    DatasetError,
    Folder,
    Tree,
    UnreadableFile,
    Zip,
    open_tree,
)

KAGGLE_HANDLE = "adityajn105/flickr8k"

WAYS_OUT = f"""\
Any one of these provides the images and captions:
  1. Kaggle, automatically: create an API token at https://www.kaggle.com/settings, save it as
     ~/.kaggle/kaggle.json (or set KAGGLE_USERNAME and KAGGLE_KEY), then
       tfds build flickr8k_tfds
  2. Kaggle, manually: download https://www.kaggle.com/datasets/{KAGGLE_HANDLE} and pass
     the zip, or the folder with captions.txt and Images/:
       tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP
  3. The original files: a folder with Flickr8k_text.zip and Flickr8k_Dataset.zip, or their
     contents (Flickr8k.token.txt and Flicker8k_Dataset/):
       tfds build flickr8k_tfds --manual_dir=FOLDER
  4. Your own images: a folder with Images/ and a captions.txt of lines `image,caption`:
       tfds build flickr8k_tfds --manual_dir=FOLDER
  5. Drawn sample images, without a download:
       paligemma sample-data sample && tfds build flickr8k_tfds --manual_dir=sample"""

_KAGGLE_TABLE = re.compile(r"((?:[^/]+/)?)captions\.txt")
_TOKENS = re.compile(r"(?:[^/]+/)?Flickr8k\.token\.txt")
_UIUC_IMAGE = re.compile(r"(?:[^/]+/)?Flick(?:e)?r8k_Dataset/(.+)")


@dataclasses.dataclass(frozen=True)
class File:
    """A file in a folder or zip."""

    tree: Tree
    name: str

    def __str__(self) -> str:
        return f"{self.tree}/{self.name}"

    def read(self, limit: int) -> bytes:
        """Returns the file's bytes. Raises UnreadableFile, also for more than `limit` bytes."""
        return self.tree.read(self.name, limit)

    def stamp(self) -> tuple[int, int]:
        """Returns the size in bytes, and a number that changes when the file is written again."""
        return self.tree.stamp(self.name)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A located data set.

    Attributes:
      form: "Kaggle" or "UIUC".
      table: the file with the captions.
      images: file name without folders -> file.
      defects: files that look like images of the data set but are not used.
    """

    form: str
    table: File
    images: dict[str, File]
    defects: tuple[Defect, ...] = ()

    def table_bytes(self) -> bytes:
        """Returns the bytes of the table. Raises DatasetError if it cannot be read."""
        try:
            return self.table.read(MAX_TABLE_BYTES)
        except UnreadableFile as error:
            raise DatasetError(f"{self.table}: {error}") from error

    def read_table(self) -> Table:
        """Returns the captions. Raises DatasetError when the table is unusable."""
        data = self.table_bytes()
        parse = parse_csv if self.form == "Kaggle" else parse_tokens
        return parse(data, where=Path(self.table.name).name)


class NothingFoundError(DatasetError):
    """The folder or zip holds no data set of a known form."""


def has_files(path: Path) -> bool:
    """Returns whether there is a file, or a folder that is not empty."""
    try:
        return path.is_file() or any(path.iterdir())
    except OSError:
        return False


def locate(path: Path, *, allow_outside: bool = False) -> Layout:
    """Finds the data set in a folder or a zip.

    Args:
      path: the folder or zip.
      allow_outside: whether links in the folder may lead out of it.

    Raises:
      NothingFoundError: the path holds no data set of a known form.
      DatasetError: the path does not exist, cannot be read, or holds several data sets.
    """
    root = open_tree(path, allow_outside=allow_outside)
    files = [File(root, name) for name in root.names()]
    layouts = _kaggle_layouts(files)
    bad_zips: list[DatasetError] = []
    if not layouts and isinstance(root, Folder):
        inside = []
        for name in [file.name for file in files]:
            if "/" not in name and name.lower().endswith(".zip"):
                try:
                    if root.leads_out(name):
                        raise DatasetError(_outside(path / name))
                    tree = Zip(path / name)
                except DatasetError as error:
                    bad_zips.append(error)  # raised below only if there is no data set elsewhere
                else:
                    inside.append([File(tree, member) for member in tree.names()])
        layouts = [found for members in inside for found in _kaggle_layouts(members)]
        files += [member for members in inside for member in members]
    layouts = layouts or _uiuc_layouts(files)
    if not layouts:
        if bad_zips:
            raise bad_zips[0]
        found = ", ".join(sorted({file.name.partition("/")[0] for file in files})[:8]) or "nothing"
        closed = root.closed if isinstance(root, Folder) else []
        denied = "".join(
            f" {folder} cannot be listed: make it readable (chmod -R a+rX {folder})."
            for folder in closed
        )
        denied += "".join(f" {_outside(each)}" for each in getattr(root, "outside", []))
        raise NothingFoundError(
            f"{path} holds no data set: expected captions.txt beside Images/, or "
            f"Flickr8k.token.txt with Flicker8k_Dataset/, found {found}.{denied}\n{WAYS_OUT}"
        )
    if len(layouts) > 1:
        tables = "\n".join(f"  {layout.table}" for layout in layouts)
        raise DatasetError(
            f"{path} holds {len(layouts)} data sets, expected one. Name one of:\n{tables}"
        )
    return layouts[0]


def _outside(path: Path) -> str:
    return f"{path} is a link that leads out of the folder and is not followed: {OUTSIDE_CURE}."


def given_path(manual_dir: str | os.PathLike[str] | None) -> Path | None:
    """Returns the path of a folder or a zip that was given; None: nothing was.

    Raises:
      DatasetError: it is empty, perhaps of a variable that was not set.
    """
    if manual_dir == "":
        raise DatasetError(f"manual_dir is empty, expected a folder or a zip.\n{WAYS_OUT}")
    return Path(manual_dir).expanduser() if manual_dir else None


def fetch_from_kaggle() -> Path:
    """Downloads Flickr8k through kagglehub and returns the folder.

    Raises:
      DatasetError: the download failed, for any reason. The message lists all other ways.
    """
    try:
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub passes on errors of its HTTP stack and the disk
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise DatasetError(
            f"There is no data set here, and Kaggle's {KAGGLE_HANDLE} could not be fetched "
            f"({reason}).\n{WAYS_OUT}"
        ) from error


def _kaggle_layouts(files: list[File]) -> list[Layout]:
    tables = {}  # a zip may hold a name twice: the last file counts, as in unpacking
    for file in files:
        if match := _KAGGLE_TABLE.fullmatch(file.name):
            tables[match[1]] = file
    found = []
    for folder, table in tables.items():
        image = re.compile(re.escape(folder) + "Images/(.+)", re.DOTALL)
        found.append(_layout("Kaggle", table, files, image))
    return [layout for layout in found if layout.images]


def _uiuc_layouts(files: list[File]) -> list[Layout]:
    # [:1]: `files` lists unpacked files before those in zips, and both hold the same captions.
    tables = [file for file in files if _TOKENS.fullmatch(file.name)][:1]
    found = [_layout("UIUC", table, files, _UIUC_IMAGE) for table in tables]
    return [layout for layout in found if layout.images]


def _layout(form: str, table: File, files: list[File], image: re.Pattern[str]) -> Layout:
    images: dict[str, File] = {}
    defects = []
    for file in files:
        if match := image.fullmatch(file.name):
            name = match[1]
            if "/" in name:
                defects.append(Defect(str(file), name, "in a folder below that of the images"))
            elif name not in images:
                images[name] = file
            # The same name in another tree is the same image, once unpacked and once in a zip.
            elif images[name].tree is file.tree:
                defects.append(Defect(str(file), name, "another image of this name is taken"))
    return Layout(form, table, images, tuple(defects))
