"""Makes a source, without captions, of images that a program already has in any form.

source = from_images(["dog.jpg", Path("Images"), data, PIL.Image.open("cat.png"), array])
source.read([0])[0].image

All forms become the bytes of image files, so that `data.image` decodes all images the same way.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image

from paligemma_lib.data.encoded import as_png
from paligemma_lib.data.files import read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.image_files import from_image_files
from paligemma_lib.data.sources import Record, Source

Image = str | os.PathLike[str] | bytes | PIL.Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class GivenImages(Source):
    """Images in memory or in files.

    Attributes:
      names: image ids.
      images: the images as they were given.
    """

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
    """Returns a source of images in any mixture of forms, in the given order.

    Args:
      images: paths of files, or of folders, which stand for all images in them; bytes of image
        files; Pillow images; arrays, uint8[H, W, 3], uint8[H, W, 4] or uint8[H, W]. The image id
        of a file is its path, of an image in a folder its path below that folder, of any other
        image its index in `images`: "0", "1", ... Where images of two folders would have the same
        id, it is the whole path.

    Raises:
      FileNotFoundError: a path does not exist, or a folder has no images.
      TypeError: an image has none of these forms.
      ValueError: an array has another dtype or shape.
    """
    found = [pair for place, image in enumerate(images) for pair in _named(place, image)]
    often = Counter(name for name, _ in found)
    names = tuple(
        os.fspath(image) if often[name] > 1 and isinstance(image, str | os.PathLike) else name
        for name, image in found
    )
    return GivenImages(names, tuple(image for _, image in found))


def _named(place: int, image: Image) -> Iterator[tuple[str, Image]]:
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if os.path.isdir(path):
            files = from_image_files([path])
            yield from zip(files.names, files.paths, strict=True)
        elif os.path.lexists(path):
            yield path, path
        else:
            raise FileNotFoundError(f"{path} does not exist: expected an image file or a folder")
    elif isinstance(image, np.ndarray):
        colours = image.shape[2:]
        is_image = image.ndim in (2, 3) and colours in ((), (3,), (4,)) and image.size > 0
        if image.dtype != np.uint8 or not is_image:
            raise ValueError(
                f"image {place} is {image.dtype}{list(image.shape)}{_range_told(image)}, expected "
                "uint8[H, W, 3] with values 0 to 255: image.astype('uint8') for other whole "
                "numbers or floats in this range, (255 * image).round().astype('uint8') for floats "
                "from 0 to 1, (127.5 * (image + 1)).round().astype('uint8') from -1 to 1"
            )
        yield str(place), image
    elif isinstance(image, bytes | PIL.Image.Image):
        yield str(place), image
    else:
        raise TypeError(
            f"image {place} is of type {type(image).__name__}, expected a path, bytes of an image "
            "file, a Pillow image, or an array"
        )


def _range_told(image: np.ndarray) -> str:
    if image.size == 0 or image.dtype.kind not in "iuf":
        return ""
    return f" with values {image.min():g} to {image.max():g}"


def _encoded(image: Image) -> bytes:
    """Returns the bytes of an image file with the same pixels."""
    if isinstance(image, bytes):
        if len(image) > MAX_IMAGE_BYTES:
            raise ValueError(
                f"the image has {len(image):,} bytes, expected at most {MAX_IMAGE_BYTES:,}"
            )
        return image
    if isinstance(image, str | os.PathLike):
        return read_whole(os.fspath(image), MAX_IMAGE_BYTES)
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    return as_png(image)
