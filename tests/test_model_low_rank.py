"""Low-rank adapters: what they compute beside their products, against weights that hold them."""

import dataclasses

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from low_rank_cases import EVERYWHERE, densely_merged, random_adapters

from paligemma_lib.model import hidden_states
from paligemma_lib.model.adapter_params import LowRank, init_adapters, with_adapters
from paligemma_lib.model.low_rank import Dropout, LayerAdapters, scale_of, weight_norms

pytestmark = pytest.mark.usefixtures("strict_promotion")


def outputs(config, params, dropout=None):
    batch = {name: jnp.asarray(each) for name, each in cases.packed_batch(config).items()}
    run = jax.jit(lambda params: hidden_states(config, params, **batch, dropout=dropout))
    return np.asarray(run(params))


@pytest.mark.parametrize("version", cases.VERSIONS)
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_what_its_merged_weights_are(version, dora):
    config = cases.tiny_config(version)
    params, options = cases.random_params(config), dataclasses.replace(EVERYWHERE, dora=dora)
    adapters = random_adapters(params, options)
    found = outputs(config, with_adapters(params, adapters))
    wanted = outputs(config, densely_merged(params, adapters, options))
    np.testing.assert_allclose(found, wanted, atol=2e-4, rtol=2e-4)
    assert np.abs(found - outputs(config, params)).max() > 0.1


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_nothing(dora):
    config = cases.tiny_config(1)
    params = jax.tree.map(jnp.asarray, cases.random_params(config))
    options = dataclasses.replace(EVERYWHERE, dora=dora)
    made = init_adapters(params, options, jax.random.key(0))
    found = outputs(config, with_adapters(params, made))
    np.testing.assert_allclose(found, outputs(config, params), atol=1e-4 if dora else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_output_keeps_its_dtype(dtype):
    config = dataclasses.replace(cases.tiny_config(2), dtype=dtype)
    params = cases.random_params(config)
    found = outputs(config, with_adapters(params, random_adapters(params)))
    assert found.dtype == outputs(config, params).dtype and np.isfinite(found).all()


def test_dora_norms_need_no_sum_of_weights():
    rng = np.random.default_rng(0)
    a, b, w = (rng.normal(size=shape).astype(np.float32) for shape in ((7, 2), (2, 5), (7, 5)))
    adapter = {"a": a, "b": b, "scale": np.float32(0.7)}
    norms = jax.jit(weight_norms)(w, adapter)
    np.testing.assert_allclose(norms, np.linalg.norm(w + 0.7 * a @ b, axis=0), rtol=1e-5)
    jaxpr = jax.make_jaxpr(weight_norms)(w, adapter)
    sums = [eqn for eqn in jaxpr.eqns if eqn.primitive.name in ("add", "add_any")]
    assert sums and all(eqn.outvars[0].aval.shape != w.shape for eqn in sums)


def test_training_adds_no_gradient_of_the_size_of_a_weight():
    """The gradient of A and B alone must not pass through a dense matrix I x O."""
    x, w = jnp.ones((2, 3, 40)), jnp.ones((40, 50))
    adapter = {"a": jnp.ones((40, 2)), "b": jnp.ones((2, 50)), "scale": jnp.ones(())}

    def loss(adapter):
        y = LayerAdapters({"q": adapter}).add("q", x @ w, x, lambda: w)
        return jnp.sum(jnp.sin(y))

    equations = jax.make_jaxpr(jax.grad(loss))(adapter).eqns
    made = {each.aval.shape for eqn in equations for each in eqn.outvars}
    assert (40, 2) in made and (40, 50) not in made


def test_dropout_keeps_the_mean_and_hangs_on_its_key_alone():
    x = jnp.ones((50, 40, 30))
    drop = Dropout(jax.random.key(0), 0.25)
    found = drop.fold("q_proj").apply(x)
    assert set(np.unique(found)) == {0, np.float32(1 / 0.75)}
    assert np.mean(found) == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(found, drop.fold("q_proj").apply(x))
    assert (found != drop.fold("k_proj").apply(x)).any()
    layers = drop.of_layers(3)
    keys = jax.random.key_data(layers.key)
    assert len({tuple(key) for key in np.asarray(keys)}) == 3 and layers.rate == 0.25


def test_dropout_reaches_adapters_and_nothing_else():
    config = cases.tiny_config(1)
    params = cases.random_params(config)
    adapted = with_adapters(params, random_adapters(params))
    drop = Dropout(jax.random.key(3), 0.5)
    assert np.abs(outputs(config, adapted, drop) - outputs(config, adapted)).max() > 0.01
    np.testing.assert_array_equal(outputs(config, params, drop), outputs(config, params))
    again = Dropout(jax.random.key(3), 0.5)
    np.testing.assert_array_equal(outputs(config, adapted, drop), outputs(config, adapted, again))


def test_scales():
    assert scale_of(32, 16, rslora=False) == 2
    assert scale_of(32, 16, rslora=True) == 8
    params = cases.random_params(cases.tiny_config(1))
    made = init_adapters(params, LowRank(4, 8.0, rslora=True), jax.random.key(0))
    np.testing.assert_array_equal(made["llm/layers/lora/q_proj/scale"], [4, 4, 4])


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan"), True])
def test_a_share_of_zeros_is_below_1(rate):
    with pytest.raises(ValueError, match="Dropout: rate=.*, expected a finite number"):
        Dropout(jax.random.key(0), rate)
