"""Schedules, and arguments that are refused."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_lib.train import make_optimizer


def rates(schedule, warmup_steps, steps):
    optimizer = make_optimizer(
        "sgd", learning_rate=2.0, total_steps=10, schedule=schedule, warmup_steps=warmup_steps
    )
    return [float(optimizer.schedule(jnp.int32(step))) for step in steps]


def test_the_rate_rises_from_the_first_step_on():
    assert rates("constant", 4, [0, 1, 3, 4, 9, 50]) == [0.5, 1.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("schedule", "half"), [("cosine", 0.5 * (1 + np.cos(np.pi / 2))), ("linear", 0.5)]
)
def test_the_rate_falls_to_zero(schedule, half):
    got = rates(schedule, 0, [0, 5, 10, 11])
    np.testing.assert_allclose(got, [2.0, 2.0 * half, 0.0, 0.0], atol=1e-6)
    falling = rates(schedule, 2, range(2, 11))
    assert all(a > b for a, b in itertools.pairwise(falling))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "adam"},
        {"schedule": "step"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"total_steps": 0},
        {"warmup_steps": 11},
        {"weight_decay": -0.1},
        {"clip_norm": 0.0},
        {"total_steps": 2.5},
        {"learning_rate": True},
        {"weight_decay": float("inf")},
        {"b1": 1.0},
    ],
    ids=lambda wrong: "{}={}".format(*next(iter(wrong.items()))),
)
def test_arguments_out_of_range_are_refused(wrong):
    fine = {"name": "sgd", "learning_rate": 1.0, "total_steps": 10}
    ((field, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{field}={value!r}, expected"):
        make_optimizer(**{**fine, **wrong})
