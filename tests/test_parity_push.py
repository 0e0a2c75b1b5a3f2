"""transformers loads what was pushed, from the Hub's stand-in, and writes the same captions."""

import numpy as np
import pytest
from adapter_cases import random_adapters
from hub_server import TOKEN, hub_here
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.checkpoint.adapters import find_adapter, write_adapter
from paligemma_lib.run.publishing import push
from paligemma_lib.sample_data import compose, draw

REASON = "needs transformers and torch (pip install -e '.[parity]')"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

NAME, BASE, ADAPTER = "somebody/captioner", "somebody/base", "somebody/adapter"
PROMPT = "caption en"


@pytest.fixture
def images():
    """Squares of the model's size, which nobody has to resize."""
    import random

    drawn = [draw(compose(3, k), random.Random(k)).convert("RGB") for k in range(4)]
    return [each.resize((96, 96), Image.Resampling.BICUBIC) for each in drawn]


@pytest.fixture(scope="module", autouse=True)
def one_hub(tmp_path_factory):
    """The Hub for all tests: transformers keeps the address of the first that it asks."""
    with (
        pytest.MonkeyPatch.context() as patch,
        hub_here(patch, tmp_path_factory.mktemp("hub") / "home"),
    ):
        patch.setenv("HF_TOKEN", TOKEN)
        yield


def test_transformers_writes_the_captions_of_what_was_pushed(images):
    push("nano", NAME)
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(NAME).float()
    compare(NAME, model, images)


def test_peft_writes_the_captions_of_an_adapter_that_was_pushed(images, tmp_path):
    """With the processor of the adapter's repository."""
    peft = pytest.importorskip("peft", reason=REASON)
    push("nano", BASE)
    config = pg.load("nano").config
    arrays = random_adapters(config, ["attention"], size=0.2)
    push(write_adapter(tmp_path / "adapter", arrays, base=BASE, config=config), ADAPTER)
    base = transformers.PaliGemmaForConditionalGeneration.from_pretrained(BASE).float()
    # From our download: peft keeps the Hub's address that it was imported with.
    compare(ADAPTER, peft.PeftModel.from_pretrained(base, str(find_adapter(ADAPTER))), images)
    plain, adapted = (pg.load(each).caption(images, prompt=PROMPT) for each in (BASE, ADAPTER))
    assert [each.caption.text for each in plain] != [each.caption.text for each in adapted]


def compare(name, model, images):
    """Asserts that theirs and ours write the same captions, ours of what was pushed."""
    ours = pg.load(name).caption([np.asarray(each) for each in images], prompt=PROMPT)
    processor = transformers.AutoProcessor.from_pretrained(name)
    assert processor.tokenizer.is_fast
    model.eval()
    for image, expected in zip(images, ours, strict=True):
        inputs = processor(images=image, text=f"<image>{PROMPT}", return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        new = written[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(new, skip_special_tokens=True) == expected.text
