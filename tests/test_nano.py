"""The embedded model: small, of the exact format, and it sees what it captions."""

import random
import re
from importlib.resources import files

import pytest

import paligemma_lib as pg
from paligemma_lib import sample_data
from paligemma_lib.sample_data import labels
from paligemma_lib.sample_data.objects import PALETTE
from paligemma_lib.sample_data.scenes import NOUNS, NUMBERS

FOLDER = files("paligemma_lib") / "nano"
SEED = 7  # of scenes that neither pretraining nor the default run has


def test_it_is_at_most_7_mb():
    assert sum(len(each.read_bytes()) for each in FOLDER.iterdir()) <= 7_000_000


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


def things_of(label: str) -> list[tuple[str | None, str | None, int | None]]:
    """Kind, colour and number of each thing in a label."""
    kinds = {word: kind for kind, forms in NOUNS.items() for pair in forms for word in pair}
    numbers = {"one": 1, "a": 1, "an": 1} | {word: count for count, word in NUMBERS.items()}
    facts, *_ = label.removeprefix("there : ").split(" . ")
    things = []
    for part in re.split(r" , | and | : (?:to the (?:left|right) of|next to|above|under) ", facts):
        words = part.split()
        found = [
            next((table[word] for word in words if word in table), None)
            for table in (kinds, {colour: colour for colour in PALETTE}, numbers)
        ]
        things.append(tuple(found))
    return things


def test_it_names_what_is_in_an_image_and_how_many_of_which_colour(told):
    named, kinds, right, of_others = 0, 0, 0, 0
    scenes = [sample_data.compose(SEED, index) for index in range(len(told))]
    groups = [
        {(g.kind, None if scene.greyscale else g.colour, len(g.boxes)) for g in scene.groups}
        for scene in scenes
    ]
    for number, text in enumerate(told):
        for thing in things_of(text):
            named += 1
            kinds += thing[0] in {kind for kind, _, _ in groups[number]}
            right += thing in groups[number]
            of_others += thing in groups[number - 1]
    assert named >= len(told)
    assert kinds >= 0.95 * named
    assert right >= 0.9 * named
    assert of_others <= 0.1 * named


def test_it_speaks_in_labels(told):
    spoken = {
        word
        for index in range(1000)
        for label in labels.captions(sample_data.compose(0, index), random.Random(index))
        for word in label.split()
    }
    assert {word for text in told for word in text.split()} <= spoken
    ordered = rf"\b(an?|one|two|three|four) ({'|'.join(PALETTE)}) [a-z]+"
    assert not [text for text in told if re.match(ordered, text)]
