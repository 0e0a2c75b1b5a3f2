"""Digests of arrays: the same wherever they lie, another one for every change."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import sharding
from paligemma_lib.train.digests import digests, fingerprint

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "uint8"])
def test_every_bit_counts(dtype):
    array = np.zeros(3, jax.numpy.dtype(dtype))
    before = digests(array)[""]
    assert before.startswith(f"{dtype}[3] ")
    found = set()
    bits = array.view(f"uint{8 * array.dtype.itemsize}")
    for place in range(3):
        for bit in range(8 * array.dtype.itemsize):
            bits[place] ^= 1 << bit
            found.add(digests(array)[""])
            bits[place] ^= 1 << bit
    assert len(found - {before}) == 3 * 8 * array.dtype.itemsize


def test_changes_do_not_make_up_for_each_other():
    array = np.ones((4, 4), np.float32)
    before = digests(array)[""]
    array[1, 2] *= -1
    array[3, 0] *= -1
    assert digests(array)[""] != before


def test_a_fingerprint_tells_parameters_apart():
    params = cases.random_params(CONFIG)
    found = {fingerprint(params), fingerprint(jax.device_put(params, sharding.replicated(MESH)))}
    assert len(found) == 1
    kernel = params["img"]["embedding"]["kernel"]
    kernel[..., [0, 1]] = kernel[..., [1, 0]]  # same numbers in other places
    found.add(fingerprint(params))
    params["llm"]["final_norm"]["scale"][-1] = np.nextafter(
        params["llm"]["final_norm"]["scale"][-1], 9
    )
    found.add(fingerprint(params))
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), params)
    found |= {fingerprint(half), fingerprint({"img": half["img"]})}
    assert len(found) == 5
