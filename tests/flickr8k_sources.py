"""Small data sets in the forms that Flickr8k comes in, for the tests of `flickr8k_tfds`."""

import contextlib
import csv
import io
import os
import zipfile
from pathlib import Path

from PIL import Image

# Three of Flickr8k's names, one per official split.
TRAIN, VALIDATION, TEST = (
    "1000268201_693b08cb0e.jpg",
    "1022454332_6af2c1449a.jpg",
    "1056338697_4f7d7ce270.jpg",
)


def image(colour="red", size=(16, 12), mode="RGB", form="JPEG", **options) -> bytes:
    """The bytes of an image of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, form, **options)
    return buffer.getvalue()


def csv_table(captions: dict[str, list[str]]) -> bytes:
    """Kaggle's `captions.txt`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "caption"))
    writer.writerows((name, caption) for name, texts in captions.items() for caption in texts)
    return text.getvalue().encode()


def token_table(captions: dict[str, list[str]]) -> bytes:
    """The original `Flickr8k.token.txt`."""
    rows = (
        f"{name}#{number}\t{caption}\n"
        for name, texts in captions.items()
        for number, caption in enumerate(texts)
    )
    return "".join(rows).encode()


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """Writes files by relative name."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """Writes files as a zip, whatever their names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def kaggle_files(pictures: dict[str, bytes], captions: dict[str, list[str]] | None = None):
    """Relative names -> bytes in Kaggle's layout; one caption per image unless given."""
    captions = captions or {name: [f"Caption of {name} ."] for name in pictures}
    images = {f"Images/{name}": data for name, data in pictures.items()}
    return {"captions.txt": csv_table(captions), **images}


@contextlib.contextmanager
def closed(folder: Path):
    """Makes a folder unreadable; nothing is closed to root, who becomes somebody else meanwhile."""
    user = os.geteuid()
    parents = [parent for parent in folder.parents if parent.stat().st_mode & 0o5 != 0o5]
    for parent in parents:
        parent.chmod(0o755)
    folder.chmod(0)
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        for parent in parents:
            parent.chmod(0o700)


def exif_rotated() -> bytes:
    """An image whose EXIF says that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return image(exif=exif)
