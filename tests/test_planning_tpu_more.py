"""Other programs compiled for TPU slices that are not here: two minutes for each."""

import pytest
from planning_tpu_cases import MODEL, RUN, compiled, needs_libtpu, sent

from paligemma_lib.planning import Decoding, Job, Training, compile_job
from paligemma_lib.run import ModelConfig, RunConfig

CAPTIONS = RunConfig(
    decode_batch_size=64, max_new_tokens=8, model=ModelConfig(frozen_dtype="bfloat16")
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), needs_libtpu]


def test_messages_do_not_grow_with_the_batch():
    embedded = 192 * 128 * MODEL.language.width * 2
    assert sent(compiled()) <= sent(compiled(batch_size=64)) + embedded + 2**20


def test_between_slices_go_gradients_alone():
    found = compile_job(Job(MODEL, Training(RUN), "v5e:2x4", slices=2))
    across = sum(each.received[1] * each.times for each in found.collectives)
    assert 0 < across < 0.02 * sum(each.received[0] * each.times for each in found.collectives)


def test_decoding_with_whole_weights_sends_nothing_of_size():
    found = compile_job(Job(MODEL, Decoding(CAPTIONS), "v5e:2x4"))
    assert found.fits
    assert sent(found) < 10**6


def test_decoding_with_weights_split_by_products_sends_activations_alone():
    found = compile_job(Job(MODEL, Decoding(CAPTIONS, "tensor"), "v5e:2x4"))
    each_token = [each for each in found.collectives if each.times >= 7]
    assert max(each.bytes for each in each_token) <= 64 * MODEL.language.width * 4
