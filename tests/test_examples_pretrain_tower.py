"""Tests of the script that trains a new model's vision tower."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pretrain_tower
import pytest

import paligemma_lib as pg
from paligemma_lib.model import siglip, variants
from paligemma_lib.sample_data.patch_facts import CLASSES, FACTS

CONFIG = variants.nano()
CONFIG = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, depth=1))


def test_images_are_those_of_the_scenes_that_the_facts_are_of():
    images, facts = pretrain_tower.drawn(CONFIG.vision, 17, 3)
    assert images.shape == (3, 96, 96, 3) and images.dtype == np.float32
    assert facts.shape == (3, len(FACTS), 64)
    again, _ = pretrain_tower.drawn(CONFIG.vision, 18, 1)
    np.testing.assert_array_equal(images[1:2], again)


def test_a_classifier_that_knows_one_answer_is_right_where_that_is_the_answer():
    images, facts = pretrain_tower.drawn(CONFIG.vision, 0, 4)
    classes = sum(map(len, CLASSES.values()))
    dogs = jnp.zeros(classes).at[CLASSES["kind"].index("dog")].set(50.0)
    params = {
        "img": siglip.init(CONFIG, jax.random.key(0)),
        "head": jnp.zeros((CONFIG.language.width, classes)),
        "bias": dogs,
    }
    loss, right = pretrain_tower.loss_and_right(CONFIG, params, images, facts)
    kinds = facts[:, FACTS.index("kind")]
    shown = kinds > 0
    share = (kinds[shown] == CLASSES["kind"].index("dog")).mean()
    np.testing.assert_allclose(right["kind"], share, atol=1e-6)
    # A wrong kind costs 50 nats, any other fact the logarithm of its number of classes.
    weight = np.where(shown, 1, pretrain_tower.FAINT)
    wrong = (weight * (kinds != CLASSES["kind"].index("dog"))).sum() / weight.sum()
    others = sum(np.log(len(CLASSES[fact])) for fact in FACTS[1:6])
    others += pretrain_tower.FAINT * sum(np.log(len(CLASSES[fact])) for fact in FACTS[6:])
    np.testing.assert_allclose(loss, 50 * wrong + others, rtol=1e-5)


@pytest.mark.slow
def test_the_script_writes_a_model_that_sees_more_than_a_new_one(tmp_path):
    script = Path(pretrain_tower.__file__)
    command = [sys.executable, str(script), "--out", str(tmp_path / "new"), "--steps", "20"]
    told = subprocess.run(
        [*command, "--batch-size", "8"], capture_output=True, text=True, timeout=250, check=True
    ).stdout
    found = re.fullmatch(r"step 20, \d+ s: loss (\d+\.\d+); kind [\d.]+%, .*\n", told)
    assert found, told
    assert float(found[1]) < 9
    captioner = pg.load(tmp_path / "new" / "nano.params.npz")
    assert captioner.config == variants.nano()
    assert len(captioner.tokenizer.encode_prefix("caption en")) < 6
