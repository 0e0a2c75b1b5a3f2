import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.batch import attention_mask, check, describe, source_positions
from paligemma_lib.testing import tiny_batch, tiny_tokenizer


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def batch(tokenizer):
    """Two examples with two captions each: prefix in slots 0 to 9, then the suffixes."""
    return tiny_batch(tokenizer, captions=2)


def breaches(batch, tokenizer) -> str:
    with pytest.raises(ValueError, match="the batch breaks the contract") as caught:
        check(batch, newline=tokenizer.newline)
    return str(caught.value)


def ends(batch, number: int, example: int = 0) -> int:
    """The last index of a segment."""
    return int(np.flatnonzero(batch["segment"][example] == number)[-1])


def test_a_batch_as_it_should_be_has_no_breach(batch, tokenizer):
    check(batch, newline=tokenizer.newline)


def test_uint8_images_and_an_example_that_is_not_valid_are_within_the_contract(batch, tokenizer):
    batch["image"] = np.zeros(batch["image"].shape, np.uint8)
    for key, value in {"text": 0, "segment": -1, "position": 0, "loss_weight": 0}.items():
        batch[key][1, 10:] = value  # the prompt alone
    batch["valid"] = np.array([True, False])
    batch["image_id"] = np.array(["a.jpg", ""])
    check(batch, newline=tokenizer.newline)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image", None, "'image' is missing"),
        ("image", np.zeros((2, 32, 32, 3)), "'image' is float64, expected float32 or uint8"),
        ("image", np.zeros((2, 32, 16, 3), np.float32), "'image' has shape"),
        ("image", np.zeros((2, 32, 32, 1), np.float32), "'image' has shape"),
        ("image", np.zeros((3, 32, 32, 3), np.float32), "'text' has shape"),
        ("text", np.zeros((2, 48), np.int64), "'text' is int64, expected int32"),
        ("position", np.zeros((2, 47), np.int32), "'position' has shape"),
        ("loss_weight", np.zeros((2, 48, 1), np.float32), "'loss_weight' has shape"),
        ("valid", np.zeros(2, np.int32), "'valid' is int32, expected bool"),
        ("image_id", np.array([b"a", b"b"]), "'image_id' is bytes8, expected str"),
    ],
)
def test_a_breach_of_form_is_found(batch, tokenizer, key, value, message):
    batch[key] = value
    assert message in breaches({k: v for k, v in batch.items() if v is not None}, tokenizer)


def change_image(b):
    b["image"][1, 5, 6, 2] = 1.01


def lose_a_number(b):
    b["image"][0, 0, 0, 0] = np.nan


def skip_a_segment(b):
    b["segment"][0][b["segment"][0] == 2] = 3


def tear_a_segment(b):
    b["segment"][0, 12] = -1


def begin_with_a_suffix(b):
    b["segment"][0] = np.where(b["segment"][0] >= 0, b["segment"][0] + 1, -1)


def lose_bos(b):
    b["text"][1, 0] = 100


def repeat_bos(b):
    b["text"][1, 3] = 2


def lose_the_newline(b):
    b["text"][0, ends(b, 0)] = 100


def lose_eos(b):
    b["text"][0, ends(b, 1)] = 100


def end_too_early(b):
    b["text"][0, ends(b, 2) - 2] = 1


def write_into_padding(b):
    b["text"][0, -1] = 100


def pad_inside(b):
    b["text"][0, 12] = 0


def be_negative(b):
    b["text"][0, 12] = -5


def count_on(b):
    b["position"][0] = np.where(b["segment"][0] >= 0, np.arange(48), 0)


def place_padding(b):
    b["position"][0, -1] = 47


def weigh_the_prefix(b):
    b["loss_weight"][0, 4] = 0.5


def weigh_padding(b):
    b["loss_weight"][0, -1] = 0.5


def weigh_negatively(b):
    b["loss_weight"][0, 12] = -0.5


def weigh_infinitely(b):
    b["loss_weight"][0, 12] = np.inf


def leave_out_eos(b):
    b["loss_weight"][0, ends(b, 2)] = 0


def supervise_what_is_not_valid(b):
    b["valid"] = np.array([True, False])


def fill_up_in_front(b):
    for key, value in {"text": 0, "segment": -1, "position": 0, "loss_weight": 0}.items():
        b[key][0, 10:] = value
    b["valid"] = np.array([False, True])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_image, "image values outside [-1, 1]: example 1"),
        (lose_a_number, "image values outside [-1, 1]: example 0"),
        (skip_a_segment, "segments are not 0, 1, 2, ... in order and then -1 only: example 0"),
        (tear_a_segment, "segments are not 0, 1, 2, ... in order and then -1 only: example 0"),
        (begin_with_a_suffix, "segments are not 0, 1, 2, ... in order and then -1 only"),
        (lose_bos, "the first token is not BOS: example 1, position 0"),
        (repeat_bos, "BOS after the first token: example 1, position 3"),
        (lose_the_newline, "the prefix does not end in the newline (4): example 0, position 9"),
        (lose_eos, "a suffix does not end in EOS: example 0"),
        (end_too_early, "EOS before the end of a suffix: example 0"),
        (write_into_padding, "a token in padding: example 0, position 47"),
        (pad_inside, "PAD or a negative id as a token: example 0, position 12"),
        (be_negative, "PAD or a negative id as a token: example 0, position 12"),
        (count_on, "a position that does not match the segments: example 0"),
        (place_padding, "a position that does not match the segments: example 0, position 47"),
        (weigh_the_prefix, "weight on the prefix: example 0, position 4"),
        (weigh_padding, "weight on padding: example 0, position 47"),
        (weigh_negatively, "a negative or infinite weight: example 0, position 12"),
        (weigh_infinitely, "a negative or infinite weight: example 0, position 12"),
        (leave_out_eos, "EOS is not supervised: example 0"),
        (supervise_what_is_not_valid, "weight in an example that is not valid: example 1"),
        (fill_up_in_front, "a valid example after one that is not: example 1"),
    ],
)
def test_a_breach_of_content_is_found_and_only_that_one(batch, tokenizer, damage, message):
    damage(batch)
    found = breaches(batch, tokenizer)
    assert message in found
    assert found.count("\n- ") == 1


def test_all_breaches_are_listed(batch, tokenizer):
    lose_bos(batch)
    weigh_padding(batch)
    leave_out_eos(batch)
    assert breaches(batch, tokenizer).count("\n- ") == 3


segments = st.lists(st.integers(1, 4), min_size=1, max_size=5).flatmap(
    lambda lengths: st.integers(0, 3).map(
        lambda padding: (
            [n for n, length in enumerate(lengths) for _ in range(length)] + [-1] * padding
        )
    )
)


@settings(deadline=None)
@given(segments)
def test_a_token_sees_the_prefix_and_its_own_past(segments):
    segment = np.array(segments, np.int32)
    starts = {number: segments.index(number) for number in segments}
    prefix = segments.count(0)
    position = np.array(
        [
            index if n == 0 else prefix + index - starts[n] if n > 0 else 0
            for index, n in enumerate(segments)
        ]
    )
    seen = attention_mask(segment, position)
    for i, mine in enumerate(segments):
        for j, other in enumerate(segments):
            expected = other == 0 or (other == mine > 0 and j <= i)
            assert seen[i, j] == expected, (i, j)


@settings(deadline=None)
@given(segments)
def test_the_first_token_of_every_suffix_is_predicted_from_the_end_of_the_prefix(segments):
    source = source_positions(np.array(segments, np.int32))
    for index, number in enumerate(segments):
        if number > 0:
            first = segments[index - 1] != number
            assert source[index] == (segments.count(0) - 1 if first else index - 1)


def test_describe_says_of_each_position_what_it_is_and_what_it_sees(batch, tokenizer):
    batch["image_id"] = np.array(["a.jpg", "b.jpg"])
    lines = describe(batch, tokenizer).splitlines()
    assert lines[0] == "example 0, image a.jpg"
    assert lines[11].split() == ["9", "4", "\\n", "prefix", "0", "9", "0.000", "image", "0-9"]
    first, second = (ends(batch, number) + 1 for number in (0, 1))
    length = second - first
    row = lines[2 + second].split()
    weight = f"{batch['loss_weight'][0, second]:.3f}"
    assert row[0] == str(second) and row[3:] == [
        *("suffix", "2", "2", "10", weight, "9", "image", "0-9", str(second))
    ]
    assert lines[2 + second - 1].split()[-1] == f"0-{second - 1}" and length > 1
    assert lines[-1] == f"{(batch['segment'][0] == -1).sum()} positions of padding"
