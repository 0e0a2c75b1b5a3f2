"""The training step compiled for a TPU slice that is not here: messages, memory, refusals."""

import dataclasses

import pytest
from planning_tpu_cases import MODEL, NAMES, RUN, compiled, needs_libtpu, sent, size

import paligemma_lib as pg
from paligemma_lib.planning import CHIPS, Job, Training, compile_job, predict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), needs_libtpu]


def test_weights_are_gathered_once_for_each_layer_and_pass():
    gathered = sent(compiled(), "all-gather")
    layers = size("img/") + 2 * size("llm/layers/")  # images have no backward pass
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


def test_weights_that_alone_do_not_fit_are_not_even_compiled():
    job = Job(
        pg.model.variants.paligemma2_10b(), Training(dataclasses.replace(RUN, fsdp=1)), "v5e:2x4"
    )
    found = compile_job(job)
    assert not found.fits
    assert found.peak == found.arguments > found.limit == CHIPS["v5e"].usable
    assert found.problem.endswith("for parameters and optimizer alone")
    assert found.seconds == 0
