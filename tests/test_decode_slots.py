"""Captions in slots: those of `generate`, and the same bits whoever else is there."""

import functools
import random

import captioning_cases as cases
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.decode import Beam, BestOf, Greedy, Sample, generate, image_keys, slots
from paligemma_lib.decode.adjustable import Adjustable, is_adjustable, settings_of
from paligemma_lib.decode.programs import read_inputs
from paligemma_lib.testing import tiny_tokenizer

CONFIG, TOKENIZER = cases.CONFIG, tiny_tokenizer()
COUNT, MOST = 3, 6
SAMPLERS = {
    "greedy": Greedy(),
    "sample": Sample(temperature=2.0),
    "nucleus": Sample(temperature=2.0, top_p=0.8),
    "top k": Sample(temperature=2.0, top_k=5),
    "beam": Beam(2),
}


@functools.cache
def params():
    return jax.tree.map(jax.numpy.asarray, cases.random_params())


@functools.cache
def images() -> np.ndarray:
    size = CONFIG.vision.image_size
    return np.random.default_rng(3).uniform(-1, 1, (7, size, size, 3)).astype(np.float32)


def caption(sampler, order, k, pixels=None, row=0, limit=MOST, crowd=None):
    """Captions images in this order; returns {image: (tokens, logprobs, score)}.

    `crowd` are settings of other samplers, which take the free slots in turn.
    """
    pixels = images() if pixels is None else pixels
    strategy = Adjustable() if is_adjustable(sampler) else sampler
    state = slots.empty(
        CONFIG, params(), strategy, count=COUNT, prompt_tokens=12, max_new_tokens=MOST
    )
    own = settings_of(sampler if is_adjustable(sampler) else Greedy(), row)
    prefix = TOKENIZER.encode_prefix("caption en")
    text, length = np.array([prefix], np.int32), np.array([len(prefix)], np.int32)
    waiting, held, found, broken = list(order), {}, {}, set()
    while waiting or held:
        for slot in range(COUNT):
            if slot not in held and waiting:
                held[slot] = number = waiting.pop(0)
                prompt, hidden = read_inputs(
                    CONFIG, "float32", None, params(), pixels[number : number + 1], text, length
                )
                key = image_keys(jax.random.key(7), [number])
                mine = (crowd or {}).get(number, own)
                state = slots.enter(
                    CONFIG, params(), state, slot, prompt, hidden, key, limit, mine
                )  # fmt: skip
        state, seen = slots.advance(CONFIG, params(), state, k)
        complete = np.asarray(seen.complete)
        for slot in np.flatnonzero(complete):
            number = held.pop(int(slot))
            found[number] = [np.asarray(part[slot]) for part in seen.found]
            broken |= {number} if seen.broken[slot] else set()
        state = slots.leave(state, complete)
    return found, broken


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_captions_are_those_of_generate(sampler):
    found, _ = caption(sampler, range(len(images())), 2)
    wanted = generate(
        CONFIG, params(), images(), TOKENIZER, sampler=sampler, max_new_tokens=MOST,
        key=jax.random.key(7),
    )  # fmt: skip
    for number, want in enumerate(wanted):
        tokens, logprobs, _ = found[number]
        count = len(want.tokens)
        assert tuple(tokens[0, :count]) == want.tokens
        np.testing.assert_allclose(logprobs[0, :count], want.logprobs, atol=1e-4)


def test_rows_that_best_of_draws_together_can_be_drawn_apart():
    sampler = BestOf(3, Sample(temperature=2.0))
    wanted = generate(
        CONFIG, params(), images(), TOKENIZER, sampler=sampler, max_new_tokens=MOST,
        key=jax.random.key(7),
    )  # fmt: skip
    rows = [caption(sampler.sampler, range(len(images())), 3, row=row)[0] for row in range(3)]
    for number, want in enumerate(wanted):
        best = max(rows, key=lambda found: found[number][2][0])[number]
        assert tuple(best[0][0, : len(want.tokens)]) == want.tokens


@functools.cache
def alone(name: str):
    found: dict = {}
    for number in range(len(images())):
        found |= caption(SAMPLERS[name], [number], 1)[0]
    return found


@settings(max_examples=6, deadline=None)
@given(name=st.sampled_from(sorted(SAMPLERS)), seed=st.integers(0, 2**32), k=st.integers(1, 6))
def test_neighbours_change_no_bit(name, seed, k):
    order = random.Random(seed).sample(range(len(images())), len(images()))
    crowd = {}
    if is_adjustable(SAMPLERS[name]):  # neighbours with other settings, of which nothing is said
        others = [Greedy(), Sample(temperature=0.5), Sample(temperature=3.0, top_p=0.5)]
        crowd = {n: settings_of(others[n % 3], n) for n in order if n % 2}
    found, _ = caption(SAMPLERS[name], order, k, crowd=crowd)
    for number in set(order) - crowd.keys():
        for part, want in zip(found[number], alone(name)[number], strict=True):
            np.testing.assert_array_equal(part, want)


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_an_image_that_is_broken_leaves_nothing_behind(name):
    pixels = images().copy()
    pixels[[0, 2, 4]] = np.nan
    found, broken = caption(SAMPLERS[name], range(len(pixels)), 2, pixels)
    assert broken == {0, 2, 4}
    for number in (1, 3, 5, 6):
        for part, want in zip(found[number], alone(name)[number], strict=True):
            np.testing.assert_array_equal(part, want)


def test_a_caption_ends_at_its_limit():
    found, _ = caption(Greedy(), [0, 1], 6, limit=3)
    for number in (0, 1):
        np.testing.assert_array_equal(found[number][0][0, :3], alone("greedy")[number][0][0, :3])


def test_programs_are_compiled_once():
    caption(Beam(2), [0, 1, 2, 3], 2)
    before = slots.enter._cache_size(), slots.advance._cache_size()
    caption(Beam(2), [4, 5, 6], 5)
    assert (slots.enter._cache_size(), slots.advance._cache_size()) == before


@pytest.mark.slow
def test_slots_on_a_mesh_write_the_same(run_on_devices):
    program = """
        import jax, numpy as np
        import captioning_cases as cases
        import paligemma_lib as pg
        from paligemma_lib.decode import Beam, Greedy
        from paligemma_lib.serving import Engine
        from paligemma_lib.sharding import AXES, param_shardings
        from paligemma_lib.testing import tiny_tokenizer

        noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
        image = pg.data.from_images([noise]).read([0])[0].image

        def texts(params):
            model = pg.captioner.Captioner(cases.CONFIG, params, tiny_tokenizer())
            engine = Engine(lambda: model, rows=4, max_new_tokens=6)
            jobs = [engine.submit(image, sampler=each) for each in (Greedy(), Beam(2))]
            found = [job.wait(120) for job in jobs]
            engine.close()
            return [each.problem or each.text for each in found]

        host = cases.random_params()
        mesh = jax.sharding.Mesh(np.reshape(jax.devices(), (1, 2)), AXES)
        shapes = pg.model.abstract_params(cases.CONFIG)
        split = jax.device_put(host, param_shardings(mesh, shapes, "tensor"))
        assert texts(split) == texts(jax.device_put(host, jax.devices()[0]))
        print("same")
        """
    assert run_on_devices(2, program).strip().endswith("same")
