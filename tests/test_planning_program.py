"""Jobs, the abstract steps, and their operations against a count by formula."""

import dataclasses
import json
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import model_cases as cases
import pytest

import paligemma_lib as pg
from paligemma_lib.planning import Decoding, Job, Training
from paligemma_lib.planning.flops import matmul_flops
from paligemma_lib.planning.program import (
    abstract_batch,
    loss_iterations,
    resident_bytes,
    state_of,
    trace_decoding,
    trace_training,
)
from paligemma_lib.run import ModelConfig, OptimizerConfig, RunConfig, StageConfig
from paligemma_lib.run.assembly import optimizer_of, trainable_of

MESH = pg.sharding.make_mesh(devices=jax.devices()[:1])
CONFIG = pg.model.variants.nano()
RUN = RunConfig(batch_size=8, text_len=64)


@pytest.mark.parametrize(
    "work",
    [
        Training(
            RunConfig(
                stages=(StageConfig(), StageConfig(from_step=9, trainable=("llm", "projector"))),
                microbatches=2,
                fsdp=8,
            ),
            stage=1,
        ),
        Decoding(RUN, layout="tensor", prompt_len=7),
    ],
)
def test_a_job_goes_through_json(work):
    job = Job(pg.model.variants.paligemma2_28b(448), work, "v5p:2x2x2", slices=2)
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("stage", [StageConfig(), StageConfig(trainable=("llm",), top_layers=1)])
def test_the_abstract_state_is_that_of_training(stage, optimizer):
    config = cases.tiny_config(1)
    run = dataclasses.replace(RUN, stages=(stage,), optimizer=OptimizerConfig(name=optimizer))
    made, trainable = optimizer_of(run), trainable_of(stage)
    params = jax.device_put(cases.random_params(config), pg.sharding.replicated(MESH))
    state = pg.train.init_state(config, params, made, trainable=trainable, mesh=MESH)
    abstract = state_of(config, Training(run), made, MESH)

    def described(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path): (leaf.shape, leaf.dtype, leaf.sharding.spec)
            for path, leaf in leaves
        }

    assert described(abstract) == described(vars(state))


def test_resident_bytes_are_those_of_the_state():
    config = cases.tiny_config(1)
    made = optimizer_of(RUN)
    params = jax.device_put(cases.random_params(config), pg.sharding.replicated(MESH))
    state = pg.train.init_state(config, params, made, trainable="attention", mesh=MESH)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(vars(state)))
    assert resident_bytes(config, Training(RUN), MESH) == held
    half = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) // 2
    run = dataclasses.replace(RUN, model=ModelConfig(frozen_dtype="bfloat16"))
    assert resident_bytes(config, Decoding(run), MESH) == half


def test_the_abstract_batch_is_one_of_the_contract():
    config = cases.tiny_config(1)
    size = config.vision.image_size
    batch = pg.testing.tiny_batch(pg.testing.tiny_tokenizer(), image_size=size)
    abstract = abstract_batch(config, Training(RunConfig(batch_size=2, text_len=48)), MESH)
    for key, leaf in abstract.items():
        assert leaf.shape == batch[key].shape, key
        assert leaf.dtype == (jnp.uint8 if key == "image" else batch[key].dtype), key


def flops_by_formula(config, run, remat):
    """Of training the attention layers alone: forward all, backward in the language model."""
    v, c = config.vision, config.language
    b, p, t = run.batch_size, v.num_tokens, run.text_len
    patch = v.patch_size**2 * 3
    tower = 4 * v.width**2 + 2 * v.width * v.mlp_dim
    vision = v.depth * (2 * b * p * tower + 4 * b * p * p * v.width)
    vision += 2 * b * p * (patch * v.width + v.width * c.width)

    def layer(read):
        """Keys and values of all tokens; queries, outputs and MLP of those whose output is read."""
        keys = 2 * (b * (p + t)) * 2 * c.width * c.head_dim * c.num_kv_heads
        queries = 2 * read * 2 * c.width * c.head_dim * c.num_heads
        mlp = 2 * read * 3 * c.width * c.mlp_dim
        scores = 4 * read * (p + t) * c.num_heads * c.head_dim
        forward = keys + queries + mlp + scores
        backward = forward + scores + keys + queries  # of inputs, of trained weights
        # A block's last product is not needed to differentiate it.
        again = {"none": 0, "full": forward - 2 * read * c.width * c.mlp_dim}[remat]
        return forward + backward + again

    slots = loss_iterations(Training(run), 1) * min(256, b * t)
    loss = 3 * 2 * slots * c.width * c.vocab_size
    return vision + (c.depth - 1) * layer(b * (p + t)) + layer(b * t) + loss


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_flops_of_training_attention(remat, microbatches):
    config = dataclasses.replace(CONFIG, remat=remat, dtype="bfloat16")
    run = dataclasses.replace(RUN, batch_size=16, microbatches=microbatches)
    traced = trace_training(config, Training(run), MESH)
    counted = matmul_flops(traced.jaxpr.jaxpr, loss_iterations(Training(run), 1))
    one = dataclasses.replace(run, batch_size=16 // microbatches, microbatches=1)
    assert counted == pytest.approx(microbatches * flops_by_formula(config, one, remat), rel=1e-9)


def test_flops_are_those_that_xla_counts_where_nothing_loops():
    def function(x, w):
        return jnp.sum(jnp.einsum("btd,ndh->btnh", x, w))

    shapes = (
        jax.ShapeDtypeStruct((2, 8, 32), "float32"),
        jax.ShapeDtypeStruct((4, 32, 16), "float32"),
    )
    traced = jax.jit(jax.grad(function, argnums=(0, 1))).trace(*shapes)
    xla = traced.lower().compile().cost_analysis()["flops"]
    assert matmul_flops(traced.jaxpr.jaxpr) == pytest.approx(xla, rel=0.1)


def test_a_batch_that_cannot_be_divided_is_refused():
    two = pg.sharding.make_mesh(devices=jax.devices()[:1] * 2)
    with pytest.raises(ValueError, match="batch_size=9 cannot be divided among 2 devices and 1"):
        trace_training(CONFIG, Training(dataclasses.replace(RUN, batch_size=9)), two)


def test_microbatches_of_less_than_an_image_are_of_one():
    run = dataclasses.replace(RUN, batch_size=8, microbatches=4, text_len=1024)
    assert loss_iterations(Training(run), 4) == 2  # half of 1,024 positions, 256 at a time


@pytest.mark.parametrize("layout", ["replicated", "tensor", "fsdp"])
def test_decoding_reads_all_weights_for_every_token(layout):
    work = Decoding(RunConfig(decode_batch_size=2, max_new_tokens=5), layout)
    read, begin, extend = (
        matmul_flops(traced.jaxpr.jaxpr, 4) for traced in trace_decoding(CONFIG, work, MESH)
    )
    language = flax.traverse_util.flatten_dict(pg.model.abstract_params(CONFIG)["llm"])
    weights = sum(math.prod(leaf.shape) for leaf in language.values() if leaf.ndim > 2)
    table = CONFIG.language.vocab_size * CONFIG.language.width
    assert extend == pytest.approx(2 * 2 * 4 * (weights + table), rel=0.2)
    assert begin == 2 * 2 * table
    assert read > 2 * 2 * CONFIG.vision.num_tokens * weights


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8.13), ("nf4", 4.13)])
def test_quantised_parameters_are_counted_as_they_are_stored(kind, bits):
    run = dataclasses.replace(RUN, model=ModelConfig(frozen_dtype=kind))
    config = pg.model.variants.paligemma_3b()
    found = resident_bytes(config, Decoding(run), MESH)
    assert found == pytest.approx(2.92e9 * bits / 8, rel=0.02)
