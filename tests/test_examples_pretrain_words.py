"""Tests of the script that teaches a tower which words people use."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pretrain_words
import pytest

import paligemma_lib as pg
from paligemma_lib.model import paligemma, variants


def test_pieces_count_by_the_captions_that_have_them():
    text = jnp.array([[7, 3, 3, 5, 0], [3, 3, 3, 3, 3]])
    segment = jnp.array([[0, 1, 2, 2, -1], [1, 2, 3, 4, 5]])  # 0 is the prompt
    want = np.zeros((2, 8))
    want[0, 3], want[0, 5], want[1, 3] = 0.4, 0.2, 1
    found = pretrain_words.occurring(text, segment, 8)
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert float(pretrain_words.occurring(text[1:], segment[1:] * 0 + 1, 8).max()) == 1


def test_without_a_look_at_the_image_the_loss_is_that_of_the_frequencies():
    config = variants.scratch()
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, depth=6))
    params = paligemma.init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 96, 96, 3), np.uint8)
    text, segment = rng.integers(3, 30, (3, 12)), np.ones((3, 12), int)
    held_out = [(image, text, segment)]
    first = pretrain_words.first_params(config, params, held_out)
    blind = first | {"table": jnp.zeros_like(first["table"])}
    found = float(pretrain_words.loss(config, blind, image, text, segment))
    wanted = np.asarray(pretrain_words.occurring(text, segment, config.language.vocab_size))
    often = np.clip(wanted.mean(0), 1e-4, 1)
    entropy = -(wanted * np.log(often) + (1 - wanted) * np.log1p(-often)).sum(1).mean()
    assert found == pytest.approx(entropy, rel=0.02)


@pytest.mark.slow
def test_the_script_writes_a_model_that_a_run_begins_with(tmp_path):
    script = Path(pretrain_words.__file__)
    drawn = ["data.kind=sample", "data.name=60", "data.train=train", "data.validation=validation"]
    words = [sys.executable, str(script), "--epochs", "2", *drawn]
    words += ["batch_size=8", "model.vocab_size=400"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"PYTHONPATH": str(script.parents[1])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    losses = re.findall(r"^step \d+, \d+ s: validation loss ([\d.]+)$", done.stdout, re.M)
    assert len(losses) >= 2
    assert float(losses[-1]) < float(losses[0])
    captioner = pg.load(tmp_path / "workdir" / "words" / "words.params.npz")
    assert captioner.config.language.vocab_size == 400
