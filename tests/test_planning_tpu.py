"""The steps compiled for TPU slices that are not here: messages, memory, refusals.

On a model of PaliGemma's shape, wide enough that XLA decides as it does for the 3B one. It has few
layers, which saves nothing but memory: a program takes two minutes of a core for any number.
"""

import dataclasses
import functools
import importlib.util

import flax.traverse_util
import pytest

import paligemma_lib as pg
from paligemma_lib.model.config import GemmaConfig, PaliGemmaConfig, SiglipConfig
from paligemma_lib.planning import CHIPS, Decoding, Job, Training, compile_job, predict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
    ),
]

MODEL = PaliGemmaConfig(
    SiglipConfig(image_size=224, width=512, depth=3, mlp_dim=2048, num_heads=8),
    GemmaConfig(width=1024, depth=5, mlp_dim=4096, num_heads=8, num_kv_heads=1, vocab_size=98_304),
    dtype="bfloat16",
    remat="full",
)
WORK = Training(batch_size=256, text_len=128, frozen_dtype="bfloat16")
NAMES = flax.traverse_util.flatten_dict(pg.model.abstract_params(MODEL), sep="/")


@functools.cache
def compiled(**changes):
    return compile_job(Job(MODEL, dataclasses.replace(WORK, **changes), "v5e:2x4"))


def sent(found, *kinds):
    """Bytes of all messages, or of those of some kinds."""
    messages = [each for each in found.collectives if not kinds or each.kind in kinds]
    return sum(each.bytes * each.times for each in messages)


def size(start):
    """Bytes in bfloat16 of the parameters whose names start so."""
    return sum(2 * leaf.size for name, leaf in NAMES.items() if name.startswith(start))


def test_weights_are_gathered_once_for_each_layer_and_pass():
    gathered = sent(compiled(), "all-gather")
    layers = size("img/") + 2 * size("llm/layers/")  # pictures have no backward pass
    table = size("llm/embedder/")
    assert layers + 2 * table < 1.02 * gathered  # the loss, forward and backward
    assert gathered < 1.02 * (layers + 3 * table)  # and to embed, where that is cheaper


def test_gradients_are_summed_once():
    rows = pg.trainable.trained_rows(pg.model.abstract_params(MODEL), "attention")
    gradients = sum(2 * NAMES[name].size for name in rows)
    summed = sent(compiled(), "reduce-scatter", "all-reduce")  # in bfloat16, or in float32
    assert 0.98 * gradients < summed < 2.02 * gradients


def test_activations_stay_where_their_examples_are():
    embedded = 256 * 128 * MODEL.language.width * 2  # which may be exchanged once
    assert sent(compiled(), "all-to-all", "collective-permute") <= embedded
    assert max(each.bytes for each in compiled().collectives) <= size("llm/embedder/")


def test_messages_do_not_grow_with_the_batch():
    embedded = 192 * 128 * MODEL.language.width * 2
    assert sent(compiled()) <= sent(compiled(batch_size=64)) + embedded + 2**20


def test_peak_memory_and_the_roofline():
    found = compiled()
    assert found.fits
    assert found.arguments < found.peak < 3 * 2**30
    limits = predict(found, CHIPS["v5e"])
    assert max(limits.memory, limits.network) < 1.5 * limits.compute
    assert found.model_flops < found.flops < 2 * found.model_flops


def test_what_does_not_fit_says_by_how_much():
    found = compiled(batch_size=2**15)
    assert not found.fits
    assert found.peak > found.limit == CHIPS["v5e"].usable
    assert "more than the 15.75 GiB of a device" in found.problem


def test_between_slices_go_gradients_alone():
    found = compile_job(Job(MODEL, WORK, "v5e:2x4", slices=2))
    across = sum(each.received[1] * each.times for each in found.collectives)
    assert 0 < across < 0.02 * sum(each.received[0] * each.times for each in found.collectives)


def test_decoding_with_whole_weights_sends_nothing_of_size():
    found = compile_job(Job(MODEL, Decoding(64, 8), "v5e:2x4"))
    assert found.fits
    assert sent(found) < 10**6
