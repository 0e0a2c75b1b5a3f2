"""Turns the <seg> codes of a mask into pixels, and pixels into codes, by PaliGemma's VQ-VAE.

codec = MaskCodec(arrays)                     # of big_vision's vae-oid.npz, see `load_mask_codec`
pixels = codec.decode([region.mask])          # float32[1, 64, 64], above 0 where the thing is
codes = codec.encode(pixels > 0)              # int32[1, 16], each 0 to 127

A mask fills its box: 64 x 64 pixels, whatever the box's size. It is small enough for NumPy.
Source: big_vision's `pp.proj.paligemma.segmentation`, whose file has PyTorch's names and layouts;
the decoder is that of arXiv 2301.02229.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

SIDE = 64  # pixels of a mask, height and width
CODES, CODEBOOK = 16, 128  # codes of a mask, a grid of 4 x 4; how many there are

_GRID = 4
_EMBEDDING = "_vq_vae._embedding"
_HALVINGS, _RESIDUALS = 4, 2
# Places of layers that halve and double, in PyTorch's sequences, where each ReLU has one as well.
_ENCODER = [2 * n for n in range(_HALVINGS)]
_DECODER = [2 * _RESIDUALS + 2 * n for n in range(_HALVINGS)]
_MOST_CHANNELS = 4096
_BATCH = 32  # masks computed at a time: a text may name a thousand


class MaskCodec:
    """Both halves of the VQ-VAE."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Checks the arrays.

        Args:
          arrays: by name: `_vq_vae._embedding` [128, D], and `weight` and `bias` of each layer of
            `encoder` and `decoder`, a convolution's weight as [out, in, height, width], a
            transposed one's as [in, out, height, width].

        Raises:
          ValueError: an array is missing, has another shape, or holds NaN or infinite values.
        """
        self._arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        book = self._checked(_EMBEDDING, (CODEBOOK, None))
        width = book.shape[1]
        channels = 1
        for place in _ENCODER:
            channels = self._check_layer(f"encoder.{place}", channels, 4)
        for n in range(_RESIDUALS):
            self._check_residual(f"encoder.{2 * _HALVINGS + n}.net", channels)
        self._check_layer(f"encoder.{2 * _HALVINGS + _RESIDUALS}", channels, 1, width)
        channels = self._check_layer("decoder.0", width, 1)
        for n in range(_RESIDUALS):
            self._check_residual(f"decoder.{2 + n}.net", channels)
        for place in _DECODER:
            channels = self._check_layer(f"decoder.{place}", channels, 4, transposed=True)
        self._check_layer(f"decoder.{2 * _RESIDUALS + 2 * _HALVINGS}", channels, 1, 1)

    def decode(self, codes: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Returns float32[N, 64, 64], above 0 where the thing is, for int[N, 16] codes.

        Raises:
          ValueError: there are not 16 codes each, or one is not 0 to 127.
        """
        codes = np.asarray(codes)
        if codes.size == 0:
            return np.zeros((0, SIDE, SIDE), np.float32)
        if codes.ndim != 2 or codes.shape[1] != CODES or codes.dtype.kind not in "iu":
            raise ValueError(f"codes {codes.shape}: expected whole numbers [N, {CODES}]")
        if codes.min() < 0 or codes.max() >= CODEBOOK:
            raise ValueError(f"codes from {codes.min()} to {codes.max()}: expected 0 to 127")
        return _in_batches(self._pixels, codes)

    def _pixels(self, codes: np.ndarray) -> np.ndarray:
        x = self._arrays[_EMBEDDING][codes].reshape(len(codes), _GRID, _GRID, -1)
        x = _relu(self._conv("decoder.0", x))
        for n in range(_RESIDUALS):
            x = self._residual(f"decoder.{2 + n}.net", x)
        for place in _DECODER:
            x = _relu(self._doubled(f"decoder.{place}", x))
        return self._conv(f"decoder.{2 * _RESIDUALS + 2 * _HALVINGS}", x)[..., 0]

    def encode(self, masks: np.ndarray) -> np.ndarray:
        """Returns int32[N, 16] codes of masks bool or float[N, 64, 64], 1 where the thing is.

        Raises:
          ValueError: the masks have another shape, or values outside of 0 to 1.
        """
        x = np.asarray(masks, np.float32)
        if x.ndim != 3 or x.shape[1:] != (SIDE, SIDE):
            raise ValueError(f"masks {x.shape}: expected [N, {SIDE}, {SIDE}]")
        if x.size and not (x.min() >= 0 and x.max() <= 1):  # NaN neither
            raise ValueError(f"masks from {x.min()} to {x.max()}: expected 0 to 1")
        return _in_batches(self._nearest, x) if len(x) else np.zeros((0, CODES), np.int32)

    def _nearest(self, masks: np.ndarray) -> np.ndarray:
        x = 2 * masks[..., None] - 1
        for place in _ENCODER:
            x = _relu(self._conv(f"encoder.{place}", x, stride=2))
        for n in range(_RESIDUALS):
            x = self._residual(f"encoder.{2 * _HALVINGS + n}.net", x)
        x = self._conv(f"encoder.{2 * _HALVINGS + _RESIDUALS}", x)
        book = self._arrays[_EMBEDDING]
        x = x.reshape(-1, book.shape[1])
        # The nearest of the codebook: |x - e|^2 without |x|^2, which is the same for all e.
        distances = (book**2).sum(1) - 2 * x @ book.T
        return distances.argmin(1).astype(np.int32).reshape(len(masks), CODES)

    def _conv(self, layer: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        """Convolves [N, H, W, C]; zeros around it keep its size, or halve it with a stride of 2."""
        weight, bias = self._arrays[f"{layer}.weight"], self._arrays[f"{layer}.bias"]
        return _correlate(x, weight, (weight.shape[2] - 1) // 2, stride) + bias

    def _doubled(self, layer: str, x: np.ndarray) -> np.ndarray:
        """A transposed convolution by 4 x 4 with stride 2 and padding 1: [N, 2 H, 2 W, out].

        It adds x[i] w[k] to y[2 i - 1 + k]. So an even row y[2 m] is x[m - 1] w[3] + x[m] w[1], an
        odd one y[2 m + 1] is x[m] w[2] + x[m + 1] w[0], and columns likewise.
        """
        weight, bias = self._arrays[f"{layer}.weight"], self._arrays[f"{layer}.bias"]
        _, height, width, _ = x.shape
        around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        out = np.empty((len(x), 2 * height, 2 * width, weight.shape[1]), np.float32)
        taps = ([3, 1], [2, 0])  # of even and of odd ones
        for row in (0, 1):
            for column in (0, 1):
                part = around[:, row : row + height + 1, column : column + width + 1]
                kernel = weight[:, :, taps[row]][..., taps[column]]
                out[:, row::2, column::2] = _correlate(part, kernel.swapaxes(0, 1), 0)
        return out + bias

    def _residual(self, layers: str, x: np.ndarray) -> np.ndarray:
        inner = _relu(self._conv(f"{layers}.0", x))
        return x + self._conv(f"{layers}.4", _relu(self._conv(f"{layers}.2", inner)))

    def _check_residual(self, layers: str, channels: int) -> None:
        for place, side in ((0, 3), (2, 3), (4, 1)):
            self._check_layer(f"{layers}.{place}", channels, side, channels)

    def _check_layer(
        self,
        layer: str,
        channels: int,
        side: int,
        out: int | None = None,
        transposed: bool = False,
    ) -> int:
        """Checks a layer of so many channels in; returns those that come out."""
        ends = (channels, out) if transposed else (out, channels)
        weight = self._checked(f"{layer}.weight", (*ends, side, side))
        out = weight.shape[1 if transposed else 0]
        self._checked(f"{layer}.bias", (out,))
        return out

    def _checked(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        array = self._arrays.get(name)
        if array is None:
            raise ValueError(f"the masks' codec has no array {name!r}: expected vae-oid.npz")
        sizes = array.shape
        fits = len(sizes) == len(shape) and all(
            0 < got <= _MOST_CHANNELS and want in (None, got)
            for got, want in zip(sizes, shape, strict=True)
        )
        if not fits:
            told = ["?" if want is None else want for want in shape]
            raise ValueError(
                f"{name} of the masks' codec has shape {[*sizes]}, expected "
                f"[{', '.join(map(str, told))}]"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} of the masks' codec holds NaN or infinite values")
        return array


def _in_batches(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    parts = [function(rows[first : first + _BATCH]) for first in range(0, len(rows), _BATCH)]
    return np.concatenate(parts)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _correlate(x: np.ndarray, weight: np.ndarray, padding: int, stride: int = 1) -> np.ndarray:
    """Correlates [N, H, W, in] with [out, in, height, width]."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, around), weight.shape[2:], (1, 2))
    return np.tensordot(windows[:, ::stride, ::stride], weight, ((3, 4, 5), (1, 2, 3)))
