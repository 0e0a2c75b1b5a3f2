"""What steps refuse: options out of range, and batches whose arrays are in another range."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import sharding, testing
from paligemma_lib.train import loss, make_eval_step, make_optimizer, make_train_step

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])
OPTIMIZER = make_optimizer("sgd", learning_rate=0.1, total_steps=9)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", -100, "text has the id -100"),
        ("image", 255.0, "images have values from 255 to 255"),
        ("loss_weight", np.nan, "loss_weight is nan"),
    ],
)
def test_arrays_of_another_range_are_refused(name, value, message):
    broken = testing.tiny_batch(testing.tiny_tokenizer(), batch_size=4)
    broken[name][:] = value
    with pytest.raises(ValueError, match=f"train step: {message}"):
        make_train_step(CONFIG, OPTIMIZER, mesh=MESH)(None, broken)
    with pytest.raises(ValueError, match=f"eval step: {message}"):
        make_eval_step(CONFIG, mesh=MESH)(cases.random_params(CONFIG), broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"microbatches": 0}, "microbatches=0"),
        ({"microbatches": 2.0}, "microbatches=2.0"),
        ({"microbatches": True}, "microbatches=True"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0, expected .* at least 0 and below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ({"label_smoothing": float("nan")}, "label_smoothing=nan"),
        ({"z_loss": -1e-4}, "z_loss=-0.0001"),
        ({"z_loss": float("inf")}, "z_loss=inf, expected a finite number"),
        ({"z_loss": True}, "z_loss=True"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"make_train_step: {message}"):
        make_train_step(CONFIG, OPTIMIZER, mesh=MESH, **options)
    if "microbatches" not in options:
        with pytest.raises(ValueError, match=f"token_losses: {message}"):
            loss.token_losses(
                CONFIG,
                cases.random_params(CONFIG),
                testing.tiny_batch(testing.tiny_tokenizer(), batch_size=4),
                **options,
            )
