"""Many images of a source: what is wrong with one does not end the job."""

import captioning_cases as cases
import jax
import pytest

from paligemma_lib.captioner import Captioned, Captioner, Skipped
from paligemma_lib.data.sources import Record
from paligemma_lib.decode import NotFinite
from paligemma_lib.serving import Engine, lane
from paligemma_lib.serving.bulk import caption_numbers
from paligemma_lib.testing import tiny_tokenizer


class Images:
    """One image, several times."""

    def __init__(self, image: bytes):
        self.image = image

    def __len__(self) -> int:
        return 3

    def read(self, numbers) -> list[Record]:
        return [Record(self.image, (), str(number)) for number in numbers]

    def where(self, number: int) -> str:
        return f"image {number}"

    def fingerprint(self) -> str:
        return "images"


@pytest.fixture
def engine():
    params = jax.tree.map(jax.numpy.asarray, cases.random_params())
    captioner = Captioner(cases.CONFIG, params, tiny_tokenizer())
    engine = Engine(lambda: captioner, rows=2, prompt_tokens=48, max_new_tokens=4)
    yield engine
    engine.close()


def test_an_image_whose_numbers_are_not_finite_is_skipped(engine, tmp_path, monkeypatch):
    image = (cases.write_images(tmp_path, ["1.png"]) / "1.png").read_bytes()
    captions_from, calls = lane.captions_from, []

    def broken_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise NotFinite("NaN or infinite")
        return captions_from(*arguments)

    monkeypatch.setattr(lane, "captions_from", broken_once)
    results = list(caption_numbers(engine, Images(image), range(3)))
    (skipped,) = [each for each in results if isinstance(each, Skipped)]
    assert "NaN or infinite" in str(skipped)
    assert sum(isinstance(each, Captioned) for each in results) == 2
