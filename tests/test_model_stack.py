"""Scanning over stacked layers: parts, memory, what is kept for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib import sharding
from paligemma_lib.model.stack import scan_layers

DEPTH, WIDTH, HIDDEN = 8, 256, 1024
STACK_BYTES = DEPTH * 2 * WIDTH * HIDDEN * 4  # in float32

pytestmark = pytest.mark.usefixtures("strict_promotion")


def layer(x, params, _):
    hidden = jnp.tanh(x @ params["up"].astype(x.dtype))
    return x + hidden @ params["down"].astype(x.dtype), jnp.mean(x)


def shapes(dtype, x_dtype):
    return {
        "params": {
            "up": jax.ShapeDtypeStruct((DEPTH, WIDTH, HIDDEN), dtype),
            "down": jax.ShapeDtypeStruct((DEPTH, HIDDEN, WIDTH), dtype),
        },
        "x": jax.ShapeDtypeStruct((8, WIDTH), x_dtype),
    }


def random_stack(depth=5, width=6, hidden=7):
    rng = np.random.default_rng(0)
    params = {
        "up": rng.normal(size=(depth, width, hidden)).astype(np.float32),
        "down": rng.normal(size=(depth, hidden, width)).astype(np.float32),
    }
    return params, rng.normal(size=(3, width)).astype(np.float32)


run = jax.jit(scan_layers, static_argnums=0)


def temporaries(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


@given(up=st.sets(st.integers(0, 5)), down=st.sets(st.integers(0, 5)))
@settings(max_examples=10, deadline=None)
def test_pieces_give_what_the_whole_gives(up, down):
    params, x = random_stack()
    parts = {
        "up": tuple(np.split(params["up"], sorted(up))),
        "down": tuple(np.split(params["down"], sorted(down))),
    }
    whole_x, whole_outputs = run(layer, x, params)
    pieces_x, pieces_outputs = run(layer, x, parts)
    np.testing.assert_allclose(pieces_x, whole_x, rtol=1e-6)
    np.testing.assert_allclose(pieces_outputs, whole_outputs, rtol=1e-6)


def test_inputs_are_read_layer_by_layer():
    add = np.arange(5, dtype=np.float32)
    x, outputs = scan_layers(lambda x, _, i: (x + i, x), np.float32(0), {"unused": add}, add)
    assert x == 10
    np.testing.assert_array_equal(outputs, [0, 0, 1, 3, 6])


def test_different_depths_are_an_error():
    params, x = random_stack()
    with pytest.raises(ValueError, match=r"number of layers.*'down': 5.*'up': 3"):
        scan_layers(layer, x, {**params, "up": params["up"][:3]})


def top_layers(params, lo):
    """The frozen and the trained tree when `up` trains from layer `lo` and `down` not at all."""
    return {"up": params["up"][:lo], "down": params["down"]}, {"up": params["up"][lo:]}


def loss_of_top(trained, frozen, x, remat="none"):
    params = {"up": (frozen["up"], trained["up"]), "down": frozen["down"]}
    return jnp.sum(jnp.square(scan_layers(layer, x, params, remat=remat)[0]))


@jax.jit
@jax.grad
def gradients(params, x):
    return jnp.sum(jnp.square(scan_layers(layer, x, params)[0]))


gradients_of_top = jax.jit(jax.grad(loss_of_top))


def test_gradients_of_the_top_layers_are_the_slice_of_all():
    params, x = random_stack()
    everything = gradients(params, x)
    frozen, trained = top_layers(params, lo=2)
    top = gradients_of_top(trained, frozen, x)
    np.testing.assert_allclose(top["up"], everything["up"][2:], rtol=1e-5)


def test_nothing_runs_backward_below_the_top_layers():
    params, x = random_stack()
    frozen, trained = top_layers(params, lo=2)
    jaxpr = jax.make_jaxpr(jax.grad(loss_of_top))(trained, frozen, x)
    scans = [e.params for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert [s["length"] for s in scans if not s["reverse"]] == [2, 3]
    assert [s["length"] for s in scans if s["reverse"]] == [3]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_pieces_are_not_copied(dtype):
    abstract = shapes(dtype, "float32")
    up = abstract["params"]["up"]
    frozen = {
        "up": jax.ShapeDtypeStruct((6, *up.shape[1:]), dtype),
        "down": abstract["params"]["down"],
    }
    trained = {"up": jax.ShapeDtypeStruct((2, *up.shape[1:]), "float32")}
    used = temporaries(jax.grad(loss_of_top), trained, frozen, abstract["x"])
    layer_bytes = STACK_BYTES / DEPTH
    assert used < 3 * layer_bytes  # the stack would take 8


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_stack_in_16_bits_is_not_widened(dtype, x_dtype):
    def forward(params, x):
        return scan_layers(layer, x, params)[0]

    def backward(params, x):
        return jax.grad(lambda x: jnp.sum(forward(params, x).astype(jnp.float32)))(x)

    for function in (forward, backward):
        used = temporaries(function, *shapes(dtype, x_dtype).values())
        assert used < STACK_BYTES / 3


def test_no_copy_of_the_stack_is_kept_for_the_backward_pass():
    def backward(params, x):
        return jax.grad(lambda x: jnp.sum(scan_layers(layer, x, params, remat="none")[0]))(x)

    # With a mesh in use, each layer's weights pass a sharding constraint.
    with jax.set_mesh(sharding.make_mesh()):
        used = temporaries(backward, *shapes("float32", "float32").values())
    assert used < STACK_BYTES / 3


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_remat_changes_no_gradient(remat, optimized):
    params, x = random_stack()
    frozen, trained = top_layers(params, lo=1)
    expected = jax.grad(loss_of_top)(trained, frozen, x, "none")
    got = jax.grad(loss_of_top)(trained, frozen, x, remat)
    np.testing.assert_allclose(got["up"], expected["up"], rtol=1e-6)


def test_remat_trades_memory():
    def backward(remat):
        def loss(x, params):
            return jnp.sum(jnp.square(scan_layers(layer, x, params, remat=remat)[0]))

        abstract = shapes("float32", "float32")
        x = jax.ShapeDtypeStruct((2048, WIDTH), "float32")
        return temporaries(jax.grad(loss), x, abstract["params"])

    # Which of the others is smaller changes with XLA's version.
    assert backward("full") < 0.6 * min(backward("dots"), backward("none"))


def test_a_trained_bfloat16_stack_gets_gradients():
    params, x = random_stack()
    params = {name: value.astype(jnp.bfloat16) for name, value in params.items()}
    wide = {name: value.astype(np.float32) for name, value in params.items()}
    expected = gradients(wide, x)
    for name, gradient in gradients(params, x).items():
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(gradient.astype(np.float32), expected[name], rtol=1e-2)
