"""Steps: what they compute, over microbatches, devices and stages, and what they do not compile."""

import dataclasses
import functools
import json

import jax
import jax.extend
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import optax
import pytest

from paligemma_lib import sharding, testing, trainable
from paligemma_lib.train import (
    init_state,
    loss,
    make_eval_step,
    make_optimizer,
    make_train_step,
    restage,
)
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])

pytestmark = pytest.mark.usefixtures("strict_promotion")


def batch_of(seed=0, batch_size=4):
    tokenizer = testing.tiny_tokenizer()
    return testing.tiny_batch(tokenizer, batch_size=batch_size, captions=2, seed=seed)


@functools.cache
def optimizer_of(name="sgd", **options):
    options = {"learning_rate": 0.1, "total_steps": 100, "schedule": "constant", **options}
    return make_optimizer(name, **options)


def state_of(optimizer, what="attention", config=CONFIG):
    params = jax.device_put(cases.random_params(config), sharding.replicated(MESH))
    return init_state(config, params, optimizer, trainable=what, mesh=MESH)


@functools.cache
def attention_step(name, microbatches=1):
    optimizer = optimizer_of(name)
    return make_train_step(CONFIG, optimizer, mesh=MESH, microbatches=microbatches)


@functools.cache
def gradients():
    """Of the loss at the start, for the attention weights."""
    state = state_of(optimizer_of())

    @jax.jit
    def gradient(trained, frozen, batch):
        def mean(trained):
            params = trainable.merge(trained, frozen)
            nll, weight = loss.token_losses(CONFIG, params, batch)
            return jnp.sum(nll * weight) / jnp.sum(weight)

        return jax.grad(mean)(trained)

    return gradient(state.trained, state.frozen, batch_of())


TRANSFORMS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adamw": optax.adamw(0.1, weight_decay=0.0),
    "adafactor": optax.chain(
        optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale(-0.1)
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_step_is_optax_after_clipping(name):
    state = state_of(optimizer_of())
    transform = optax.chain(optax.clip_by_global_norm(1.0), TRANSFORMS[name])

    @jax.jit
    def stepped(trained, gradients):
        updates, _ = transform.update(gradients, transform.init(trained), trained)
        return optax.apply_updates(trained, updates)

    with jax.numpy_dtype_promotion("standard"):
        expected = stepped(state.trained, gradients())
    norm = optax.tree.norm(gradients())
    got, metrics = attention_step(name)(state_of(optimizer_of(name)), batch_of())
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    for key, (part,) in expected.items():
        np.testing.assert_allclose(got.trained[key][0], part, atol=1e-5, err_msg=key)
    assert int(got.step) == 1


def test_microbatches_equal_the_large_batch():
    batch = batch_of(batch_size=8)
    batch["loss_weight"][:3] *= 0.25  # so that means of means would show
    whole, metrics = attention_step("sgd")(state_of(optimizer_of()), batch)
    parts, of_parts = attention_step("sgd", 4)(state_of(optimizer_of()), batch)
    np.testing.assert_allclose(of_parts["loss"], metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(of_parts["gradient_norm"], metrics["gradient_norm"], rtol=1e-5)
    start = state_of(optimizer_of())
    for name, (part,) in whole.trained.items():
        change = np.linalg.norm(part - start.trained[name][0])
        assert np.linalg.norm(parts.trained[name][0] - part) < 1e-4 * change, name


def test_weight_decay_spares_scales_and_biases():
    optimizer = make_optimizer(
        "sgd", learning_rate=0.5, total_steps=9, schedule="constant", weight_decay=0.1
    )
    step = make_train_step(CONFIG, optimizer, mesh=MESH)
    batch = {**batch_of(), "loss_weight": np.zeros_like(batch_of()["loss_weight"])}
    before = state_of(optimizer, ["llm/layers/mlp/linear", "llm/final_norm/scale"])
    after, metrics = step(before, batch)
    start = cases.flatten(cases.random_params(CONFIG))
    assert float(metrics["loss"]) == 0
    linear, scale = "llm/layers/mlp/linear", "llm/final_norm/scale"
    np.testing.assert_allclose(after.trained[linear][0], start[linear] * 0.95, rtol=1e-6)
    np.testing.assert_array_equal(after.trained[scale][0], start[scale])


def test_one_compilation_in_a_stage_and_frozen_arrays_stay():
    step = make_train_step(CONFIG, optimizer_of("adamw"), mesh=MESH)
    state = state_of(optimizer_of("adamw"))
    frozen = state.frozen
    for seed in range(3):
        state, _ = step(state, batch_of(seed))
    assert step.jitted._cache_size() == 1
    assert state.frozen is frozen
    state = restage(state, optimizer_of("adamw"), ["attention", "projector"])
    for seed in range(2):
        state, _ = step(state, batch_of(seed))
    assert step.jitted._cache_size() == 2


def test_the_old_state_is_given_away():
    state = state_of(optimizer_of())
    old = state.trained["llm/layers/attn/q_einsum/w"][0]
    attention_step("sgd")(state, batch_of())
    assert old.is_deleted()


def products(jaxpr):
    """How many matrix products a program runs, loops counted as often as they turn."""
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += equation.primitive.name == "dot_general"
        total += times * sum(map(products, jax.extend.core.jaxprs_in_params(equation.params)))
    return total


def test_no_backward_pass_below_the_top_layers():
    optimizer = optimizer_of()
    step = make_train_step(CONFIG, optimizer, mesh=MESH)

    def count(what):
        state = state_of(optimizer, what)
        changing = {key: value for key, value in vars(state).items() if key != "frozen"}
        return products(step.jitted.trace(state.frozen, changing, batch_of()).jaxpr.jaxpr)

    one, two, three = (count(Select("attention", layers)) for layers in (1, 2, 3))
    # Not equal: in the last layer, image tokens are not read and cost less.
    assert two - one == pytest.approx(three - two, rel=0.2) and three - two > 10
    assert three == count("attention") < count(["attention", "projector"])


def test_steps_that_are_not_finite_have_no_effect_and_are_counted():
    state, step = state_of(optimizer_of()), attention_step("sgd")
    before = jax.tree.map(np.asarray, state.trained)
    broken = batch_of()
    broken["image"][0, 0, 0, 0] = np.nan
    for count in (1, 2):
        state, metrics = step(state, broken)
        assert float(metrics["skipped_in_a_row"]) == count
    jax.tree.map(np.testing.assert_array_equal, state.trained, before)
    state, metrics = step(state, batch_of())
    assert float(metrics["skipped_in_a_row"]) == 0
    assert (int(state.step), int(state.skipped)) == (3, 2)
    assert not np.array_equal(next(iter(state.trained.values()))[0], next(iter(before.values()))[0])


def test_float16_halves_its_scale_when_gradients_overflow():
    config = dataclasses.replace(CONFIG, dtype="float16")
    optimizer = optimizer_of()
    step = make_train_step(config, optimizer, mesh=MESH)
    state = state_of(optimizer, config=config)
    assert float(state.loss_scale) == 2**15
    wanted, _ = attention_step("sgd")(state_of(optimizer), batch_of())
    state, metrics = step(state, batch_of())
    assert float(metrics["skipped_in_a_row"]) == 0
    for name, (part,) in wanted.trained.items():
        change = np.linalg.norm(part - cases.flatten(cases.random_params(CONFIG))[name])
        assert np.linalg.norm(state.trained[name][0] - part) < 0.02 * change
    state = dataclasses.replace(state, loss_scale=jnp.float32(2.0**40))
    state, metrics = step(state, batch_of())
    assert float(metrics["skipped_in_a_row"]) == 1
    assert float(state.loss_scale) == 2**39


def test_eval_step_gives_the_loss_of_every_example():
    step = make_eval_step(CONFIG, mesh=MESH)
    params = cases.random_params(CONFIG)
    batch = batch_of()
    losses, weights = step(params, batch)
    np.testing.assert_allclose(weights, batch["loss_weight"].sum(1), rtol=1e-6)
    for example in range(len(losses)):
        alone = {key: np.repeat(value[example : example + 1], 4, 0) for key, value in batch.items()}
        alone_losses, _ = step(params, alone)
        np.testing.assert_allclose(losses[example], alone_losses[0], rtol=1e-5)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="batch_size=3 cannot be divided among 1 devices and 4"):
        attention_step("sgd", 4)(state_of(optimizer_of()), batch_of(batch_size=3))


PROGRAM = """
import json
import sys
import jax
import model_cases as cases
from paligemma_lib import sharding, testing, train
{start}
config = cases.tiny_config(2)
mesh = sharding.make_mesh({fsdp})
params = jax.tree.map(
    lambda leaf, where: jax.make_array_from_callback(leaf.shape, where, lambda i: leaf[i]),
    cases.random_params(config),
    sharding.param_shardings(mesh, cases.random_params(config)),
)
optimizer = train.make_optimizer("adamw", learning_rate=0.01, total_steps=9)
state = train.init_state(config, params, optimizer, trainable="all", mesh=mesh)
step = train.make_train_step(config, optimizer, mesh=mesh, microbatches={microbatches})
batch = testing.tiny_batch(testing.tiny_tokenizer(), batch_size=16, captions=2)
batch["loss_weight"][:5] *= 0.25
share = 16 // jax.process_count()
first = share * jax.process_index()
batch = {{key: value[first : first + share] for key, value in batch.items()}}
losses = []
for _ in range(3):
    state, metrics = step(state, batch)
    losses.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
print(json.dumps(losses))
"""


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(run_on_devices):
    one = json.loads(run_on_devices(1, PROGRAM.format(start="", fsdp=1, microbatches=1)))
    # Each device has two rows, which are two microbatches.
    eight = json.loads(run_on_devices(8, PROGRAM.format(start="", fsdp=4, microbatches=4)))
    np.testing.assert_allclose(eight, one, rtol=1e-5)
