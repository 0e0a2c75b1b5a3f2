"""Runs a layer function over layers whose parameters are stacked along axis 0.

    def layer(x, params, _):
        return x + x @ params["kernel"], None

    x, _ = scan_layers(layer, x, {"kernel": kernel})              # float32[depth, D, D]
    x, _ = scan_layers(layer, x, {"kernel": (frozen, trained)})   # [lo, D, D], [depth - lo, D, D]

The third argument of `layer` is the layer's share of `inputs`, such as a key/value cache.

A leaf may be split along its layers, as a tuple: layers 0..lo-1 in the first array, for example,
and the others in the second. An array may be `quantized.Quantized`: of each layer, the components
are read, gathered and then undone, so that one layer at a time is in memory as it was, and the
backward pass undoes it again. The layers between two split points run in a scan of their own. So,
when only the top layers train, and nothing below them does, the lower scan depends on nothing that
is differentiated and has no backward pass. Leaves that are not split serve all scans without a
copy.
"""

import bisect
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from paligemma_lib.model.partitioning import gathered
from paligemma_lib.quantized import dequantized, is_quantized

# These primitives move or cast values. A layer's weights pass through them (a slice of the stack, a
# cast), so saving their results would save a second copy of all weights. Recomputing them costs
# next to no arithmetic. `custom_jvp_call` is how quantised weights are undone.
_DATA_MOVEMENT = {
    "broadcast_in_dim",
    "convert_element_type",
    "custom_jvp_call",
    "dynamic_slice",
    "reshape",
    "sharding_constraint",
    "slice",
    "squeeze",
    "transpose",
}


def _keep_arithmetic(primitive, *_, **__) -> bool:
    return primitive.name not in _DATA_MOVEMENT


# What the backward pass of a layer recomputes, by the name of the policy in the config. `lax.scan`
# stacks saved values over all layers, so they count `depth` times (`train.memory` has the sizes):
#
#     none   nothing but data movement; every other result is saved
#     dots   all but the matrix products with weights, whose results are saved; the products within
#            the attention have batch dimensions, and are recomputed
#     full   the whole layer; its input is saved
_POLICIES = {
    "none": _keep_arithmetic,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def scan_layers(
    layer: Callable[[Any, Any, Any], tuple[Any, Any]],
    x: Any,
    params: Any,
    inputs: Any = None,
    *,
    remat: str = "none",
    last: bool = True,
) -> tuple[Any, Any]:
    """Applies `x, output = layer(x, params[i], inputs[i])` for every layer i in turn.

    Args:
      layer: the block; it must return `x` with the same shapes and dtypes.
      x: the carry, an array or a pytree.
      params: an array [depth, ...], quantised or not, or a nested dict of these; each may be a
        tuple of arrays that make up such an array when they are concatenated along axis 0.
      inputs: other arrays [depth, ...], not split, of which each layer gets its own index.
      remat: what to save for the backward pass: "none", "dots" or "full", see `_POLICIES`.
      last: whether to run through the last layer, too; see `last_layer`.

    Returns:
      The last `x`, and the outputs of all layers stacked to [depth, ...].

    Raises:
      ValueError: leaves have different numbers of layers.
    """
    leaves, tree = jax.tree.flatten(params, is_leaf=_is_stack)
    parts = [leaf if isinstance(leaf, tuple) else (leaf,) for leaf in leaves]
    ends = [list(itertools.accumulate(part.shape[0] for part in leaf)) for leaf in parts]
    depths = {leaf_ends[-1] for leaf_ends in ends}
    if len(depths) > 1:
        found = jax.tree.unflatten(tree, [leaf_ends[-1] for leaf_ends in ends])
        raise ValueError(f"scan_layers: parameters differ in their number of layers: {found}")

    # A split point is a layer at which some leaf passes from one of its arrays to the next. With
    # layers 0..1 frozen and 2..4 trained there is one, at 2: one scan runs over 0..1 and another
    # over 2..4. JAX differentiates a scan as a whole. In one scan over 0..4, the backward pass
    # would also run through layers 0 and 1, for gradients that are not needed. The price is that
    # the layer is compiled once for each scan.
    stop = max(depths) - (not last)
    splits = sorted({0, stop} | {end for end in set().union(*ends) if end < stop})
    outputs = []
    for first, end in itertools.pairwise(splits):
        stretch = []  # for every leaf, the array with these layers, and at which layer it begins
        for leaf, leaf_ends in zip(parts, ends, strict=True):
            k = bisect.bisect_right(leaf_ends, first)
            stretch.append((leaf[k], leaf_ends[k] - leaf[k].shape[0]))

        # The scan runs over layer indices, and its body reads parameters by dynamic index. A scan
        # over the parameters themselves would need a copy of each unsplit leaf, cut in two.
        def body(x, i, stretch=stretch):
            layer_params = jax.tree.unflatten(tree, [take(a, i - start) for a, start in stretch])
            # Gathered first: the components are what is sent between devices.
            layer_params = dequantized(gathered(layer_params))
            return layer(x, layer_params, take(inputs, i))

        # `prevent_cse=False`: forward and backward pass are different loops here, so XLA cannot
        # merge the recomputation with the first computation, and no barriers are needed.
        body = jax.checkpoint(body, policy=_POLICIES[remat], prevent_cse=False)
        x, output = lax.scan(body, x, jnp.arange(first, end))
        outputs.append(output)
    if len(outputs) == 1:
        return x, outputs[0]
    return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)


def last_layer(
    layer: Callable[[Any, Any, Any], tuple[Any, Any]],
    x: Any,
    params: Any,
    inputs: Any = None,
    *,
    remat: str = "none",
) -> tuple[Any, Any]:
    """Applies the last layer alone, which may return `x` with other shapes.

    Arguments and results are those of `scan_layers`.
    """
    leaves, tree = jax.tree.flatten(params, is_leaf=_is_stack)
    tops = [leaf[-1] if isinstance(leaf, tuple) else leaf for leaf in leaves]

    def apply(x: Any, tops: Any, inputs: Any) -> tuple[Any, Any]:
        own = jax.tree.unflatten(tree, [take(top, _hidden(top.shape[0] - 1)) for top in tops])
        depth = [each.shape[0] for each in jax.tree.leaves(inputs)]
        mine = take(inputs, _hidden(depth[0] - 1)) if depth else inputs
        return layer(x, dequantized(gathered(own)), mine)

    x, output = jax.checkpoint(apply, policy=_POLICIES[remat], prevent_cse=False)(x, tops, inputs)
    return x, jax.tree.map(lambda leaf: leaf[None], output)


def _hidden(i: int) -> jax.Array:
    """Returns a number that XLA does not know: see `take` for what it would make of a known one."""
    return lax.optimization_barrier(jnp.int32(i))


def _is_stack(node: Any) -> bool:
    return isinstance(node, tuple) or is_quantized(node)


def take(stacks: Any, i: jax.Array, axis: int = 0) -> Any:
    """Returns index i of an axis of all arrays in a pytree."""
    return jax.tree.map(lambda stack: _take(stack, i, axis), stacks)


def _take(stack: jax.Array, i: jax.Array, axis: int) -> jax.Array:
    """Returns index i of an axis, without a float32 copy of a whole bfloat16 stack.

    XLA's CPU compiler has no bfloat16 slice. It upcasts the stack and slices the result. The upcast
    is the same in every iteration, so the compiler hoists it out of the loop, which takes a float32
    copy of all layers. But it hoists nothing out of a branch of `cond`. So on a CPU the slice is
    taken in a branch whose condition always holds (a literal True would be folded away), and only
    one layer is upcast.
    """

    def slice_(stack: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(stack, i, axis, keepdims=False)

    def zeros(stack: jax.Array, i: jax.Array) -> jax.Array:
        return jnp.zeros_like(lax.index_in_dim(stack, 0, axis, keepdims=False))

    def slice_in_branch(stack: jax.Array, i: jax.Array) -> jax.Array:
        return lax.cond(i >= 0, slice_, zeros, stack, i)

    if stack.dtype != jnp.bfloat16:
        return slice_(stack, i)
    return lax.platform_dependent(stack, i, cpu=slice_in_branch, default=slice_)
