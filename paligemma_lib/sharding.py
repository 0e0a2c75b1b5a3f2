"""Where arrays lie on many devices: a mesh, rules for parameters, batches on their way.

    mesh = make_mesh()                                          # axes data x fsdp
    shardings = param_shardings(mesh, pg.model.abstract_params(config))
    params = pg.checkpoint.load_params(path, config, sharding=shardings)
    batch = put_batch(mesh, batch)                              # each process its own rows

Examples are split over both axes. Under "fsdp", parameters are split over the second axis, so that
each device of that axis stores a part and gathers one layer at a time while it computes
(arXiv 2004.13336, arXiv 1910.02054); copies of all of them lie along the first. Under "tensor",
for decoding, each device of the second axis keeps its part of every product (arXiv 1909.08053).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib.deprecation import former_names

AXES = ("data", "fsdp")

Layout = Literal["fsdp", "tensor", "replicated"]

# Parameter name -> axis to split under "fsdp" and under "tensor". Axis 0 of a stack is its layers,
# which are read one by one and so stay together. Under "tensor" a product's output is split, and
# the input of the product that follows it: only the second one's sums must cross devices.
_RULES: tuple[tuple[str, int | None, int | None], ...] = (
    (r"img/embedding/kernel", 3, None),
    (r"img/pos_embedding", 2, None),
    (r"img/head/kernel", 1, None),
    (r"img/.*/(query|key|value)/kernel", 1, 2),
    (r"img/.*/out/kernel", 3, 1),
    (r"img/.*/Dense_0/kernel", 1, 2),
    (r"img/.*/Dense_1/kernel", 2, 1),
    (r"img/.*/(query|key|value)/bias", None, 1),
    (r"img/.*/Dense_0/bias", None, 1),
    # Small vectors: not worth a message each.
    (r"img/(.*/(out|Dense_1)|embedding|head)/bias", None, None),
    (r"img/.*[nN]orm.*/(scale|bias)", None, None),
    (r"llm/embedder/input_embedding", 1, 0),
    (r"llm/layers/attn/q_einsum/w", 2, 1),
    (r"llm/layers/attn/kv_einsum/w", 3, 2),
    (r"llm/layers/attn/attn_vec_einsum/w", 3, 1),
    (r"llm/layers/mlp/gating_einsum", 2, 3),
    (r"llm/layers/mlp/linear", 2, 1),
    (r"llm/.*_norm/scale", None, None),
)


def make_mesh(fsdp: int | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays devices out as data x fsdp.

    Args:
      fsdp: over how many devices parameters are split; None: over all that are joined by fast
        links, which are all of them but in a TPU job of several slices.
      devices: which; None: those of all processes.

    Raises:
      ValueError: the devices cannot be divided so.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    fsdp = len(devices) // slices if fsdp is None else fsdp
    if fsdp < 1 or len(devices) % (fsdp * slices):
        raise ValueError(
            f"make_mesh: fsdp={fsdp} does not divide the {len(devices)} devices"
            + (f" of {slices} slices" if slices > 1 else "")
            + "; take a divisor of that, or 1 to keep all parameters on every device"
        )
    data = len(devices) // fsdp
    # Between slices there is only the data center's network: parameters are split within a slice
    # and copied between slices, which then exchange gradients alone.
    if slices > 1:
        shape, between = (data // slices, fsdp), (slices, 1)
        return Mesh(mesh_utils.create_hybrid_device_mesh(shape, between, devices), AXES)
    return Mesh(mesh_utils.create_device_mesh((data, fsdp), devices), AXES)


def param_shardings(mesh: Mesh, params: Mapping[str, Any], layout: Layout = "fsdp") -> Any:
    """Says where each parameter lies.

    Args:
      mesh: as `make_mesh` returns it.
      params: nested dict of arrays or of what has their shapes, with the reference's names.
      layout: "fsdp", "tensor" or "replicated". A parameter whose axis the mesh does not divide
        lies on every device as a whole.

    Returns:
      The same nested dict of `NamedSharding`.

    Raises:
      ValueError: a parameter that no rule covers.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, param_spec(name, leaf.shape, mesh.shape["fsdp"], layout))

    return jax.tree_util.tree_map_with_path(sharding, params)


def param_spec(name: str, shape: Sequence[int], parts: int, layout: Layout) -> PartitionSpec:
    """Which axis of a parameter is split into `parts`, see `param_shardings`."""
    matching = [rule for rule in _RULES if re.fullmatch(rule[0], name)]
    if len(matching) != 1:
        raise ValueError(f"param_spec: {len(matching)} rules for the parameter {name}, expected 1")
    _, fsdp, tensor = matching[0]
    axis = {"fsdp": fsdp, "tensor": tensor, "replicated": None}[layout]
    if axis is None or parts == 1 or shape[axis] % parts:
        return PartitionSpec()
    return PartitionSpec(*[None] * axis, "fsdp")


def resharded(params: Mapping[str, Any], layout: Layout) -> Any:
    """Moves parameters to another layout of the mesh that they lie on.

    Under "fsdp" each decoded token would have all weights gathered again. This is done once, and
    takes each device's share of the memory a second time.

    Args:
      params: nested dict of arrays, or of tuples of arrays that are parts of one. Those that lie
        on no mesh stay where they are.
      layout: as for `param_shardings`.
    """

    def move(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, tuple):
            return tuple(move(path, part) for part in leaf)
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        if mesh is None:
            return leaf
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = param_spec(name, leaf.shape, mesh.shape["fsdp"], layout)
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(move, params, is_leaf=lambda x: isinstance(x, tuple))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples, along axis 0, split over all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Sends the rows that this process has read to its devices.

    Args:
      mesh: as `make_mesh` returns it.
      batch: arrays of this process's share of the examples; text, such as `image_id`, stays behind.

    Returns:
      Arrays of the global batch, split over all devices.

    Raises:
      ValueError: the examples cannot be divided among the devices of this process.
    """
    sharding = batch_sharding(mesh)
    local = len(mesh.local_devices)
    arrays = {key: array for key, array in batch.items() if array.dtype.kind not in "SUO"}
    for key, array in arrays.items():
        if len(array) % local:
            raise ValueError(
                f"put_batch: {key} has {len(array)} examples, which {local} devices cannot share "
                f"evenly; take a batch size that is a multiple of {mesh.size}"
            )
    return {
        key: jax.make_array_from_process_local_data(sharding, array)
        for key, array in arrays.items()
    }


__getattr__ = former_names(__name__, relaid="resharded")
