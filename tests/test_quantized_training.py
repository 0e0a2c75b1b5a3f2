"""Training above quantised weights: gradients, what may train, several devices."""

import dataclasses

import jax
import model_cases as cases
import numpy as np
import pytest
from quantized_cases import quantized_params, undone

import paligemma_lib as pg
from paligemma_lib.model.adapter_params import LowRank, init_adapters, with_adapters
from paligemma_lib.parameter_spec import abstract, parameter_spec, quantized_kinds
from paligemma_lib.quantized import KINDS, is_quantized
from paligemma_lib.train.loss import token_losses
from paligemma_lib.train.state import abstract_state, init_state, restage
from paligemma_lib.trainable import Select, merge, split, trained_rows

CONFIG = cases.tiny_config(2)
BATCH = cases.packed_batch(CONFIG)
BATCH["loss_weight"] = cases.loss_weight(BATCH["segment"])
OPTIMIZER = pg.train.make_optimizer("adamw", learning_rate=1e-3, total_steps=10)


def with_random_adapters(params):
    """Adapters on all products, none of them zero."""
    options = LowRank(rank=4, targets=("all-linear",))
    rng = np.random.default_rng(1)
    adapters = {
        name: leaf if name.endswith("/scale") else rng.normal(0, 0.1, leaf.shape).astype("float32")
        for name, leaf in init_adapters(params, options, jax.random.key(0)).items()
    }
    return with_adapters(params, adapters)


def gradients(config, params):
    """The loss and its gradients with respect to adapters, norms and biases, by name."""
    names = [name for name in cases.flatten(params) if "/lora/" in name or "norm" in name]
    trained, frozen = split(params, dict.fromkeys(names, 0))

    def loss(trained, frozen, batch):
        nll, weight = token_losses(config, merge(trained, frozen), batch)
        return (nll * weight).sum()

    return jax.jit(jax.value_and_grad(loss))(trained, frozen, BATCH)


# Compiling takes nearly all of the time, so each kind is tried with one way of recomputing.
@pytest.mark.parametrize(("kind", "remat"), zip(KINDS, ["none", "dots"], strict=True))
def test_gradients_are_those_above_the_weights_undone(kind, remat):
    params = with_random_adapters(quantized_params(CONFIG, kind))
    loss, got = gradients(dataclasses.replace(CONFIG, remat=remat), params)
    expected_loss, expected = gradients(CONFIG, undone(params))
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert len(got) > 20
    for name, (gradient,) in got.items():
        (value,) = expected[name]
        np.testing.assert_allclose(gradient, value, atol=1e-4 * np.abs(value).max(), err_msg=name)


def test_lower_layers_are_cut_off_with_their_components():
    params = quantized_params(CONFIG, "nf4")
    rows = trained_rows(params, Select("llm", top_layers=1))
    trained, frozen = split(params, rows)
    name = "llm/layers/mlp/linear"
    ((lower,), (upper,)) = frozen[name], trained[name]
    whole = cases.flatten(undone(params))[name]
    assert lower.shape[0] == len(whole) - 1
    np.testing.assert_array_equal(lower[:], whole[:-1])
    np.testing.assert_array_equal(upper[:], whole[-1:])
    batch = {key: BATCH[key] for key in ("image", "text", "segment", "position")}
    np.testing.assert_allclose(
        cases.all_logits(CONFIG, merge(trained, frozen), batch),
        cases.all_logits(CONFIG, params, batch),
        rtol=1e-4,
        atol=1e-4,
    )


def state_above(params, trainable):
    mesh = pg.sharding.make_mesh(devices=jax.devices()[:1])
    params = jax.device_put(params, pg.sharding.replicated(mesh))
    return init_state(CONFIG, params, OPTIMIZER, trainable=trainable, mesh=mesh)


def test_what_is_quantised_does_not_train():
    params = quantized_params(CONFIG, "int8")
    message = "llm/layers/attn/.* is to train, but is stored in int8: load it as float32"
    with pytest.raises(ValueError, match=message):
        state_above(params, "attention")
    state = state_above(params, "projector")
    with pytest.raises(ValueError, match=message):
        restage(state, OPTIMIZER, ["projector", "attention"])


def test_a_state_has_the_shapes_that_were_foreseen():
    state = state_above(quantized_params(CONFIG, "nf4"), "projector")
    table = parameter_spec(CONFIG, trainable=["projector"], frozen="nf4")
    expected = abstract_state(
        abstract(table), OPTIMIZER, trainable="projector", quantized=quantized_kinds(table),
        undone_dtype=CONFIG.dtype,
    )  # fmt: skip
    found = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert found == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), expected)
    assert any(is_quantized(part) for parts in state.frozen.values() for part in parts)


def test_a_fingerprint_sees_one_changed_code():
    params = quantized_params(CONFIG, "nf4")
    before = pg.train.fingerprint(params)
    table = params["llm"]["embedder"]["input_embedding"]
    changed = dataclasses.replace(table, codes=table.codes.at[7, 3].add(1))
    params["llm"]["embedder"]["input_embedding"] = changed
    assert pg.train.fingerprint(params) != before


def test_4_bits_are_said_to_need_less():
    sizes = {"trainable": "projector", "batch_size": 2, "text_len": 64}
    config = pg.model.variants.paligemma_3b()
    needed = {
        kind: pg.train.memory.bytes_needed(config, OPTIMIZER, frozen_dtype=kind, **sizes)
        for kind in ("bfloat16", "int8", "nf4")
    }
    saved = [needed["bfloat16"] - needed[kind] for kind in KINDS]
    matrices = 2.92e9  # nearly all of the parameters
    assert saved == pytest.approx([matrices * (16 - bits) / 8 for bits in (8.13, 4.13)], rel=0.03)


SHARDED = """
import jax, numpy as np
import model_cases as cases, paligemma_lib as pg
from test_quantized_training import BATCH, CONFIG, OPTIMIZER, quantized_params, undone
from paligemma_lib.quantized import abstract, is_quantized

mesh = pg.sharding.make_mesh()
params = quantized_params(CONFIG, "nf4")
places = pg.sharding.param_shardings(mesh, pg.model.abstract_params(CONFIG))
is_leaf = is_quantized
split = jax.tree.map(
    lambda leaf, place: jax.device_put(
        leaf, leaf.shardings(place) if is_quantized(leaf) else place
    ),
    params, places, is_leaf=is_leaf,
)
linear = split["llm"]["layers"]["mlp"]["linear"]
assert linear.codes.addressable_shards[0].data.shape[-1] * 4 == linear.codes.shape[-1]
assert pg.train.fingerprint(split) == pg.train.fingerprint(params)

state = pg.train.init_state(CONFIG, split, OPTIMIZER, trainable="projector", mesh=mesh)
step = pg.train.make_train_step(CONFIG, OPTIMIZER, mesh=mesh)
state, metrics = step(state, BATCH)
one = pg.sharding.make_mesh(devices=jax.devices()[:1])
plain = jax.device_put(undone(params), pg.sharding.replicated(one))
expected = pg.train.init_state(CONFIG, plain, OPTIMIZER, trainable="projector", mesh=one)
expected, wanted = pg.train.make_train_step(CONFIG, OPTIMIZER, mesh=one)(expected, BATCH)
np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=1e-5)
np.testing.assert_allclose(metrics["gradient_norm"], wanted["gradient_norm"], rtol=1e-4)

moved = pg.sharding.resharded(state.all_params(), "tensor")
assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(moved))
back = pg.sharding.resharded(moved, "fsdp")
assert linear.codes.sharding == back["llm"]["layers"]["mlp"]["linear"].codes.sharding
pg.checkpoint.save_params("sharded.npz", state.all_params())
"""


@pytest.mark.slow
def test_components_are_split_over_devices(run_on_devices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_on_devices(4, SHARDED)
