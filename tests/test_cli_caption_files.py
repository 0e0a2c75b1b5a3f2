"""Pages and sheets of captions show the masks that captions name, if a codec is given."""

import numpy as np
import pytest
from data_cases import photo
from mask_cases import square_arrays
from PIL import Image

from paligemma_lib.captioner import Captioned
from paligemma_lib.cli.caption_files import write_captions
from paligemma_lib.data import from_image_files
from paligemma_lib.decode import Caption
from paligemma_lib.regions import Box, MaskCodec, Region, write_regions


@pytest.fixture
def done() -> list[Captioned]:
    text = write_regions([Region("dog", Box(0.1, 0.1, 0.9, 0.9), (1,) * 16)])
    return [Captioned(0, "1.jpg", (), Caption(text, (8, 1), (-0.5, -0.5), -1.0))]


@pytest.mark.parametrize("suffix", [".png", ".html", ".csv", ".jsonl", ".parquet"])
def test_what_is_drawn_shows_masks_and_tables_stay_the_same(done, suffix, tmp_path):
    (tmp_path / "1.jpg").write_bytes(photo(1, (200, 150)))
    source = from_image_files([str(tmp_path)])
    asked = {"checkpoint": "nano"}
    for name, codec in (("boxes", None), ("masks", MaskCodec(square_arrays()))):
        write_captions(tmp_path / f"{name}{suffix}", done, [], source, asked, codec)
    boxes, masks = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("boxes", "masks"))
    assert (boxes == masks) == (suffix not in (".png", ".html"))
    if suffix == ".png":
        plain, veiled = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("boxes", "masks"))
        assert plain.shape == veiled.shape and (plain != veiled).any(-1).sum() > 500
