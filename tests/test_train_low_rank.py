"""Training of adapters: steps, microbatches, top layers, stages, devices, and going on."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from low_rank_cases import EVERYWHERE, random_adapters

from paligemma_lib import sharding, testing, trainable
from paligemma_lib.model.adapter_params import LowRank, adapters_of, init_adapters, with_adapters
from paligemma_lib.train import Checkpoints, init_state, make_optimizer, make_train_step, restage
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])
OPTIMIZER = make_optimizer("adamw", learning_rate=0.02, total_steps=20, schedule="constant")

pytestmark = pytest.mark.usefixtures("strict_promotion")


def batch_of(seed=0, batch_size=4):
    tokenizer = testing.tiny_tokenizer()
    return testing.tiny_batch(tokenizer, batch_size=batch_size, captions=2, seed=seed)


def params_of(options=EVERYWHERE, trained=False):
    params = jax.tree.map(jnp.asarray, cases.random_params(CONFIG))
    made = random_adapters(params, options) if trained else None
    made = made or init_adapters(params, options, jax.random.key(5))
    return jax.device_put(with_adapters(params, made), sharding.replicated(MESH))


def state_of(what="lora", optimizer=OPTIMIZER, **options):
    return init_state(CONFIG, params_of(**options), optimizer, trainable=what, mesh=MESH)


@functools.cache  # compiling is nearly all that these tests do
def step_of(**options):
    return make_train_step(CONFIG, OPTIMIZER, mesh=MESH, **options)


def changed(before, after):
    old, new = (cases.flatten(trainable.merge({}, s.frozen | s.trained)) for s in (before, after))
    return {name for name in old if np.any(np.asarray(old[name]) != np.asarray(new[name]))}


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_learn_and_nothing_else_changes(dora):
    options = dataclasses.replace(EVERYWHERE, dora=dora)
    state, step, batch = state_of(options=options), step_of(), batch_of()
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.2
    moved = changed(state_of(options=options), state)
    assert all("/lora/" in name and not name.endswith("/scale") for name in moved)
    parts = {"a", "b"} | ({"magnitude"} if dora else set())
    assert {name.rpartition("/")[2] for name in moved} == parts
    assert len(moved) == 14 * len(parts)  # the adapters of all products


@pytest.mark.slow
def test_microbatches_equal_the_large_batch():
    batch = batch_of(batch_size=8)
    whole, _ = step_of()(state_of(), batch)
    parts, _ = step_of(microbatches=4)(state_of(), batch)
    for name, (part,) in whole.trained.items():
        np.testing.assert_allclose(parts.trained[name][0], part, atol=2e-3, err_msg=name)


def test_only_the_top_layers_train():
    top = Select("lora", top_layers=1)
    options = LowRank(3, targets=("llm",))
    before = state_of(top, options=options)
    after, _ = step_of()(state_of(top, options=options), batch_of())
    for name, (part,) in after.trained.items():
        assert len(part) == 1 and [len(each) for each in after.frozen[name]] == [2], name
    below = [part for name, part in before.frozen.items() if name.endswith("/b")]
    assert below and not np.any(below[0])  # what does not train adds zero


def test_stages_add_to_what_trains():
    state, _ = step_of()(state_of(), batch_of())
    learned = {name: np.asarray(parts[0]) for name, parts in state.trained.items()}
    state = restage(state, OPTIMIZER, ["lora", "projector"])
    assert set(state.trained) == {*learned, "img/head/kernel", "img/head/bias"}
    for name, array in learned.items():
        np.testing.assert_array_equal(state.trained[name][0], array)
    moved = changed(state, step_of()(jax.tree.map(jnp.copy, state), batch_of(1))[0])
    assert "img/head/kernel" in moved


@pytest.mark.slow
def test_dropout_hangs_on_seed_and_step_alone():
    def loss_of(step_number=0, **options):
        state = dataclasses.replace(state_of(trained=True), step=jnp.int32(step_number))
        return float(step_of(**options)(state, batch_of())[1]["loss"])

    loss = loss_of(adapter_dropout=0.3, seed=2)
    assert loss == loss_of(adapter_dropout=0.3, seed=2)
    assert loss != loss_of(adapter_dropout=0.3, seed=2, step_number=1)
    assert loss != loss_of(adapter_dropout=0.3, seed=1)
    assert loss != loss_of()


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan")])
def test_a_dropout_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match="adapter_dropout="):
        step_of(adapter_dropout=rate)


@pytest.mark.slow
def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path):
    step = step_of(adapter_dropout=0.3, seed=2)
    state = state_of()
    for seed in range(2):
        state, _ = step(state, batch_of(seed))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {})
    with Checkpoints(tmp_path) as checkpoints:
        back = checkpoints.restore(lambda _: state_of())
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 6 * sum(leaf.nbytes for leaf in adapters_of(params_of()).values())
    (one, _), (other, _) = (step(each, batch_of(2)) for each in (state, back))
    for name, (part,) in one.trained.items():
        np.testing.assert_array_equal(other.trained[name][0], part, err_msg=name)


@pytest.mark.slow
def test_devices_that_share_the_parameters_agree_with_one(run_on_devices):
    found = json.loads(
        run_on_devices(
            8,
            """
            import json, jax, numpy as np
            import test_train_low_rank as t
            from paligemma_lib import sharding
            from paligemma_lib.train import init_state, make_train_step

            out = {}
            for count in (1, 8):
                mesh = sharding.make_mesh(devices=jax.devices()[:count])
                params = jax.tree.map(np.asarray, t.params_of())
                places = sharding.param_shardings(mesh, params)
                params = jax.tree.map(jax.device_put, params, places)
                state = init_state(t.CONFIG, params, t.OPTIMIZER, trainable="lora", mesh=mesh)
                split = sum(not x[0].sharding.is_fully_replicated for x in state.trained.values())
                step = make_train_step(
                    t.CONFIG, t.OPTIMIZER, mesh=mesh, adapter_dropout=0.2, seed=1
                )
                losses = []
                for seed in range(3):
                    state, metrics = step(state, t.batch_of(seed, batch_size=8))
                    losses.append(float(metrics["loss"]))
                out[count] = [split, *losses]
            print(json.dumps(out))
            """,
        ).splitlines()[-1]
    )
    assert found["1"][0] == 0 and found["8"][0] > 10
    np.testing.assert_allclose(found["8"][1:], found["1"][1:], rtol=1e-4)
