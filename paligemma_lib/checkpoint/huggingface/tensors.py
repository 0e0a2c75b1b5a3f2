"""Maps every tensor of a Hugging Face checkpoint to its part of a parameter.

for tensor in all_tensors(config):
    params[tensor.parameter][tensor.index] = tensor.from_stored(stored[tensor.name])

Names are those of the files on the Hub, which every version of transformers reads. `canonical_name`
converts the names that other versions write to these names.

A PyTorch linear layer stores [out, in], with the heads flattened, and a convolution stores OIHW.
Every layer has tensors of its own; the reference stacks all layers along axis 0.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from paligemma_lib.checkpoint.configuration import POSITION_EMBEDDING
from paligemma_lib.checkpoint.matching import expected_shapes
from paligemma_lib.model.variants import PaliGemmaConfig

EMBEDDING = "llm/embedder/input_embedding"
LM_HEAD = "lm_head.weight"

# The id of `<image>` is the first after the vocabulary, so files hold one more row for it, padded
# to a multiple of 64: 257,152 + 64 = 257,216 rows.
VOCABULARY_PADDING = 64

_VISION = "vision_tower.vision_model."
_LANGUAGE = "language_model.model."
_WRAPPERS = re.compile(r"^(module\.|base_model\.model\.)+")
_BUFFER = re.compile(r"(^|\.)(position_ids|rotary_emb\.(original_)?inv_freq)$")

# A transposition reads along one axis and writes along the other. In blocks that fit the cache,
# reads and writes both move whole cache lines.
_ROWS = 256  # rows of a block: long enough runs of reads and writes
_BLOCK_BYTES = 1 << 20  # bytes of a block, so that it stays in a processor's cache
_CACHE_LINE = 64  # bytes

# For each axis of the tensor, the axes of the parameter that are flattened into it.
Axes = tuple[tuple[int, ...], ...]
_VECTOR: Axes = ((0,),)
_MATRIX: Axes = ((0,), (1,))
_TRANSPOSED: Axes = ((1,), (0,))
_HEADS: Axes = ((0, 1),)  # [N, H] -> [N * H]
_WIDTH_HEADS: Axes = ((1, 2), (0,))  # [D, N, H] -> [N * H, D]
_HEADS_WIDTH: Axes = ((0, 2), (1,))  # [N, D, H] -> [N * H, D]
_HEADS_OUT: Axes = ((2,), (0, 1))  # [N, H, D] -> [D, N * H]
_CONVOLUTION: Axes = ((3,), (2,), (0,), (1,))  # HWIO -> OIHW
_POSITIONS: Axes = ((0, 1), (2,))  # [1, P, D] -> [P, D]

_BLOCK = "img/Transformer/encoderblock/"
_ATTENTION = _BLOCK + "MultiHeadDotProductAttention_0/"
_MLP = _BLOCK + "MlpBlock_0/"
_LAYER = "llm/layers/"

# Rows are: parameter; index in its axes after the layer axis; tensor, where {} is the layer; axes.
_TABLE: tuple[tuple[str, tuple[int, ...], str, Axes], ...] = (
    ("img/embedding/kernel", (), _VISION + "embeddings.patch_embedding.weight", _CONVOLUTION),
    ("img/embedding/bias", (), _VISION + "embeddings.patch_embedding.bias", _VECTOR),
    (POSITION_EMBEDDING, (), _VISION + "embeddings.position_embedding.weight", _POSITIONS),
    *(
        (f"{_BLOCK}LayerNorm_{k}/{ours}", (), f"{_VISION}encoder.layers.{{}}.{theirs}", _VECTOR)
        for k in (0, 1)
        for ours, theirs in (
            ("scale", f"layer_norm{k + 1}.weight"),
            ("bias", f"layer_norm{k + 1}.bias"),
        )
    ),
    *(
        (f"{_ATTENTION}{ours}", (), f"{_VISION}encoder.layers.{{}}.self_attn.{theirs}", axes)
        for ours, theirs, axes in (
            ("query/kernel", "q_proj.weight", _WIDTH_HEADS),
            ("query/bias", "q_proj.bias", _HEADS),
            ("key/kernel", "k_proj.weight", _WIDTH_HEADS),
            ("key/bias", "k_proj.bias", _HEADS),
            ("value/kernel", "v_proj.weight", _WIDTH_HEADS),
            ("value/bias", "v_proj.bias", _HEADS),
            ("out/kernel", "out_proj.weight", _HEADS_OUT),
            ("out/bias", "out_proj.bias", _VECTOR),
        )
    ),
    *(
        (
            f"{_MLP}Dense_{k}/{ours}",
            (),
            f"{_VISION}encoder.layers.{{}}.mlp.fc{k + 1}.{theirs}",
            axes,
        )
        for k in (0, 1)
        for ours, theirs, axes in (("kernel", "weight", _TRANSPOSED), ("bias", "bias", _VECTOR))
    ),
    ("img/Transformer/encoder_norm/scale", (), _VISION + "post_layernorm.weight", _VECTOR),
    ("img/Transformer/encoder_norm/bias", (), _VISION + "post_layernorm.bias", _VECTOR),
    ("img/head/kernel", (), "multi_modal_projector.linear.weight", _TRANSPOSED),
    ("img/head/bias", (), "multi_modal_projector.linear.bias", _VECTOR),
    (EMBEDDING, (), _LANGUAGE + "embed_tokens.weight", _MATRIX),
    *(
        (f"{_LAYER}{ours}", place, f"{_LANGUAGE}layers.{{}}.{theirs}", axes)
        for ours, place, theirs, axes in (
            ("attn/q_einsum/w", (), "self_attn.q_proj.weight", _HEADS_WIDTH),
            ("attn/kv_einsum/w", (0,), "self_attn.k_proj.weight", _HEADS_WIDTH),
            ("attn/kv_einsum/w", (1,), "self_attn.v_proj.weight", _HEADS_WIDTH),
            ("attn/attn_vec_einsum/w", (), "self_attn.o_proj.weight", _HEADS_OUT),
            ("mlp/gating_einsum", (0,), "mlp.gate_proj.weight", _TRANSPOSED),
            ("mlp/gating_einsum", (1,), "mlp.up_proj.weight", _TRANSPOSED),
            ("mlp/linear", (), "mlp.down_proj.weight", _TRANSPOSED),
            ("pre_attention_norm/scale", (), "input_layernorm.weight", _VECTOR),
        )
    ),
    ("llm/final_norm/scale", (), _LANGUAGE + "norm.weight", _VECTOR),
)

# `post_attention_layernorm` is the norm before the MLP in Gemma, and after attention in Gemma 2.
_NORMS = {
    False: {"pre_ffw_norm": "post_attention_layernorm"},
    True: {
        "post_attention_norm": "post_attention_layernorm",
        "pre_ffw_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint, which holds `params[parameter][index]` in another layout.

    `shape` is the shape of `params[parameter][index]`.
    """

    name: str
    parameter: str
    index: tuple[int, ...]
    shape: tuple[int, ...]
    axes: Axes

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the file."""
        return tuple(math.prod(self.shape[axis] for axis in group) for group in self.axes)

    def from_stored(self, values: np.ndarray) -> np.ndarray:
        """Returns a view of `shape` on contiguous `values` of `stored_shape`."""
        # For [N * H, D] of a parameter [D, N, H], axes are ((1, 2), (0,)): reshape to [N, H, D],
        # then invert the order [1, 2, 0] by its argsort, [2, 0, 1]. No value is copied.
        order = [axis for group in self.axes for axis in group]
        return values.reshape([self.shape[axis] for axis in order]).transpose(np.argsort(order))

    def strips(self, out: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields `(offset, view)` of strips that follow one another in the file and cover `out`.

        `out` has `shape`. The offset counts values from the start of the tensor.
        """
        view = out.transpose([axis for group in self.axes for axis in group])
        if view.flags.c_contiguous:
            yield 0, view
            return
        # For [D, N, H] in a file of [N * H, D], `view` is [N, H, D]. Each head [H, D] is cut into
        # strips of rows, which threads can read independently.
        heads = view.shape[: len(self.axes[0]) - 1]
        first = 0
        for index in np.ndindex(heads):
            rows = view[index]
            for start in range(0, len(rows), _ROWS):
                strip = rows[start : start + _ROWS]
                yield first, strip
                first += strip.size


def all_tensors(config: PaliGemmaConfig) -> list[Tensor]:
    """Returns every tensor of a checkpoint of this model, without padding of the vocabulary."""
    shapes = expected_shapes(config)
    norms = tuple(
        (f"{_LAYER}{ours}/scale", (), f"{_LANGUAGE}layers.{{}}.{theirs}.weight", _VECTOR)
        for ours, theirs in _NORMS[config.language.post_norms].items()
    )
    tensors = []
    for parameter, place, name, axes in _TABLE + norms:
        shape = shapes[parameter]
        indices = [(layer, *place) for layer in range(shape[0])] if "{}" in name else [place]
        tensors += [
            Tensor(name.format(*index[:1]), parameter, index, shape[len(index) :], axes)
            for index in indices
        ]
    return tensors


def canonical_name(name: str) -> str | None:
    """Returns the name on the Hub for the name that any version of transformers has written.

    What wraps a model, such as torch.compile or peft, puts prefixes before all names; they are left
    out. None: not a parameter but a buffer, which is made anew from the sizes of the model.
    """
    name = _WRAPPERS.sub("", name.replace("_orig_mod.", ""))
    if _BUFFER.search(name):
        return None
    # `model.language_model.layers.0...` becomes `language_model.model.layers.0...`, and
    # `vision_tower.encoder...` becomes `vision_tower.vision_model.encoder...`.
    name = name.removeprefix("model.")
    if re.fullmatch(r"(language_model\.)?lm_head\.weight", name):
        return LM_HEAD
    name = re.sub(r"^vision_tower\.(?!vision_model\.)", _VISION, name)
    return re.sub(r"^language_model\.(?!model\.)", _LANGUAGE, name)


def copy(values: np.ndarray, out: np.ndarray) -> None:
    """Assigns `out[...] = values`, several times faster if it transposes contiguous `values`.

    Each block is copied to memory whose rows are an odd number of cache lines apart, and transposed
    from there. At distances of a power of two, as rows of weights often have them, the values of a
    column would evict one another from the cache.
    """
    if values.ndim < 2 or out.flags.c_contiguous:
        out[...] = values
        return
    # A cache line's number modulo a power of two selects its set in the cache. Rows of 2,048
    # float32 are 128 lines apart: with 64 sets, a column would use a single set. An odd distance
    # has no common factor with the number of sets, so a column uses all of them.
    row = values[0, 0].size
    columns = max(1, _BLOCK_BYTES // (min(len(values), _ROWS) * row * values.itemsize))
    padding = _CACHE_LINE // values.itemsize
    for top in range(0, len(values), _ROWS):
        for left in range(0, values.shape[1], columns):
            part = (slice(top, top + _ROWS), slice(left, left + columns))
            block = values[part]
            size = block.shape[1] * row
            lines = -(-size // padding) | 1  # rounded up, then to an odd number
            padded = np.empty((len(block), lines * padding), values.dtype)
            # Splitting the last axis makes a view, so the assignment fills `padded` in place.
            padded = padded[:, :size].reshape(block.shape)
            padded[...] = block
            out[part] = padded
