"""Traces the steps of training and decoding on abstract arrays: shapes, dtypes and shardings only.

    traced = trace_training(job.model, job.work, mesh)
    compiled = traced.lower().compile()

Shapes and shardings of the training state are those of `train.init_state`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib import model, train
from paligemma_lib.decode import programs
from paligemma_lib.decode.devices import images_sharding, num_shards
from paligemma_lib.decode.prompt import Prompt
from paligemma_lib.decode.samplers import Greedy, image_keys
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_spec import abstract, quantized_kinds
from paligemma_lib.planning.work import Decoding, Training
from paligemma_lib.quantized import KINDS, stored_as
from paligemma_lib.run.assembly import optimizer_of, parameters_of, train_step_of, trainable_of
from paligemma_lib.sharding import Layout, batch_sharding, param_shardings
from paligemma_lib.train.likelihood import POSITIONS
from paligemma_lib.train.microbatching import number_of_parts
from paligemma_lib.train.state import abstract_state

SUPERVISED = (
    0.5  # assumed share of supervised text positions: Flickr8k's five captions fill 70 of 128
)


def trace_training(config: PaliGemmaConfig, work: Training, mesh: Mesh) -> Any:
    """Returns the traced train step. It must be lowered under `jax.set_mesh(mesh)` too.

    Raises:
      ValueError: devices and microbatches do not divide the batch.
    """
    run = work.config
    number_of_parts(run.batch_size, mesh.size, run.microbatches)  # before anything is traced
    optimizer = optimizer_of(run)
    step = train_step_of(run, config, optimizer, mesh)
    state = state_of(config, work, optimizer, mesh)
    with jax.set_mesh(mesh):
        return step.jitted.trace(  # type: ignore[attr-defined]
            state.pop("frozen"), state, abstract_batch(config, work, mesh)
        )


def resident_bytes(config: PaliGemmaConfig, work: Training | Decoding, mesh: Mesh) -> int:
    """Returns the bytes of parameters and training state that a device holds all the time."""
    state: Any
    if isinstance(work, Training):
        state = state_of(config, work, optimizer_of(work.config), mesh)
    else:
        state = _decoding_params(config, work, mesh)
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )


def state_of(
    config: PaliGemmaConfig, work: Training, optimizer: train.Optimizer, mesh: Mesh
) -> dict[str, Any]:
    """Returns the fields of the `TrainState` that `train.init_state` makes, as abstract arrays."""
    table = parameters_of(work.config, config)
    state = abstract_state(
        _placed(abstract(table), mesh),
        optimizer,
        trainable=trainable_of(work.config.stages[work.stage]),
        quantized=quantized_kinds(table),
        undone_dtype=config.dtype,
        mesh=mesh,
    )
    return dict(vars(state))


def abstract_batch(
    config: PaliGemmaConfig, work: Training, mesh: Mesh
) -> dict[str, ShapeDtypeStruct]:
    """Returns an abstract batch as `paligemma_lib.batch` defines it, with uint8 images."""
    place, shape = batch_sharding(mesh), (work.config.batch_size, work.config.trained_text_len())
    side = config.vision.image_size
    return {
        "image": ShapeDtypeStruct((shape[0], side, side, 3), jnp.uint8, sharding=place),
        **{
            name: ShapeDtypeStruct(shape, jnp.int32, sharding=place)
            for name in ("text", "segment", "position")
        },
        "loss_weight": ShapeDtypeStruct(shape, jnp.float32, sharding=place),
    }


def loss_iterations(work: Training, devices: int) -> int:
    """Returns the iterations of the loss's inner loop if `SUPERVISED` of the positions count."""
    run = work.config
    parts = devices * number_of_parts(run.batch_size, devices, run.microbatches)
    positions = run.batch_size // parts * run.trained_text_len()
    return math.ceil(SUPERVISED * positions / min(POSITIONS, positions))


def trace_decoding(config: PaliGemmaConfig, work: Decoding, mesh: Mesh) -> tuple[Any, Any, Any]:
    """Returns the traced programs of decoding: `read_inputs`, `begin` and `extend_state`.

    They read images and prompts, choose the first token, and add the other tokens in a loop.
    """
    params = _decoding_params(config, work, mesh)
    side, rows = config.vision.image_size, work.config.decode_batch_size
    place = images_sharding(None, params)
    if work.layout == "fsdp":  # a training run decodes with the sharding of its batches
        place = batch_sharding(mesh)
    assert place is not None
    rows += -rows % num_shards(place)  # as decoding rounds its batch up
    image = ShapeDtypeStruct((rows, side, side, 3), jnp.float32, sharding=place)
    text = ShapeDtypeStruct((rows, work.prompt_len), jnp.int32)
    length = ShapeDtypeStruct((rows,), jnp.int32)
    keys = jax.eval_shape(lambda: image_keys(jax.random.key(0), range(rows)))
    number: Any = ShapeDtypeStruct((), jnp.int32)
    # Tracing gives the results of a program without their shardings. `_split` adds those that the
    # program constrains them to: caches are [depth, B, ...], all others have B first.
    read = programs.read_inputs.trace(config, config.dtype, place, params, image, text, length)
    prompt, hidden = read.out_info
    prompt = Prompt(_split(prompt.cache, place, 1), _split(prompt.length, place))
    begin = programs.begin.trace(
        config, Greedy(), work.config.max_new_tokens, place,
        params, prompt, _split(hidden, place), keys, None, number,
    )  # fmt: skip
    written, cache, _ = begin.out_info
    written, cache = _split(written, place), _split(cache, place, 1)
    state = programs.State(prompt, keys, None, number, written, cache, number, place)
    return read, begin, programs.extend_state.trace(config, params, state, number)


def _decoding_params(config: PaliGemmaConfig, work: Decoding, mesh: Mesh) -> Any:
    storage = work.config.model.frozen_dtype or "float32"
    # The layout "tensor" splits matrix products, which components of quantised weights are not.
    layout = "replicated" if storage in KINDS and work.layout == "tensor" else work.layout
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: stored_as(
            jax.tree_util.keystr(path, simple=True, separator="/"), leaf, storage, config.dtype
        ),
        _placed(model.abstract_params(config), mesh, layout),
    )


def _placed(params: Any, mesh: Mesh, layout: Layout = "fsdp") -> Any:
    places = param_shardings(mesh, params, layout)
    return jax.tree.map(lambda leaf, place: leaf.update(sharding=place), params, places)


def _split(tree: Any, place: NamedSharding, axis: int = 0) -> Any:
    """Returns abstract arrays with one axis split as axis 0 of the images is."""
    sharding = NamedSharding(place.mesh, PartitionSpec(*[None] * axis, *place.spec))
    return jax.tree.map(
        lambda leaf: ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
