"""Our codec of masks and PyTorch's layers, whose weights its file holds, compute the same."""

import mask_cases
import numpy as np
import pytest

from paligemma_lib.regions import MaskCodec

torch = pytest.importorskip("torch", reason="needs transformers and torch")
nn = torch.nn


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        one, two, three = (nn.Conv2d(channels, channels, k, padding=k // 2) for k in (3, 3, 1))
        self.net = nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), three)

    def forward(self, x):
        return x + self.net(x)


def theirs(arrays):
    """The two halves as PyTorch's sequences; places of layers are names of arrays."""
    channels, width = arrays["encoder.10.weight"].shape[1], mask_cases.WIDTH
    halving = [
        layer
        for before in (1, channels, channels, channels)
        for layer in (nn.Conv2d(before, channels, 4, 2, 1), nn.ReLU())
    ]
    encoder = nn.Sequential(
        *halving, Residual(channels), Residual(channels), nn.Conv2d(channels, width, 1)
    )
    doubling = [
        layer
        for before, after in ((channels, channels), (channels, 4), (4, 4), (4, 2))
        for layer in (nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU())
    ]
    decoder = nn.Sequential(
        *(nn.Conv2d(width, channels, 1), nn.ReLU()),
        *(Residual(channels), Residual(channels)),
        *doubling,
        nn.Conv2d(2, 1, 1),
    )
    for name, half in (("encoder.", encoder), ("decoder.", decoder)):
        state = {
            key.removeprefix(name): torch.from_numpy(array)
            for key, array in arrays.items()
            if key.startswith(name)
        }
        half.load_state_dict(state)  # strict: no array is left over, none is missing
    return encoder, decoder


@pytest.mark.parametrize("seed", range(3))
def test_pixels_and_codes_are_theirs(seed):
    arrays = mask_cases.arrays(seed)
    encoder, decoder = theirs(arrays)
    rng = np.random.default_rng(seed)
    masks = (rng.random((13, 8, 8)) > 0.5).repeat(8, axis=1).repeat(8, axis=2)
    with torch.no_grad():
        found = encoder(torch.from_numpy(masks[:, None].astype(np.float32)) * 2 - 1)
        vectors = found.permute(0, 2, 3, 1).reshape(-1, mask_cases.WIDTH)
        book = vectors[:128]  # so that many of its entries are the nearest to something
        nearest = torch.cdist(vectors, book).argmin(1).reshape(-1, 16)
        codes = rng.integers(0, 128, (5, 16))
        grid = book[torch.from_numpy(codes)].reshape(5, 4, 4, -1).permute(0, 3, 1, 2)
        pixels = decoder(grid)[:, 0].numpy()
    codec = MaskCodec(arrays | {"_vq_vae._embedding": book.numpy()})
    np.testing.assert_allclose(codec.decode(codes), pixels, atol=1e-5)
    np.testing.assert_array_equal(codec.encode(masks), nearest.numpy())
    assert len(np.unique(nearest)) > 100
