"""The embedded model: small, of the exact format, and it sees what it captions."""

import json
import random
import re
from importlib.resources import files

import pytest

import paligemma_lib as pg
from paligemma_lib import sample_data
from paligemma_lib.sample_data import labels
from paligemma_lib.sample_data.scenes import NOUNS

FOLDER = files("paligemma_lib") / "nano"
SEED = 7  # of scenes that neither pretraining nor the default run has


def test_it_is_at_most_6_mb():
    assert sum(len(each.read_bytes()) for each in FOLDER.iterdir()) <= 6_000_000


def test_it_is_a_checkpoint_like_any_other():
    config = pg.checkpoint.read_config("nano")
    assert config == pg.model.variants.nano()
    params = pg.checkpoint.load_params("nano", config)
    assert params["llm"]["embedder"]["input_embedding"].dtype == "float16"
    tokenizer = pg.tokenizer.load(pg.captioner.tokenizer_of("nano"))
    tokenizer.check_fits(config.language.vocab_size)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Captions of 48 scenes that no training has seen."""
    folder = sample_data.write_scenes(tmp_path_factory.mktemp("nano") / "scenes", 48, seed=SEED)
    source = pg.data.from_folder(folder)
    found = pg.load("nano").stream(source, batch_size=16, max_new_tokens=24)
    return [result.caption.text for result in found]


def test_it_names_what_is_in_a_image(told):
    kinds = {word: kind for kind, forms in NOUNS.items() for pair in forms for word in pair}
    named, true, of_others = 0, 0, 0
    scenes = [sample_data.compose(SEED, index) for index in range(len(told))]
    for number, text in enumerate(told):
        words = {kinds[word] for word in text.split() if word in kinds}
        named += len(words)
        true += len(words & {group.kind for group in scenes[number].groups})
        of_others += len(words & {group.kind for group in scenes[number - 1].groups})
    assert named >= len(told)
    assert true >= 0.75 * named
    assert of_others <= 0.5 * true


def test_it_speaks_in_labels(told):
    spoken = {
        word
        for index in range(1000)
        for label in labels.captions(sample_data.compose(0, index), random.Random(index))
        for word in label.split()
    }
    assert {word for text in told for word in text.split()} <= spoken
    assert all(re.search(r" : |^there | an? \w+ one", text) for text in told), json.dumps(told)
