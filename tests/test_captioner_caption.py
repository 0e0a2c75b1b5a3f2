"""The front door: whatever an image is given as, its caption is the same."""

import io
from pathlib import Path

import captioning_cases as cases
import jax
import numpy as np
import pytest
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.decode import Beam

NAMES = ["0.png", "1.png", "2.png"]
SHORT = {"max_new_tokens": 6, "batch_size": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return cases.write_images(tmp_path_factory.mktemp("door") / "Images", NAMES)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> pg.Captioner:
    _, checkpoint, _, tokenizer, *_ = cases.write_captioner(tmp_path_factory.mktemp("tiny"))
    return pg.load(checkpoint, tokenizer)


@pytest.fixture(scope="module")
def texts(captioner, folder) -> list[str]:
    """Of the three images, each asked for alone by its path."""
    found = [captioner.caption(folder / name, **SHORT).text for name in NAMES]
    assert len(set(found)) == 3
    return found


def forms(path: Path) -> list:
    image = Image.open(path)
    array = np.asarray(image)
    webp = io.BytesIO()
    image.save(webp, "WEBP", lossless=True)
    opaque = np.concatenate([array, np.full_like(array[..., :1], 9)], axis=-1)
    return [path, str(path), path.read_bytes(), webp.getvalue(), image, array, opaque]


def test_an_image_in_any_form_has_one_caption(captioner, folder, texts):
    for image in forms(folder / "1.png"):
        found = captioner.caption(image, **SHORT)
        assert str(found) == found.text == texts[1], type(image)


def test_many_have_a_list_in_their_order(captioner, folder, texts):
    mixed = [folder / "2.png", np.asarray(Image.open(folder / "0.png")), folder]
    found = captioner.caption(mixed, **SHORT)
    assert [each.text for each in found] == [texts[2], texts[0], *texts]
    assert [each.image_id for each in found] == [str(mixed[0]), "1", *NAMES]
    for many in (str(folder), folder, pg.data.from_image_files([str(folder)])):
        found = captioner.caption(many, **SHORT)
        assert [(each.image_id, each.text) for each in found] == list(
            zip(NAMES, texts, strict=True)
        )
    assert captioner.caption([], **SHORT) == []
    assert [each.text for each in captioner.caption([folder / "1.png"], **SHORT)] == [texts[1]]


def test_options_are_those_of_a_stream(captioner, folder):
    found = captioner.caption(folder / "0.png", sampler=Beam(2), prompt="caption de", **SHORT)
    assert len(found.caption.alternatives) == 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "HSV"])
def test_modes_give_the_pixels_of_their_rgb(mode, folder):
    image = Image.open(folder / "0.png").convert(mode)
    (record,) = pg.data.from_images([image]).read([0])
    pixels = np.asarray(Image.open(io.BytesIO(record.image)))
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_sixteen_bits_become_eight_as_those_of_a_file_do(tmp_path):
    array = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(array).save(tmp_path / "deep.png")
    given = [Image.fromarray(array), tmp_path / "deep.png"]
    one, other = (
        pg.data.decode_image(record.image, 64, dtype="uint8")
        for record in pg.data.from_images(given).read([0, 1])
    )
    np.testing.assert_array_equal(one, other)
    assert one.min() == 0 and one.max() == 255


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        ("nothing.jpg", FileNotFoundError, "nothing.jpg does not exist"),
        (b"", ValueError, "not a complete JPEG"),
        (b"no image at all", ValueError, "0: not a complete JPEG"),
        (
            np.zeros((8, 8, 3)),
            ValueError,
            r"image 0 is float64\[8, 8, 3\] with values 0 to 0, expected uint8\[H, W, 3",
        ),
        (np.full((8, 8, 3), 255, np.int32), ValueError, "int32.* with values 255 to 255"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"uint8\[0, 8, 3\], expected"),
        (np.zeros((8, 8, 2), np.uint8), ValueError, r"uint8\[8, 8, 2\]"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, r"uint8\[3, 8, 8\]"),
        (7, TypeError, "image 0 is of type int, expected a path"),
        ([Path("a.jpg"), None], FileNotFoundError, "a.jpg"),
    ],
)
def test_what_is_no_image_is_an_error(captioner, image, kind, message):
    with pytest.raises(kind, match=message):
        captioner.caption(image, **SHORT)


def test_a_folder_without_images_is_an_error(captioner, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no images"):
        captioner.caption(tmp_path, **SHORT)


def test_a_bar_shows_progress_where_it_is_wanted(captioner, folder, capsys):
    captioner.caption(folder, **SHORT)
    assert capsys.readouterr().err == ""  # no terminal
    captioner.caption(folder, progress=True, **SHORT)
    assert "3/3" in capsys.readouterr().err


def test_images_of_two_folders_that_share_names_have_their_paths_for_ids(tmp_path):
    for name in ("a", "b"):
        cases.write_images(tmp_path / name, ["1.png", f"only_{name}.png"])
    found = pg.data.from_images([tmp_path / "a", str(tmp_path / "b")])
    shared = [str(tmp_path / name / "1.png") for name in ("a", "b")]
    assert found.names == (shared[0], "only_a.png", shared[1], "only_b.png")


@pytest.mark.parametrize("kind, share", [("int8", 0.4), ("nf4", 0.25)])
def test_quantised_weights_say_what_they_say_undone(tmp_path, captioner, folder, kind, share):
    _, checkpoint, _, tokenizer, *_ = cases.write_captioner(tmp_path)
    stored = pg.load(checkpoint, tokenizer, weights=kind)
    linear = stored.params["llm"]["layers"]["mlp"]["linear"]
    assert (linear.kind, linear.dtype) == (kind, "float32")
    size = [sum(leaf.nbytes for leaf in jax.tree.leaves(c.params)) for c in (stored, captioner)]
    assert size[0] < share * size[1]
    pg.checkpoint.save_params(tmp_path / "undone.npz", stored.params)
    undone = pg.load(tmp_path / "undone.npz", tokenizer)
    said, expected = (
        [each.text for each in one.caption(folder, **SHORT)] for one in (stored, undone)
    )
    assert said == expected


def test_an_unknown_kind_of_weights_is_told():
    with pytest.raises(ValueError, match="weights='int4', expected one of int8, nf4"):
        pg.load("nano", weights="int4")
