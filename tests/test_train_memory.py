"""The estimate of a step's memory against what XLA says it takes, and the check before a run."""

import dataclasses
from types import SimpleNamespace

import jax
import model_cases as cases
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.train.memory import bytes_needed, check_memory

OPTIMIZER = pg.train.make_optimizer("adamw", learning_rate=1e-3, total_steps=10)
CONFIG = pg.model.variants.nano(48)


def xla_bytes(config, trainable, rows, text_len, microbatches=1):
    mesh = pg.sharding.make_mesh(devices=jax.devices()[:1])
    state = pg.train.init_state(
        config, jax.device_put(cases.random_params(config), pg.sharding.replicated(mesh)),
        OPTIMIZER, trainable=trainable, mesh=mesh,
    )  # fmt: skip
    step = pg.train.make_train_step(config, OPTIMIZER, mesh=mesh, microbatches=microbatches)
    size = config.vision.image_size
    slots = np.zeros((rows, text_len), np.int32)
    batch = {
        "image": np.zeros((rows, size, size, 3), np.uint8),
        **dict.fromkeys(("text", "segment", "position"), slots),
        "loss_weight": np.ones((rows, text_len), np.float32),
    }
    changing = {name: value for name, value in vars(state).items() if name != "frozen"}
    with jax.set_mesh(mesh):
        lowered = step.jitted.lower(state.frozen, changing, pg.sharding.put_batch(mesh, batch))
    analysis = lowered.compile().memory_analysis()
    return analysis.argument_size_in_bytes + analysis.temp_size_in_bytes


@pytest.mark.parametrize(
    ("remat", "trainable", "microbatches"), [("none", "attention", 1), ("full", "all", 2)]
)
def test_it_lies_near_what_xla_takes(remat, trainable, microbatches):
    config = dataclasses.replace(CONFIG, remat=remat)
    sizes = {"batch_size": 16, "text_len": 96, "microbatches": microbatches}
    estimate = bytes_needed(config, OPTIMIZER, trainable=trainable, **sizes)
    assert estimate == pytest.approx(xla_bytes(config, trainable, 16, 96, microbatches), rel=0.35)


def test_what_needs_less_is_said_to_need_less():
    def needed(config=CONFIG, optimizer=OPTIMIZER, **changes):
        sizes = {"trainable": "all", "batch_size": 32, "text_len": 96} | changes
        return bytes_needed(config, optimizer, **sizes)

    sgd = pg.train.make_optimizer("sgd", learning_rate=1e-3, total_steps=10)
    top = pg.trainable.Select("attention", top_layers=1)
    assert needed(microbatches=4) < needed()
    assert needed(batch_size=8) < needed()
    assert needed(devices=4) < needed()
    assert needed(dataclasses.replace(CONFIG, remat="full")) < needed()
    assert needed(optimizer=sgd) < needed()
    assert needed(trainable="attention") < needed(trainable="llm") < needed()
    assert needed(trainable=top) < needed(trainable="attention")
    assert needed(trainable="attention", frozen_dtype="float16") < needed(trainable="attention")
    assert needed(devices=4, fsdp=4) < needed(devices=4)


def test_a_3b_run_is_told_from_what_a_t4_has():
    config = dataclasses.replace(pg.model.variants.paligemma_3b(), dtype="float16", remat="full")
    sizes = {"trainable": "attention", "text_len": 128, "batch_size": 2}
    halves = bytes_needed(config, OPTIMIZER, frozen_dtype="float16", **sizes)
    whole = bytes_needed(config, OPTIMIZER, frozen_dtype="float32", **sizes)
    assert 7 < halves / 2**30 < 13 < whole / 2**30


def test_a_device_with_too_little_is_refused_with_what_helps():
    def device(limit, used=0):
        stats = {"bytes_limit": limit, "bytes_in_use": used}
        return SimpleNamespace(platform="gpu", memory_stats=lambda: stats)

    assert check_memory(8 << 30, device(9 << 30))
    message = r"about 8.0 GiB of memory on .*, and 7.0 GiB are free.*model.remat=full"
    with pytest.raises(ValueError, match=message):
        check_memory(8 << 30, device(9 << 30, 2 << 30))
    assert not check_memory(1 << 60, SimpleNamespace(platform="gpu", memory_stats=lambda: None))
    with pytest.raises(ValueError, match="GiB are free"):
        check_memory(1 << 60, jax.devices("cpu")[0])
