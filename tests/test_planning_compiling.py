"""Compiling in another process: CPU devices, and what a refusal says."""

import dataclasses

import pytest

import paligemma_lib as pg
from paligemma_lib.planning import Decoding, Job, Training, compile_job, compiling
from paligemma_lib.run import ModelConfig, RunConfig

CAPTIONS = RunConfig(
    decode_batch_size=8, max_new_tokens=6, model=ModelConfig(frozen_dtype="bfloat16")
)
NANO = pg.model.variants.nano(48)
# As many layers in both parts, and fewer than tokens are decoded: loops are known by how often they
# run.
VISION = dataclasses.replace(NANO.vision, depth=NANO.language.depth)
CONFIG = dataclasses.replace(NANO, vision=VISION, remat="full")


@pytest.mark.slow
def test_training_for_several_cpu_devices():
    layers = CONFIG.language.depth
    split, whole = (
        compile_job(Job(CONFIG, Training(RunConfig(batch_size=8, text_len=32, fsdp=fsdp)), "cpu:4"))
        for fsdp in (0, 1)
    )
    assert split.fits and split.devices == 4
    assert 0 < split.arguments < 0.5 * whole.arguments < whole.arguments < whole.peak
    assert split.flops == whole.flops > split.model_flops == whole.model_flops > 0
    gathers = [each for each in split.collectives if each.kind == "all-gather"]
    # Forward and backward; the last layer of the language model is not in the loop.
    assert sum(each.times in (layers - 1, layers) for each in gathers) >= 16
    assert not any(each.kind == "all-gather" and each.bytes > 1024 for each in whole.collectives)


@pytest.mark.slow
def test_decoding_gathers_no_weights_that_are_whole():
    seven = dataclasses.replace(CAPTIONS, decode_batch_size=7)  # eight rows, as in decoding
    found = compile_job(Job(CONFIG, Decoding(seven), "cpu:4"))
    assert found.fits and found.flops == found.model_flops > 0
    assert sum(each.bytes * each.times for each in found.collectives) < 10**5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoding_with_weights_split_by_products_moves_no_weights(dtype):
    language = dataclasses.replace(CONFIG.language, vocab_size=3 * 2**14)  # several chunks
    model = dataclasses.replace(CONFIG, language=language, dtype=dtype)
    found = compile_job(Job(model, Decoding(CAPTIONS, "tensor"), "cpu:4"))
    tokens = CONFIG.vision.num_tokens + 6
    assert max(each.bytes for each in found.collectives) <= 8 * tokens * language.width * 4
    assert max(each.bytes for each in found.collectives if each.times >= 5) < 10**4


def test_a_job_that_is_none_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="batch_size=9 cannot be divided among 2 devices"):
        compile_job(Job(CONFIG, Training(RunConfig(batch_size=9, text_len=32)), "cpu:2"))


@pytest.mark.parametrize(
    "message",
    [
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.47G of "
        "15.75G hbm. Exceeded hbm capacity by 5.72G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (21.47G) exceeds "
        "available HBM (15.75G).",
    ],
)
def test_a_refusal_says_by_how_much(message):
    found = compiling._refused(f"RESOURCE_EXHAUSTED: {message}", 16 * 2**30)
    assert found["peak"] == int(21.47 * 2**30)
    assert found["limit"] == int(15.75 * 2**30)
    assert found["problem"] == "needs 21.5 GiB, 5.7 GiB more than the 15.75 GiB of a device"


def test_another_failure_of_the_compiler_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="INTERNAL: a bug"):
        compiling._refused("INTERNAL: a bug", 0)
