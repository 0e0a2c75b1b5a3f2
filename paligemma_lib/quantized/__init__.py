"""Stores frozen matrices in 8 or 4 bits: one array type, undone where a layer is read.

    stored = quantize(rows, "nf4", "bfloat16")       # Quantized, of float[N, ...] on the host
    stored.shape, stored.dtype, stored.nbytes        # as of the array that it stands for
    weights = stored.dequantize()                    # bfloat16[N, ...]

Each row of axis 0 (a layer of a stack, a token of the vocabulary) is quantised on its own, so that
layers and chunks of tokens can be cut out. A row is flattened into blocks of 64 values, and each
block has a scale, its largest magnitude:

    int8   value = code / 127 * scale, for whole codes from -127 to 127
    nf4    value = NF4[code] * scale, for 16 levels, denser where weights are; two codes in a byte

The scales are quantised too (double quantisation): up to 256 of them share a float32, their
maximum, and each is a byte, scale = maximum * (byte / 255)**2. The square makes the bytes finer
where scales are small, as they are beside a block with an outlier. So a value takes 8.13 or 4.13
bits. NF4 and double quantisation are QLoRA's (arXiv 2305.14314).
"""

from paligemma_lib.quantized.array_type import (
    KINDS,
    Kind,
    Quantized,
    abstract,
    dequantized,
    is_quantized,
    stored_as,
)
from paligemma_lib.quantized.quantizing import quantize

__all__ = [
    "KINDS",
    "Kind",
    "Quantized",
    "abstract",
    "dequantized",
    "is_quantized",
    "quantize",
    "stored_as",
]
