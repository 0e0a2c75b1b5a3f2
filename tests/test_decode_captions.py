"""Captions for people: batches, prompts, text, alternatives."""

import math

import decode_cases
import jax
import numpy as np
import pytest

from paligemma_lib import decode, testing
from paligemma_lib.batch import EOS, PAD

SOME = [PAD, *range(3, 440)]  # what to ban, so that captions are letters and end before long


@pytest.fixture(scope="module")
def tokenizer():
    return testing.tiny_tokenizer()


@pytest.fixture(scope="module")
def images():
    config, _ = decode_cases.model(2)
    return decode_cases.images(config, 5)


def generate(images, tokenizer, **options):
    options = {"max_new_tokens": 12, "min_new_tokens": 2, "banned_tokens": SOME, **options}
    return decode.generate(*decode_cases.model(2), images, tokenizer, **options)


SAMPLERS = [
    decode.Greedy(),
    decode.Sample(temperature=0.8, top_k=20, top_p=0.95),
    decode.BestOf(3),
    decode.Beam(3),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_batches_of_any_size_give_the_same_captions(images, tokenizer, sampler):
    whole = generate(images, tokenizer, sampler=sampler, key=jax.random.key(5))
    cut = generate(images, tokenizer, sampler=sampler, key=jax.random.key(5), batch_size=2)
    assert len(whole) == len(cut) == 5
    assert len({caption.tokens for caption in whole}) > 1
    options = {"sampler": sampler, "key": jax.random.key(5), "batch_size": 2}
    cut[2:] = generate(images[2:4], tokenizer, first_number=2, **options) + cut[4:]
    for one, other in zip(whole, cut, strict=True):
        assert one.text == other.text and one.tokens == other.tokens
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert [a.tokens for a in one.alternatives] == [a.tokens for a in other.alternatives]


def test_what_a_caption_says(images, tokenizer):
    captions = generate(images, tokenizer, sampler=decode.Beam(3))
    for caption in captions:
        assert caption.tokens[-1] == EOS and EOS not in caption.tokens[:-1]
        assert caption.text == tokenizer.decode(caption.tokens).strip()
        assert len(caption.logprobs) == len(caption.tokens)
        assert caption.score == pytest.approx(sum(caption.logprobs), abs=1e-4)
        assert caption.probability == pytest.approx(math.exp(caption.score), rel=1e-3)
        assert len(caption.alternatives) == 2
        scores = [each.score for each in (caption, *caption.alternatives)]
        assert scores == sorted(scores, reverse=True)
        assert not any(other.alternatives for other in caption.alternatives)
    assert any(caption.text for caption in captions)


def test_a_caption_without_end_fills_the_room(images, tokenizer):
    captions = generate(images, tokenizer, banned_tokens=[*SOME, EOS])
    assert all(len(caption.tokens) == 12 for caption in captions)


def test_the_same_caption_drawn_twice_is_listed_once(images, tokenizer):
    captions = generate(
        images, tokenizer, sampler=decode.BestOf(3), key=jax.random.key(0),
        min_new_tokens=11, banned_tokens=decode_cases.all_but(EOS, 4),
    )  # fmt: skip
    for caption in captions:  # one token eleven times, and EOS or once more
        found = [each.tokens for each in (caption, *caption.alternatives)]
        assert len(found) == len(set(found)) <= 2


def test_prompts_of_their_own(images, tokenizer):
    prompts = ["caption en", "a", "describe the dog on the beach", "", "caption en"]
    captions = generate(images, tokenizer, prompt=prompts)
    for n, prompt in enumerate(prompts):
        assert generate(images, tokenizer, prompt=prompt)[n].tokens == captions[n].tokens
    assert generate(images, tokenizer)[0].tokens == captions[0].tokens
    assert generate(images, tokenizer, prompt="a")[0].tokens != captions[0].tokens


def test_keys_make_the_difference(images, tokenizer):
    def drawn(images, key):
        captions = generate(images, tokenizer, sampler=SAMPLERS[1], key=key)
        return [caption.tokens for caption in captions]

    once = drawn(images, jax.random.key(1))
    assert drawn(images, jax.random.key(1)) == once
    assert drawn(images, jax.random.PRNGKey(1)) == once  # of the older kind
    assert drawn(images, jax.random.key(2)) != once
    assert drawn(np.repeat(images[:1], 5, axis=0), jax.random.key(1))[1:] != once[:1] * 4


def test_images_of_whole_numbers_and_of_jax(images, tokenizer):
    whole = np.round((images + 1) * 127.5).astype(np.uint8)
    floats = whole.astype(np.float32) / np.float32(127.5) - 1
    expected = [caption.tokens for caption in generate(floats, tokenizer)]
    for same in (whole, jax.numpy.asarray(floats), list(whole)):
        got = generate(same, tokenizer, batch_size=2)
        assert [caption.tokens for caption in got] == expected


def test_no_images(images, tokenizer):
    assert generate(images[:0], tokenizer) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ["caption en"]}, "1 prompts for 5 images"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"first_number": -1}, "first_number=-1"),
        ({"key": 0, "sampler": decode.Sample()}, "key=0, expected a key"),
        ({"prompt": None}, "prompt=None"),
        ({"prompt": [1] * 5}, "prompt is of type int"),
        ({"prompt": "<bos>caption en"}, "has <bos>: leave it out"),
        ({"sampler": "beam"}, "sampler='beam', expected an object"),
        ({"sampler": decode.Greedy}, "expected an object such as Greedy"),
        ({"sampler": decode.Sample()}, "key=jax.random.key"),
        ({"min_new_tokens": 12}, "min_new_tokens=12"),
    ],
)
def test_what_does_not_fit(images, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        generate(images, tokenizer, **options)


def test_images_of_another_range(images, tokenizer):
    with pytest.raises(ValueError, match="generate: images have values from .*expected -1 to 1"):
        generate((images + 1) * 127.5, tokenizer)
    with pytest.raises(ValueError, match="generate: images are int32"):
        generate(((images + 1) * 127.5).astype(np.int32), tokenizer)


def test_images_of_another_size(tokenizer):
    with pytest.raises(ValueError, match="expected \\(B, 32, 32, 3\\)"):
        generate(np.zeros((2, 24, 24, 3), np.float32), tokenizer)


def test_a_tokenizer_of_another_model(images, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "vocab_size", 511)
    with pytest.raises(ValueError, match="do not belong together"):
        generate(images, tokenizer)
