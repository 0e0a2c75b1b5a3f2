"""Choosing one token from logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.decode import BestOf, Greedy, Sample, Written
from paligemma_lib.decode.samplers import in_nucleus

pytestmark = pytest.mark.usefixtures("strict_promotion")

NOTHING = Written(jnp.zeros((0, 8), jnp.int32), jnp.int32(0))


jitted_in_nucleus = jax.jit(in_nucleus)


def draws(sampler, logits, count=4000):
    """How often each token is drawn."""
    keys = jax.random.split(jax.random.key(0), count)
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits)))
    tokens = sampler.sample(rows, keys, NOTHING)
    return np.bincount(tokens, minlength=len(logits)) / count


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=12, max_size=12),
    st.floats(0.01, 0.999),
)
def test_nucleus_is_what_sorting_finds(values, top_p):
    logits = np.array(values, np.float32)
    probability = np.asarray(jax.nn.softmax(logits))
    order = np.argsort(-probability, kind="stable")
    mass = np.cumsum(probability[order].astype(np.float64))
    if np.abs(mass - top_p).min() < 1e-5:
        return  # rounding decides
    last = probability[order[np.searchsorted(mass, top_p)]]
    got = np.asarray(jitted_in_nucleus(logits[None], np.float32(top_p)))[0]
    np.testing.assert_array_equal(got, probability >= last)


def test_nucleus_of_next_to_nothing_is_the_likeliest():
    logits = jnp.array([[0.0, -80.0, 3.0, -jnp.inf]])
    assert in_nucleus(logits, 1e-9).tolist() == [[False, False, True, False]]


def test_draws_follow_the_distribution():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(draws(Sample(), logits), np.exp(logits), atol=0.03)
    sharp = np.exp(logits * 2) / np.sum(np.exp(logits * 2))
    np.testing.assert_allclose(draws(Sample(temperature=0.5), logits), sharp, atol=0.03)


def test_top_k_and_top_p_cut_and_renormalize():
    logits = np.log([0.05, 0.3, 0.5, 0.15])
    np.testing.assert_allclose(draws(Sample(top_k=2), logits), [0, 0.375, 0.625, 0], atol=0.03)
    np.testing.assert_allclose(draws(Sample(top_p=0.7), logits), [0, 0.375, 0.625, 0], atol=0.03)
    # Among the three likeliest, 0.55 of 0.95 is more than the likeliest alone.
    both = draws(Sample(top_k=3, top_p=0.55), logits)
    np.testing.assert_allclose(both, [0, 0.375, 0.625, 0], atol=0.03)
    assert draws(Sample(top_k=1), logits)[2] == 1
    np.testing.assert_allclose(draws(Sample(top_k=99), logits), np.exp(logits), atol=0.03)


def test_temperature_comes_before_the_nucleus():
    logits = np.log([0.6, 0.4])
    assert draws(Sample(top_p=0.65), logits)[1] > 0
    assert draws(Sample(temperature=0.5, top_p=0.65), logits)[1] == 0


def test_a_temperature_of_zero_is_greedy_and_needs_no_keys():
    logits = jnp.log(jnp.array([[0.2, 0.4, 0.4], [0.5, 0.1, 0.4]]))
    cold = Sample(temperature=0, top_p=0.9)
    assert not cold.random and Sample(temperature=0.1).random
    keys = jax.random.split(jax.random.key(3), 2)
    assert cold.sample(logits, keys, NOTHING).tolist() == [1, 0]


def test_numbers_of_numpy_are_numbers():
    assert Sample(np.float32(0.5), np.int64(3)) == Sample(0.5, 3)
    assert type(Sample(top_k=np.int64(3)).top_k) is int
    assert hash(BestOf(np.int32(2))) == hash(BestOf(2))


def test_what_is_ruled_out_is_never_drawn():
    logits = np.array([0.0, -np.inf, 0.0, -np.inf])
    for sampler in (Sample(), Sample(top_p=0.99), Sample(top_k=3), BestOf(2, Sample(top_p=1.0))):
        assert draws(sampler, logits)[[1, 3]].sum() == 0


def test_a_row_draws_by_its_own_key():
    logits = jnp.zeros((3, 1000))
    keys = jax.random.split(jax.random.key(3), 3)
    tokens = Sample().sample(logits, keys, NOTHING)
    backwards = Sample().sample(logits, keys[::-1], NOTHING)
    np.testing.assert_array_equal(tokens, backwards[::-1])
    assert len(set(tokens.tolist())) == 3


def test_greedy_takes_the_first_of_equals():
    logits = jnp.array([[0.0, 2.0, 2.0], [1.0, 0.0, 1.0]])
    keys = jax.random.split(jax.random.key(0), 2)
    assert Greedy().sample(logits, keys, NOTHING).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample(temperature=-0.5), "temperature=-0.5"),
        (lambda: Sample(temperature=1e-30), "temperature=1e-30, expected a finite number at least"),
        (lambda: Sample(temperature=float("inf")), "temperature=inf"),
        (lambda: Sample(temperature=True), "temperature=True"),
        (lambda: Sample(top_k=2.0), "top_k=2.0"),
        (lambda: Sample(top_k=True), "top_k=True"),
        (lambda: Sample(top_p=float("nan")), "top_p=nan"),
        (lambda: BestOf(2.0), "rows=2.0"),
        (lambda: BestOf(3, Sample(temperature=0)), "draws at random"),
        (lambda: BestOf(3, Greedy()), "draws at random"),
        (lambda: Sample(temperature=float("nan")), "temperature=nan"),
        (lambda: Sample(top_k=0), "top_k=0"),
        (lambda: Sample(top_p=0.0), "top_p=0.0"),
        (lambda: Sample(top_p=1.5), "top_p=1.5"),
        (lambda: BestOf(0), "rows=0"),
    ],
)
def test_settings_without_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()
