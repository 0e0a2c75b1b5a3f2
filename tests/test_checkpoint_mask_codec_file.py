"""Tests of the file of the codec of masks."""

import numpy as np
import pytest
from mask_cases import arrays, write_codec

from paligemma_lib.checkpoint import load_mask_codec
from paligemma_lib.regions import MaskCodec


def test_it_is_read(tmp_path):
    codec = load_mask_codec(write_codec(tmp_path / "vae.npz"))
    codes = np.random.default_rng(0).integers(0, 128, (2, 16))
    np.testing.assert_array_equal(codec.decode(codes), MaskCodec(arrays()).decode(codes))


def test_what_is_wrong_is_told_with_the_file(tmp_path):
    path = write_codec(tmp_path / "vae.npz", **{"decoder.0.bias": None})
    with pytest.raises(ValueError, match=r"vae.npz: .* has no array 'decoder.0.bias'"):
        load_mask_codec(path)
    with pytest.raises(FileNotFoundError):
        load_mask_codec(tmp_path / "absent.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="vae.npz"):
        load_mask_codec(path)


def test_an_absurd_size_is_refused_before_it_is_read(tmp_path):
    path = write_codec(tmp_path / "vae.npz", **{"encoder.x": np.zeros((1 << 13, 1 << 13), "f4")})
    with pytest.raises(ValueError, match="MiB of masks' codec"):
        load_mask_codec(path)
