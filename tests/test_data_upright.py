"""One rule for the EXIF orientation, wherever an image is used."""

import io

import numpy as np
import pytest
from captioning_cases import CONFIG
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.captioner import streaming
from paligemma_lib.data.image_files import from_image_files
from paligemma_lib.decode import Caption
from paligemma_lib.report.thumbnails import thumbnail
from paligemma_lib.testing import tiny_tokenizer

SIZE = CONFIG.vision.image_size


def rotated() -> Image.Image:
    """White on the left as it is stored, and on top as it is seen."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[:, : SIZE // 2] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def path(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "rotated.png"
    rotated().save(path, exif=exif)
    path.with_suffix(".txt").write_text("white above black")
    return path


def is_upright(image: np.ndarray) -> bool:
    """Says whether white is on top; fails if it is neither on top nor on the left."""
    top, left = image[: SIZE // 2], image[:, : SIZE // 2]
    white = image.max()
    assert (top == white).all() != (left == white).all()
    return bool((top == white).all())


@pytest.mark.parametrize("apply_exif", [True, False])
@pytest.mark.parametrize("make", ["train", "eval"])
def test_in_batches(path, make, apply_exif):
    source = pg.data.open_source(str(path.parent))
    options = {"image_size": SIZE, "text_len": 24, "batch_size": 1, "apply_exif": apply_exif}
    if make == "train":
        batches = pg.data.train_batches(source, tiny_tokenizer(), seed=0, **options)
    else:
        batches = pg.data.eval_batches(source, tiny_tokenizer(), **options)
    assert is_upright(next(iter(batches))["image"][0]) == apply_exif


@pytest.mark.parametrize("apply_exif", [True, False])
def test_in_captioning(path, apply_exif, monkeypatch):
    seen = []

    def generate(config, params, images, tokenizer, **options):
        seen.extend(np.asarray(images))
        return [Caption("a", (), (), True)] * len(images)

    monkeypatch.setattr(streaming, "generate", generate)
    source = from_image_files([str(path)])
    list(streaming.stream(CONFIG, {}, tiny_tokenizer(), source, apply_exif=apply_exif))
    assert is_upright(seen[0]) == apply_exif


def test_in_images_of_a_program(path):
    with Image.open(path) as image:
        (record,) = pg.data.from_images([image]).read([0])
    assert is_upright(pg.data.decode_image(record.image, SIZE))


def test_in_reports(path):
    assert is_upright(np.asarray(thumbnail(path, SIZE)))
    file = io.BytesIO()
    rotated().save(file, "TIFF", tiffinfo={0x0112: 6})
    assert is_upright(np.asarray(thumbnail(file.getvalue(), SIZE)))


def test_metadata_that_cannot_be_read_do_no_harm_to_reports():
    file = io.BytesIO()
    rotated().save(file, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert thumbnail(file.getvalue(), SIZE).size == (SIZE, SIZE)
