"""The type of quantised arrays, and how they are undone.

stored = abstract((18, 16384, 2048), "nf4", "bfloat16")     # shapes and dtypes of the components
stored.shape, stored.dtype, stored.nbytes                   # as of the array that it stands for
weights = stored.dequantize()                               # bfloat16[18, 16384, 2048]
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from paligemma_lib.parameter_roles import role_of

Kind = Literal["int8", "nf4"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Quantiles of the normal distribution, as published: each level stands for as many values of a
# block of normal weights as any other; -1, 0 and 1 are exact.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

BLOCK = 64  # values that share a scale
_GROUP = 256  # most scales that share a maximum
_CODES: dict[Kind, Any] = {"int8": np.int8, "nf4": np.uint8}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("codes", "scales", "maxima"),
    meta_fields=("kind", "tail", "dtype"),
)
@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array [*lead, *tail] in int8 or nf4; a pytree of its three components.

    Attributes:
      codes: int8[*lead, 64 blocks], or uint8[*lead, 32 blocks] with two codes in a byte: the low
        bits are of the first half of a block.
      scales: uint8[*lead, blocks], as the package describes.
      maxima: float32[*lead, groups]; the blocks are divided evenly among them.
      kind: "int8" or "nf4".
      tail: the axes of a row.
      dtype: dtype that it is undone to.
    """

    codes: Any
    scales: Any
    maxima: Any
    kind: Kind
    tail: tuple[int, ...]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that it stands for."""
        return (*self.scales.shape[:-1], *self.tail)

    @property
    def nbytes(self) -> int:
        """Bytes of the components."""
        return sum(math.prod(part.shape) * part.dtype.itemsize for part in jax.tree.leaves(self))

    def reshape(self, *shape: int) -> "Quantized":
        """Returns it with other leading axes; raises ValueError for other axes of a row."""
        lead = shape[: len(shape) - len(self.tail)]
        if shape[len(lead) :] != self.tail:
            raise ValueError(f"a quantised array {self.shape} has no shape {shape}: keep its rows")
        own = len(self.scales.shape) - 1
        return jax.tree.map(lambda part: part.reshape(*lead, *part.shape[own:]), self)

    def dequantize(self) -> jax.Array:
        """Returns dtype[*lead, *tail]."""
        return _undo((self.kind, self.tail, self.dtype), self.codes, self.scales, self.maxima)

    def shardings(self, sharding: Sharding) -> "Quantized":
        """Returns the sharding of each component.

        Args:
          sharding: how the array itself would be sharded. Where it splits any axis, what belongs to
            a row is split instead, if it can be divided evenly.
        """
        if not isinstance(sharding, NamedSharding):
            return jax.tree.map(lambda _: sharding, self)
        names = jax.tree.leaves(tuple(sharding.spec))
        parts = math.prod(sharding.mesh.shape[name] for name in names)

        def of(part: Any) -> NamedSharding:
            axes = [None] * (len(part.shape) - 1)
            is_split = names and part.shape[-1] % parts == 0
            spec = PartitionSpec(*axes, tuple(names)) if is_split else PartitionSpec()
            return NamedSharding(sharding.mesh, spec)

        return jax.tree.map(of, self)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Returns these rows of axis 0 on the host, undone."""
        return np.asarray(_dequantize(jax.tree.map(lambda part: part[rows], self)))


def dequantized(tree: Any) -> Any:
    """Returns a pytree with plain arrays in place of quantised ones."""
    return jax.tree.map(
        lambda leaf: leaf.dequantize() if is_quantized(leaf) else leaf, tree, is_leaf=is_quantized
    )


def is_quantized(leaf: Any) -> bool:
    """Returns whether a leaf of parameters is quantised."""
    return isinstance(leaf, Quantized)


def abstract(
    shape: Sequence[int], kind: Kind, dtype: Any, sharding: Sharding | None = None
) -> Quantized:
    """Returns the shapes and dtypes of an array's components, as `jax.ShapeDtypeStruct`s.

    Args:
      shape: shape of the array. Axis 0 has the rows.
      kind: "int8" or "nf4".
      dtype: dtype that it is undone to.
      sharding: how the array itself would be sharded, see `Quantized.shardings`; None leaves
        shardings out.
    """
    count, *tail = shape
    blocks = -(-math.prod(tail) // BLOCK)
    groups = -(-blocks // _GROUP)
    blocks = -(-blocks // groups) * groups  # rounded up, so that all groups have as many

    # Codes are one long axis: TPUs pad a short last axis to 128 values, in all layers at a time.
    size = blocks * BLOCK
    found = Quantized(
        jax.ShapeDtypeStruct((count, size if kind == "int8" else size // 2), _CODES[kind]),
        jax.ShapeDtypeStruct((count, blocks), np.uint8),
        jax.ShapeDtypeStruct((count, groups), np.float32),
        kind,
        tuple(tail),
        jnp.dtype(dtype),
    )
    if sharding is None:
        return found
    places = found.shardings(sharding)
    return jax.tree.map(lambda part, place: part.update(sharding=place), found, places)


def stored_as(name: str, leaf: jax.ShapeDtypeStruct, storage: str, dtype: Any) -> Any:
    """Returns an abstract parameter as it is stored.

    Args:
      name: name of the parameter. Only a matrix is quantised, see `parameter_roles`.
      leaf: its shape and its dtype as it would be otherwise, perhaps with a sharding.
      storage: a float dtype, "int8" or "nf4".
      dtype: dtype that a quantised parameter is undone to.
    """
    if storage not in KINDS:
        return leaf.update(dtype=jnp.dtype(storage))
    if not role_of(name).is_matrix:
        return leaf
    return abstract(leaf.shape, storage, dtype, leaf.sharding)


# The rule says that nothing is differentiated here. And a call of a `custom_jvp` is one operation
# to the policies of `jax.checkpoint`, which keep none of what is computed within it.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _undo(static: Any, codes: jax.Array, scales: jax.Array, maxima: jax.Array) -> jax.Array:
    kind, tail, dtype = static
    lead = scales.shape[:-1]
    codes = codes.reshape(*scales.shape, -1)
    share = scales.astype(jnp.float32).reshape(*maxima.shape, -1) / 255
    scale = (share * share * maxima[..., None]).reshape(scales.shape)[..., None]
    values = codes.astype(jnp.float32) / 127 if kind == "int8" else _levels(codes)
    row = (values * scale).astype(dtype).reshape(*lead, -1)
    return row[..., : math.prod(tail)].reshape(*lead, *tail)


@_undo.defjvp
def _no_derivative(static: Any, primals: Any, tangents: Any) -> Any:
    raise ValueError("quantised parameters do not train: load those that train as float32")


_dequantize = jax.jit(Quantized.dequantize)


def _levels(codes: jax.Array) -> jax.Array:
    """Returns the level of each code, float32[..., 64], of packed codes uint8[..., 32]."""
    shifts = jnp.array([[0], [4]], jnp.uint8)
    bits = (codes[..., None, :] >> shifts) & jnp.uint8(15)
    bits = bits.reshape(*codes.shape[:-1], BLOCK)
    return jnp.take(jnp.array(NF4, jnp.float32), bits.astype(jnp.int32), mode="clip")
