"""Gradients of adapters against finite differences: of one product in float64, and of a model."""

import adapter_cases
import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib.model.adapter_params import with_adapters
from paligemma_lib.model.low_rank import LayerAdapters

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(2, 3, 8)), RNG.normal(size=(8, 6))
BIAS, OUT = RNG.normal(size=6), RNG.normal(size=(2, 3, 6))
ADAPTER = {"a": RNG.normal(size=(8, 2)), "b": RNG.normal(size=(2, 6)), "scale": np.array(0.7)}
KINDS = {"lora": ADAPTER, "dora": ADAPTER | {"magnitude": RNG.uniform(1, 3, 6)}}


def norms(adapter):
    return np.linalg.norm(W + adapter["scale"] * adapter["a"] @ adapter["b"], axis=0)


def by_numpy(adapter, norms):
    """float64: sum(OUT * y), by the formula on top of `model.low_rank`."""
    y = X @ (W + adapter["scale"] * adapter["a"] @ adapter["b"])
    if "magnitude" in adapter:
        y *= adapter["magnitude"] / norms
    return np.sum(OUT * (y + BIAS))


def by_jax(adapter):
    x, w, bias = (jnp.asarray(each, jnp.float32) for each in (X, W, BIAS))
    y = LayerAdapters({"p": adapter}).add("p", x @ w + bias, x, lambda: w, bias)
    return jnp.sum(OUT * y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_has_the_value_of_the_formula(kind):
    adapter = KINDS[kind]
    value = by_jax(jax.tree.map(lambda each: jnp.asarray(each, jnp.float32), adapter))
    assert abs(value - by_numpy(adapter, norms(adapter))) < 1e-4


@pytest.mark.parametrize("kind, part", [(kind, part) for kind in KINDS for part in KINDS[kind]])
def test_gradients_of_a_product_are_finite_differences(kind, part):
    """DoRA's norms are held constant, as in its paper, section 4.3."""
    adapter = KINDS[kind]
    found = jax.grad(by_jax)(jax.tree.map(lambda each: jnp.asarray(each, jnp.float32), adapter))
    held, step = norms(adapter), 1e-5
    for index in np.ndindex(adapter[part].shape):
        values = []
        for sign in (1, -1):
            moved = adapter | {part: adapter[part].copy()}
            moved[part][index] += sign * step
            values.append(by_numpy(moved, held))
        assert abs(found[part][index] - (values[0] - values[1]) / (2 * step)) < 1e-4


@pytest.mark.parametrize(("version", "part"), [(1, "b"), (2, "a"), (2, "magnitude")])
def test_gradients_of_a_model_are_finite_differences(version, part):
    """Along the gradient itself, where the change is largest; four points, in float32."""
    config = cases.tiny_config(version)
    params, batch = cases.random_params(config), cases.packed_batch(config)
    weight = cases.loss_weight(batch["segment"])
    arrays = adapter_cases.random_adapters(config, dora=part == "magnitude")
    moving = {name: each for name, each in arrays.items() if name.endswith(f"/{part}")}

    @jax.jit
    def loss(moving):
        adapted = with_adapters(params, arrays | moving)
        return -jnp.sum(cases.log_likelihood(config, adapted, batch) * weight)

    gradient = jax.jit(jax.grad(loss))(moving)
    slope = float(jnp.sqrt(sum(jnp.sum(each**2) for each in gradient.values())))
    assert slope > 1

    def at(distance):
        moved = {n: moving[n] + distance / slope * np.asarray(gradient[n]) for n in moving}
        return float(loss(moved))

    step = 0.02
    found = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    assert abs(found / slope - 1) < 1e-3


def test_a_layer_without_magnitude_is_not_adapted():
    """So are layers that an adapter of DoRA leaves out: all of its arrays are zeros there."""
    adapter = {name: jnp.zeros(each.shape) for name, each in KINDS["dora"].items()}
    plain = jnp.sum(OUT * (jnp.asarray(X, jnp.float32) @ W + BIAS))
    np.testing.assert_allclose(by_jax(adapter), plain, rtol=1e-6)
    for name in ("a", "b", "magnitude"):
        assert not jax.grad(by_jax)(adapter)[name].any(), name
