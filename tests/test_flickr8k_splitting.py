import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flickr8k_tfds.splitting import SPLITS, check_fractions, hashed_split, official_splits

DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_official_splits_have_their_published_sizes():
    counts = collections.Counter(official_splits().values())
    assert counts == {"train": 6000, "validation": 1000, "test": 1000, "unused": 91}


def test_official_splits_are_those_of_the_original_lists(shared):
    for split, original in [("train", "train"), ("validation", "dev"), ("test", "test")]:
        path = shared / "flickr8k" / "uiuc_text" / f"Flickr_8k.{original}Images.txt"
        ours = {name for name, of in official_splits().items() if of == split}
        assert ours == set(path.read_text().split())


@given(DIGEST, st.floats(0, 1))
def test_a_larger_share_keeps_what_a_split_had(digest, share):
    small = hashed_split(digest, {"train": share / 2, "test": 1 - share / 2})
    large = hashed_split(digest, {"train": share, "test": 1 - share})
    assert not (small == "train" and large == "test")


@given(DIGEST)
def test_a_split_without_a_share_gets_nothing(digest):
    assert hashed_split(digest, {"train": 0.0, "validation": 1.0, "test": 0.0}) == "validation"


@given(DIGEST, st.permutations(SPLITS[:3]))
def test_the_order_of_the_fractions_does_not_matter(digest, order):
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert hashed_split(digest, {name: shares[name] for name in order}) == hashed_split(
        digest, shares
    )


def test_shares_are_met():
    digests = [f"{i * 2654435761 % 2**32:08x}" + "0" * 56 for i in range(10_000)]
    counts = collections.Counter(hashed_split(d, {"train": 0.8, "test": 0.2}) for d in digests)
    assert counts["train"] == pytest.approx(8000, abs=100)


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.9},
        {"train": 1.5, "test": -0.5},
        {"training": 1.0},
        {"train": float("nan")},
        {},
        ["train"],
    ],
)
def test_bad_fractions(fractions):
    with pytest.raises(ValueError, match="fractions"):
        check_fractions(fractions)
