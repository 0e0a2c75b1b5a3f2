"""A model to compile for TPU slices that are not here.

Of PaliGemma's shape, and wide enough that XLA decides as it does for the 3B one. It has few layers,
which saves nothing but memory: a program takes two minutes of a core for any number.
"""

import dataclasses
import functools
import importlib.util

import flax.traverse_util
import pytest

import paligemma_lib as pg
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig
from paligemma_lib.planning import Job, Training, compile_job
from paligemma_lib.run import ModelConfig, RunConfig

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
)

MODEL = PaliGemmaConfig(
    SiglipConfig(image_size=224, width=512, depth=3, mlp_dim=2048, num_heads=8),
    GemmaConfig(width=1024, depth=5, mlp_dim=4096, num_heads=8, num_kv_heads=1, vocab_size=98_304),
    dtype="bfloat16",
    remat="dots",
)
RUN = RunConfig(batch_size=256, model=ModelConfig(frozen_dtype="bfloat16"))
NAMES = flax.traverse_util.flatten_dict(pg.model.abstract_params(MODEL), sep="/")


@functools.cache
def compiled(**changes):
    return compile_job(Job(MODEL, Training(dataclasses.replace(RUN, **changes)), "v5e:2x4"))


def sent(found, *kinds):
    """Bytes of all messages, or of those of some kinds."""
    messages = [each for each in found.collectives if not kinds or each.kind in kinds]
    return sum(each.bytes * each.times for each in messages)


def size(start):
    """Bytes in bfloat16 of the parameters whose names start so."""
    return sum(2 * leaf.size for name, leaf in NAMES.items() if name.startswith(start))
