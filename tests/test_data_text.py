import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.batch import EOS, attention_mask, check, source_positions
from paligemma_lib.data.text import cleaned, pack
from paligemma_lib.tokenizer import load

KEYS = ("text", "segment", "position", "loss_weight")
NEWLINE = 108

tokens = st.lists(st.integers(4, 500).filter(lambda token: token != NEWLINE), max_size=12)
prefixes = tokens.map(lambda ids: [2, *ids, NEWLINE])
suffixes = st.lists(tokens.map(lambda ids: [*ids, EOS]), max_size=6)


def as_batch(row):
    image = np.zeros((1, 2, 2, 3), np.float32)
    return {"image": image, **{key: row[key][None] for key in KEYS}}


def test_the_example_of_the_module():
    row = pack([7, 8], [[5, 6, 1], [9, 1]], 10)
    np.testing.assert_array_equal(row["text"], [7, 8, 5, 6, 1, 9, 1, 0, 0, 0])
    np.testing.assert_array_equal(row["segment"], [0, 0, 1, 1, 1, 2, 2, -1, -1, -1])
    np.testing.assert_array_equal(row["position"], [0, 1, 2, 3, 4, 2, 3, 0, 0, 0])
    third, half = np.float32(1 / 3), 0.5
    expected = [0, 0, third, third, third, half, half, 0, 0, 0]
    np.testing.assert_array_equal(row["loss_weight"], expected)


@settings(deadline=None)
@given(prefixes, suffixes, st.integers(0, 20))
def test_a_packed_row_keeps_the_contract_and_holds_every_suffix_once(prefix, suffixes, spare):
    row = pack(prefix, suffixes, len(prefix) + sum(map(len, suffixes)) + spare)
    check(as_batch(row))
    found = [row["text"][row["segment"] == number].tolist() for number in range(len(suffixes) + 1)]
    assert found == [prefix, *suffixes]


@settings(deadline=None)
@given(prefixes, suffixes)
def test_the_weights_of_each_suffix_sum_to_one(prefix, suffixes):
    row = pack(prefix, suffixes, 200)
    for number in range(1, len(suffixes) + 1):
        assert row["loss_weight"][row["segment"] == number].sum() == pytest.approx(1)
    assert row["loss_weight"].sum() == pytest.approx(len(suffixes))


@settings(deadline=None)
@given(prefixes, suffixes)
def test_a_packed_suffix_sees_exactly_what_it_would_see_alone(prefix, suffixes):
    packed = pack(prefix, suffixes, 200)
    seen = attention_mask(packed["segment"], packed["position"])
    source = source_positions(packed["segment"])

    def view(row, seen, slot):
        """What attention gets: tokens with their positions."""
        return list(zip(row["text"][seen[slot]], row["position"][seen[slot]], strict=True))

    for number, suffix in enumerate(suffixes, start=1):
        alone = pack(prefix, [suffix], 200)
        seen_alone = attention_mask(alone["segment"], alone["position"])
        source_alone = source_positions(alone["segment"])
        slots = zip(
            np.flatnonzero(packed["segment"] == number),
            np.flatnonzero(alone["segment"] == 1),
            strict=True,
        )
        for slot, slot_alone in slots:
            assert view(packed, seen, slot) == view(alone, seen_alone, slot_alone)
            assert packed["loss_weight"][slot] == alone["loss_weight"][slot_alone]
            before, before_alone = source[slot], source_alone[slot_alone]
            assert view(packed, seen, before) == view(alone, seen_alone, before_alone)


def test_text_that_is_too_long_raises_with_both_lengths_and_the_cure():
    with pytest.raises(
        ValueError, match="needs 7 tokens .*text_len is 6. Raise text_len.*truncate"
    ):
        pack([2, 108], [[5, 6, 1], [9, 1]], 6)


@settings(deadline=None)
@given(prefixes, suffixes, st.integers(1, 90))
def test_truncation_keeps_every_suffix_its_beginning_and_eos(prefix, suffixes, text_len):
    if len(prefix) + sum(min(2, len(each)) for each in suffixes) > text_len:
        with pytest.raises(ValueError, match="even when truncated"):
            pack(prefix, suffixes, text_len, truncate=True)
        return
    row = pack(prefix, suffixes, text_len, truncate=True)
    check(as_batch(row))
    kept = [row["text"][row["segment"] == n].tolist() for n in range(1, len(suffixes) + 1)]
    for short, whole in zip(kept, suffixes, strict=True):
        assert short == whole or (short[:-1] == whole[: len(short) - 1] and len(short) < len(whole))
    longest = max(map(len, kept), default=0)
    cut = [len(short) for short, whole in zip(kept, suffixes, strict=True) if short != whole]
    assert all(length == longest for length in cut)  # only the longest are cut, all alike
    if cut:  # and not more than needed
        assert np.sum(row["segment"] == -1) < len(cut)


def test_slot_by_slot_as_the_semantics_say_on_real_captions(shared):
    """One caption per example, in the form the reference model is trained with."""
    tokenizer = load(shared / "tokenizer" / "paligemma_tokenizer_rebuilt.model")
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(shared / "tokenizer" / "paligemma_tokenizer_rebuilt.model")
    )
    with open(shared / "flickr8k" / "captions_all.txt", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)][::20][:2000]
    assert len(captions) == 2000
    text_len = 64
    for caption in captions:
        row = pack(
            tokenizer.encode_prefix("caption en"), [tokenizer.encode_suffix(caption)], text_len
        )
        # BOS + prefix + "\n", then suffix + EOS, then padding with 0.
        prefix = [2, *pieces.encode("caption en"), *pieces.encode("\n")]
        suffix = [*pieces.encode(caption), 1]
        used = len(prefix) + len(suffix)
        pad = [0] * (text_len - used)
        mask_ar = np.array([0] * len(prefix) + [1] * len(suffix) + pad)
        mask_loss = np.array([0] * len(prefix) + [1] * len(suffix) + pad)
        is_input = np.arange(text_len) < used
        np.testing.assert_array_equal(row["text"], prefix + suffix + pad)
        np.testing.assert_array_equal(row["loss_weight"] > 0, mask_loss)
        np.testing.assert_allclose(row["loss_weight"], mask_loss / len(suffix), rtol=1e-6)
        np.testing.assert_array_equal(row["position"][:used], np.arange(used))
        # i attends to j when cumsum(mask_ar)[j] <= cumsum(mask_ar)[i] and j is not padding.
        steps = np.cumsum(mask_ar)
        reference = (steps[None, :] <= steps[:, None]) & is_input[None, :]
        ours = attention_mask(row["segment"], row["position"])
        np.testing.assert_array_equal(ours[:used], reference[:used])
        # The model is fed tokens[:-1] and predicts tokens[1:].
        supervised = np.flatnonzero(mask_loss)
        np.testing.assert_array_equal(source_positions(row["segment"])[supervised], supervised - 1)


def test_captions_are_on_one_line_and_otherwise_as_they_are():
    assert cleaned(" A  dog ,\r\n runs .\n") == "A  dog , runs ."
    assert cleaned("caf\u00e9 <eos>") == "caf\u00e9 <eos>"
