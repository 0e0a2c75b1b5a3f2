"""transformers loads what was pushed, from the Hub's stand-in, and writes the same captions."""

import numpy as np
import pytest
from hub_server import TOKEN
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.run.publishing import push
from paligemma_lib.sample_data import compose, draw

REASON = "needs transformers and torch (pip install -e '.[parity]')"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

NAME, PROMPT = "somebody/captioner", "caption en"


@pytest.fixture
def images():
    """Squares of the model's size, which nobody has to resize."""
    import random

    drawn = [draw(compose(3, k), random.Random(k)).convert("RGB") for k in range(4)]
    return [each.resize((96, 96), Image.Resampling.BICUBIC) for each in drawn]


def test_transformers_writes_the_captions_of_what_was_pushed(hub, monkeypatch, images):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push("nano", NAME)
    ours = pg.load(NAME).caption([np.asarray(each) for each in images], prompt=PROMPT)
    processor = transformers.AutoProcessor.from_pretrained(NAME)
    assert processor.tokenizer.is_fast
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(NAME).float().eval()
    for image, expected in zip(images, ours, strict=True):
        inputs = processor(images=image, text=f"<image>{PROMPT}", return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        new = written[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(new, skip_special_tokens=True) == expected.text
