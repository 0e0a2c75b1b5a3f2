"""Images as a program has them, as a source of records without captions.

source = from_images(["dog.jpg", Path("Images"), data, PIL.Image.open("cat.png"), array])
source.read([0])[0].image

All of them become bytes of image files, so that there is one way to pixels: see `data.image`.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image

from paligemma_lib.data.files import MAX_IMAGE_BYTES, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_files import from_image_files
from paligemma_lib.data.sources import Record, Source

Image = str | os.PathLike[str] | bytes | PIL.Image.Image | np.ndarray

_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # modes of 16 bits, which PNG keeps


@dataclasses.dataclass(frozen=True, eq=False)
class GivenImages(Source):
    """Images in memory or in files: their names, and what was given."""

    names: tuple[str, ...]
    images: tuple[Image, ...]

    def __len__(self) -> int:
        return len(self.images)

    def where(self, number: int) -> str:
        return self.names[number]

    def fingerprint(self) -> str:
        return fingerprint(*(record.image for record in self.read(range(len(self)))))

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return [Record(_encoded(self.images[k]), (), self.names[k]) for k in numbers]


def from_images(images: Sequence[Image]) -> GivenImages:
    """Images in any mixture of forms, in their order; a folder stands for the images in it.

    Args:
      images: paths of files and folders; bytes of image files; images of Pillow's; arrays, uint8[H,
        W, 3], uint8[H, W, 4] or uint8[H, W]. A file is named by its path, an image of a folder by
        its path below that, another one by its place: "0", "1", ...

    Raises:
      FileNotFoundError: a path leads to no file, or to a folder without images.
      TypeError: something is of none of these forms.
      ValueError: an array is of another type or shape.
    """
    found = [pair for place, image in enumerate(images) for pair in _named(place, image)]
    return GivenImages(tuple(name for name, _ in found), tuple(image for _, image in found))


def _named(place: int, image: Image) -> Iterator[tuple[str, Image]]:
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if os.path.isdir(path):
            files = from_image_files([path])
            yield from zip(files.names, files.paths, strict=True)
        elif os.path.isfile(path):
            yield path, path
        else:
            raise FileNotFoundError(f"{path} is not there: expected an image file or a folder")
    elif isinstance(image, np.ndarray):
        colours = image.shape[2:]
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or colours not in ((), (3,), (4,)):
            raise ValueError(
                f"image {place} is {image.dtype}{list(image.shape)}, expected uint8[H, W, 3] with "
                "values 0 to 255: for values from 0 to 1, (255 * image).round().astype('uint8')"
            )
        yield str(place), image
    elif isinstance(image, bytes | PIL.Image.Image):
        yield str(place), image
    else:
        raise TypeError(
            f"image {place} is of type {type(image).__name__}, expected a path, bytes of an image "
            "file, an image of Pillow's, or an array"
        )


def _encoded(image: Image) -> bytes:
    """The bytes of a file with the same pixels."""
    if isinstance(image, bytes):
        if len(image) > MAX_IMAGE_BYTES:
            raise ValueError(f"{len(image):,} bytes are too many: at most {MAX_IMAGE_BYTES:,}")
        return image
    if isinstance(image, str | os.PathLike):
        return read_whole(os.fspath(image), MAX_IMAGE_BYTES)
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    file = io.BytesIO()
    kept = image if image.mode in _DEEP else image.convert("RGB")
    kept.save(file, "PNG", compress_level=1)
    return file.getvalue()
