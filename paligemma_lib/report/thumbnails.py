"""Pictures from wherever they are to something small enough for a report.

small = thumbnail("Images/1.jpg", side=384)
source = data_uri(small)          # "data:image/jpeg;base64,..."
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

# A path, the bytes of a picture file, a Pillow image, uint8[H, W, 3] or uint8[H, W]; or a function
# without arguments that gets one of these, called only if the picture is shown.
Stored = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
Picture = Stored | Callable[[], Stored]

_QUALITY = 82


def thumbnail(picture: Picture, side: int) -> Image.Image:
    """A copy in RGB, scaled down, if it is larger, until no side has more than `side` pixels.

    Pixels are as they are stored: an EXIF orientation is not applied, as it is not for the model.

    Raises:
      ValueError: the picture cannot be read, is too large to be safe, or is an array of other type
        or shape.
      FileNotFoundError: there is no such file.
    """
    if callable(picture):
        picture = picture()
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,)) or picture.size == 0:
            raise ValueError(
                f"a picture is {picture.dtype}{list(picture.shape)}, expected uint8[H, W, 3] or "
                "uint8[H, W]; of floats in [-1, 1], give ((x + 1) * 127.5).astype(np.uint8)"
            )
        return _scaled(Image.fromarray(picture), side)
    if isinstance(picture, Image.Image):
        return _scaled(picture.copy(), side)
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return _scaled(image, side)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {picture!s}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name = f"{len(picture)} bytes" if isinstance(picture, bytes) else str(picture)
        raise ValueError(f"{name} could not be read as a picture: {error}") from error


def data_uri(image: Image.Image) -> str:
    """A JPEG of the image as the text of a `src` attribute."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _scaled(image: Image.Image, side: int) -> Image.Image:
    if image.mode not in ("RGB", "L", "CMYK"):  # others scale badly, such as palettes
        image = image.convert("RGB")
    image.thumbnail((side, side))  # which decodes a JPEG no larger than it must
    return image.convert("RGB")
