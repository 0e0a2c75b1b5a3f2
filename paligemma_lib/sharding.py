"""Distributes arrays over devices: makes the mesh, shards parameters, and transfers batches.

    mesh = make_mesh()                                          # axes data x fsdp
    shardings = param_shardings(mesh, pg.model.abstract_params(config))
    params = pg.checkpoint.load_params(path, config, sharding=shardings)
    batch = put_batch(mesh, batch)                              # each process its own rows

Examples are split over both axes of the mesh. The layout "fsdp" splits parameters over the second
axis: each device stores one shard of every parameter and all-gathers one layer at a time while it
computes (arXiv 2004.13336, arXiv 1910.02054). Along the first axis parameters are replicated. The
layout "tensor", for decoding, splits every matrix product over the second axis (arXiv 1909.08053).
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib.deprecation import former_names
from paligemma_lib.parameter_roles import role_of
from paligemma_lib.quantized import is_quantized
from paligemma_lib.value_ranges import check_ids, check_pixels

AXES = ("data", "fsdp")

Layout = Literal["fsdp", "tensor", "replicated"]


def make_mesh(fsdp: int | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of the devices with the axes data x fsdp.

    Args:
      fsdp: over how many devices parameters are split. None splits them over all devices that are
        connected by fast links: those of one slice in a TPU job of several slices, else all.
      devices: devices of the mesh; None stands for the devices of all processes.

    Raises:
      ValueError: `fsdp` is no whole number that divides the number of devices of a slice.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    fsdp = len(devices) // slices if fsdp is None else fsdp
    is_whole = isinstance(fsdp, numbers.Integral) and not isinstance(fsdp, bool)
    if not is_whole or fsdp < 1 or len(devices) % (fsdp * slices):
        raise ValueError(
            f"make_mesh: fsdp={fsdp!r} does not divide the {len(devices)} devices"
            + (f" of {slices} slices" if slices > 1 else "")
            + "; use a whole divisor of that number, or 1 to keep all parameters on every device"
        )
    data = len(devices) // fsdp
    # Slices are connected by the data center's network only. So parameters are split within a slice
    # and replicated between slices, which then exchange nothing but gradients.
    if slices > 1:
        shape, between = (data // slices, fsdp), (slices, 1)
        return Mesh(mesh_utils.create_hybrid_device_mesh(shape, between, devices), AXES)
    return Mesh(mesh_utils.create_device_mesh((data, fsdp), devices), AXES)


def param_shardings(mesh: Mesh, params: Mapping[str, Any], layout: Layout = "fsdp") -> Any:
    """Returns the sharding of each parameter.

    Args:
      mesh: as `make_mesh` returns it.
      params: nested dict of arrays, or of objects with a shape, named as in the checkpoints.
      layout: "fsdp", "tensor" or "replicated". A parameter is replicated if the mesh does not
        evenly divide the axis that would be split.

    Returns:
      The same nested dict with a `NamedSharding` for each parameter.

    Raises:
      ValueError: no rule covers a parameter.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, param_spec(name, leaf.shape, mesh.shape["fsdp"], layout))

    return jax.tree_util.tree_map_with_path(sharding, params)


def param_spec(name: str, shape: Sequence[int], parts: int, layout: Layout) -> PartitionSpec:
    """Returns the spec that splits a parameter into `parts`, as `param_shardings` describes."""
    role = role_of(name)
    axis = {"fsdp": role.fsdp_axis, "tensor": role.tensor_axis, "replicated": None}[layout]
    if axis is None or parts == 1 or shape[axis] % parts:
        return PartitionSpec()
    return PartitionSpec(*[None] * axis, "fsdp")


def resharded(params: Mapping[str, Any], layout: Layout) -> Any:
    """Copies parameters to another layout on the same mesh.

    Decoding under "fsdp" would all-gather all weights again for each token. Resharding moves them
    once, before decoding. Until the old arrays are freed, it takes their memory a second time on
    each device. Where any parameter is quantised, "tensor" replicates all of them: the components
    of a quantised matrix cannot be split as its product is.

    Args:
      params: nested dict of arrays, quantised or not; a leaf may be a tuple of arrays, the parts of
        one array. Arrays without a mesh stay where they are.
      layout: as for `param_shardings`.
    """
    found = jax.tree.leaves(params, is_leaf=is_quantized)
    if layout == "tensor" and any(map(is_quantized, found)):
        layout = "replicated"

    def move(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, tuple):
            return tuple(move(path, part) for part in leaf)
        first = jax.tree.leaves(leaf)[0]  # a component, if the leaf is quantised
        mesh = getattr(getattr(first, "sharding", None), "mesh", None)
        if mesh is None:
            return leaf
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        target = NamedSharding(mesh, param_spec(name, leaf.shape, mesh.shape["fsdp"], layout))
        if is_quantized(leaf):
            target = leaf.shardings(target)
        return jax.device_put(leaf, target)

    return jax.tree_util.tree_map_with_path(
        move, params, is_leaf=lambda x: isinstance(x, tuple) or is_quantized(x)
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits examples (axis 0) over all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Transfers the examples that this process has read to its devices.

    Args:
      mesh: as `make_mesh` returns it.
      batch: arrays with this process's share of the examples. Arrays of strings, such as
        `image_id`, are left out.

    Returns:
      Arrays of the global batch, whose examples are split over all devices.

    Raises:
      ValueError: the examples cannot be divided evenly among the devices of this process; or
        `image`, float[B, S, S, 3], is not in [-1, 1], or `text` has an id below 0.
    """
    sharding = batch_sharding(mesh)
    local = len(mesh.local_devices)
    # NumPy kinds S, U and O are bytes, str and objects, which devices cannot hold.
    arrays = {key: array for key, array in batch.items() if array.dtype.kind not in "SUO"}
    for key, array in arrays.items():
        if len(array) % local:
            raise ValueError(
                f"put_batch: {key} has {len(array)} examples, which {local} devices cannot share "
                f"evenly; use a batch size that is a multiple of {mesh.size}"
            )
    # Steps do not look at arrays that are on devices, so this is the last to see a loop's own.
    image, text = arrays.get("image"), arrays.get("text")
    if image is not None and image.ndim == 4 and jax.numpy.issubdtype(image.dtype, np.floating):
        check_pixels("put_batch", image)
    if text is not None and text.ndim == 2 and text.dtype.kind == "i":
        check_ids("put_batch", text)
    return {
        key: jax.make_array_from_process_local_data(sharding, array)
        for key, array in arrays.items()
    }


__getattr__ = former_names(__name__, relaid="resharded")
