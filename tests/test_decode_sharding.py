"""The same captions on eight devices as on one, whatever lies where."""

import pytest

PROGRAM = """
import jax
import decode_cases, test_decode_captions
from paligemma_lib import decode, sharding, testing

assert jax.device_count() == 8
config, params = decode_cases.model(2)
images, tokenizer = decode_cases.images(config, 11), testing.tiny_tokenizer()

def captions(images, params, sampler):
    return decode.generate(
        config, params, images, tokenizer, sampler=sampler, key=jax.random.key(3), batch_size=5,
        max_new_tokens=8, min_new_tokens=2, banned_tokens=test_decode_captions.SOME,
    )

layouts = {"replicated": 1, "tensor": 4, "fsdp": 2}
for sampler in (decode.BestOf(2, decode.Sample(top_k=20)), decode.Beam(3)):
    expected = captions(images, params, sampler)
    assert len({caption.tokens for caption in expected}) > 3
    for layout, fsdp in layouts.items():
        mesh = sharding.make_mesh(fsdp=fsdp)
        split = jax.device_put(params, sharding.param_shardings(mesh, params, layout))
        got = captions(images, split, sampler)
        assert [c.tokens for c in got] == [c.tokens for c in expected], (sampler, layout)
        for one, other in zip(got, expected, strict=True):
            assert abs(one.score - other.score) < 1e-3

mesh = sharding.make_mesh(fsdp=2)
split = jax.device_put(params, sharding.param_shardings(mesh, params, "fsdp"))
there = jax.device_put(images[:8], sharding.batch_sharding(mesh))
prompt, length = decode.pad_prompts([tokenizer.encode_prefix("caption en")] * 8)
state = decode.prefill(config, split, there, prompt, length, sampler=decode.Beam(2))
state = decode.extend(config, split, state, 3)
for leaf, axis in ((state.prompt.cache[0], 1), (state.cache[1], 1), (state.written.tokens, 0)):
    rows = {shard.data.shape[axis] for shard in leaf.addressable_shards}
    assert rows == {leaf.shape[axis] // 8}, (leaf.shape, leaf.sharding)
print("same captions")
"""


@pytest.mark.slow
def test_eight_devices_write_what_one_does(run_on_devices):
    assert "same captions" in run_on_devices(8, PROGRAM)
