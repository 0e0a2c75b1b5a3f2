"""Defines and checks the batch contract: the arrays that data yields and the model takes.

    check(batch)                             # ValueError that lists every breach
    print(describe(batch, tokenizer))        # the tokens of one example, for a person

A batch is a dict of NumPy arrays. `B` is the number of examples, `T` the number of text positions,
`S` the side of an image in pixels:

    image        float32[B, S, S, 3] in [-1, 1], or uint8[B, S, S, 3], which the device scales
    text         int32[B, T]    prefix, then one or more suffixes, then padding
    segment      int32[B, T]    0 for the prefix, k for the k-th of K suffixes, -1 for padding
    position     int32[B, T]    each suffix continues from the prefix; 0 in padding
    loss_weight  float32[B, T]  weight of the loss of this token; 0 on prefix and padding

An evaluation batch also has

    image_id     str[B]
    valid        bool[B]        False for examples that only fill up the last batch

A prefix consists of BOS, tokens and a newline. A suffix consists of tokens and EOS. The output at
each position predicts the next token of the same suffix. The last position of the prefix predicts
the first token of every suffix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from paligemma_lib.deprecation import former_names

if TYPE_CHECKING:
    from paligemma_lib.tokenizer import Tokenizer

Batch = Mapping[str, np.ndarray]
A = TypeVar("A", bound=Any)  # np.ndarray or jax.Array

# Token ids of PaliGemma's tokenizer. Every `Tokenizer` has the first three; the id of the piece for
# "\n" may differ.
PAD, EOS, BOS, NEWLINE = 0, 1, 2, 108

_FORMS = {  # key -> allowed dtypes, name of each axis; axes of the same name have the same size
    "image": (("float32", "uint8"), "BSSC"),
    "text": (("int32",), "BT"),
    "segment": (("int32",), "BT"),
    "position": (("int32",), "BT"),
    "loss_weight": (("float32",), "BT"),
    "image_id": (("str",), "B"),
    "valid": (("bool",), "B"),
}
_OPTIONAL = {"image_id", "valid"}


def attention_mask(segment: A, position: A, num_image_tokens: int = 0) -> A:
    """Returns the attention mask, bool[..., P + T, P + T]: [i, j] is true where i attends to j.

    Every position attends to the image and the prefix, so image and prefix attend to each other in
    both directions. A token of a suffix also attends to its own suffix up to and including itself.
    No position attends to padding. Padding attends to image and prefix, so that no softmax has an
    empty row. An example with one image token, a prefix of two tokens, and suffixes of two and of
    one:

        segment  [0 0 1 1 2 -1]       image  [1 1 1 0 0 0 0]
        position [0 1 2 3 2  0]       prefix [1 1 1 0 0 0 0]
                                             [1 1 1 0 0 0 0]
                                    suffix 1 [1 1 1 1 0 0 0]
                                             [1 1 1 1 1 0 0]
                                    suffix 2 [1 1 1 0 0 1 0]
                                     padding [1 1 1 0 0 0 0]

    Args:
      segment: int32[..., T], a NumPy or JAX array: 0 prefix, 1..K suffixes, -1 padding.
      position: int32[..., T], which increases within each suffix.
      num_image_tokens: P, the number of image tokens before the text.
    """
    xp = _namespace(segment)
    # Image tokens are treated as part of the prefix: padding in front with zeros gives them segment
    # 0, which all positions attend to. Their position does not matter.
    front = (*((0, 0),) * (segment.ndim - 1), (num_image_tokens, 0))
    segment, position = xp.pad(segment, front), xp.pad(position, front)
    looking, seen = segment[..., :, None], segment[..., None, :]
    past = position[..., None, :] <= position[..., :, None]
    return (seen == 0) | ((seen > 0) & (seen == looking) & past)


def source_positions(segment: A) -> A:
    """Returns int32[..., T]: for each token, the position whose output predicts it.

    This is the previous position. For the first token of a suffix, it is the last position of the
    prefix:

        segment           [0 0 1 1 2 -1]
        source_positions  [0 0 1 2 1  4]

    Tokens that nothing predicts (position 0, padding) also get a valid position, so that the result
    can be used to gather.

    Args:
      segment: int32[..., T], a NumPy or JAX array.
    """
    xp = _namespace(segment)
    before = xp.arange(segment.shape[-1], dtype=segment.dtype) - 1
    last_of_prefix = xp.sum(segment == 0, axis=-1, keepdims=True, dtype=segment.dtype) - 1
    return xp.maximum(xp.where(_starts(segment), last_of_prefix, before), 0)


def check(batch: Batch, *, newline: int = NEWLINE) -> None:
    """Checks a batch against the contract.

    Args:
      batch: dict of NumPy arrays.
      newline: token id of the newline in the tokenizer.

    Raises:
      ValueError: the batch breaks the contract. The message lists every breach, each with its first
        example and position.
    """
    # The rules for the content index the arrays, so they need arrays of the right shapes.
    breaches = list(_breaches_of_form(batch)) or list(_breaches_of_content(batch, newline))
    if breaches:
        raise ValueError("the batch breaks the contract:\n- " + "\n- ".join(breaches))


def describe(batch: Batch, tokenizer: Tokenizer, example: int = 0) -> str:
    """Returns a text table of one example: token, role, segment, weight and mask per position."""
    keys = ("text", "segment", "position", "loss_weight")
    text, segment, position, weight = (np.asarray(batch[key])[example] for key in keys)
    sees, source = attention_mask(segment, position), source_positions(segment)
    title = f"example {example}"
    if "image_id" in batch:
        title += f", image {batch['image_id'][example]}"
    if "valid" in batch and not batch["valid"][example]:
        title += ", not valid: fills up the batch"
    lines = [title, f"{'at':>4} {'id':>6} {'token':<16} {'role':<8} seg  pos weight from sees"]
    padding = segment < 0
    for index in np.flatnonzero(~padding):
        role = "prefix" if segment[index] == 0 else f"suffix {segment[index]}"
        origin = source[index] if segment[index] > 0 else ""
        lines.append(
            f"{index:>4} {text[index]:>6} {tokenizer.piece(int(text[index])):<16} {role:<8} "
            f"{segment[index]:>3} {position[index]:>4} {weight[index]:>6.3f} {origin:>4} "
            f"image {_ranges(np.flatnonzero(sees[index]))}"
        )
    lines.append(f"{padding.sum()} positions of padding")
    return "\n".join(lines)


def _breaches_of_form(batch: Batch) -> Iterator[str]:
    sizes: dict[str, int] = {"C": 3}
    for key, (dtypes, dims) in _FORMS.items():
        if key not in batch:
            if key not in _OPTIONAL:
                yield f"{key!r} is missing; the keys are {sorted(batch)}"
            continue
        array = np.asarray(batch[key])
        dtype = "str" if array.dtype.kind == "U" else array.dtype.name
        if dtype not in dtypes:
            yield f"{key!r} is {dtype}, expected {' or '.join(dtypes)}"
        if array.ndim == len(dims):
            for dim, size in zip(dims, array.shape, strict=True):
                sizes.setdefault(dim, size)
        if array.shape != tuple(sizes.get(dim) for dim in dims) or 0 in array.shape:
            expected = ", ".join(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in dims)
            yield f"{key!r} has shape {array.shape}, expected [{expected}]"


def _breaches_of_content(batch: Batch, newline: int) -> Iterator[str]:
    image, text, segment, position, weight = (
        np.asarray(batch[key]) for key in ("image", "text", "segment", "position", "loss_weight")
    )
    if image.dtype == np.float32:
        peak = np.max(np.abs(image), axis=(1, 2, 3))
        # The tolerance allows for rounding in resizing. NaN <= 1.001 is false, so the negated
        # comparison also finds NaN.
        yield from _found("image values outside [-1, 1]", ~(peak <= 1.001))

    # A segment continues the one before it, or is the next suffix, or is padding. Nothing follows
    # padding. `previous` of position 0 is 0, so the first position must belong to the prefix.
    index = np.broadcast_to(np.arange(text.shape[1]), text.shape)
    previous = np.pad(segment, ((0, 0), (1, 0)), constant_values=0)[:, :-1]
    follows = (segment == -1) | ((segment == previous + 1) & (previous >= 0))
    contiguous = (segment == previous) | (follows & (index > 0))
    yield from _found("segments are not 0, 1, 2, ... in order and then -1 only", ~contiguous)
    whole = np.all(contiguous, axis=1, keepdims=True)  # the rules below assume this

    prefix, suffix, padding = segment == 0, segment > 0, segment == -1
    ends = np.pad(segment, ((0, 0), (0, 1)), constant_values=-1)[:, 1:] != segment
    # The index where the suffix of each position begins:
    #     segment  [0 0 1 1 2 -1]
    #     start    [0 0 2 2 4  4]
    start = np.maximum.accumulate(np.where(_starts(segment), index, 0), axis=1)
    prefix_len = np.sum(prefix, axis=1, keepdims=True)
    expected_position = np.where(suffix, prefix_len + index - start, np.where(prefix, index, 0))
    rules = {
        "the first token is not BOS": (index == 0) & (text != BOS),
        "BOS after the first token": (index > 0) & (text == BOS),
        f"the prefix does not end in the newline ({newline})": prefix & ends & (text != newline),
        "a suffix does not end in EOS": suffix & ends & (text != EOS),
        "EOS before the end of a suffix": (text == EOS) & ~(suffix & ends),
        "a token in padding": padding & (text != PAD),
        "PAD or a negative id as a token": ~padding & (text <= PAD),
        "a position that does not match the segments": position != expected_position,
        "a negative or infinite weight": ~(np.isfinite(weight) & (weight >= 0)),
        "weight on the prefix": prefix & (weight != 0),
        "weight on padding": padding & (weight != 0),
        "EOS is not supervised": suffix & ends & ~(weight > 0),
    }
    for rule, broken in rules.items():
        yield from _found(rule, broken & whole)

    if "valid" in batch:
        valid = np.asarray(batch["valid"])
        yield from _found("weight in an example that is not valid", ~valid[:, None] & (weight != 0))
        after = np.concatenate([[False], valid[1:] & ~valid[:-1]])
        yield from _found("a valid example after one that is not", after)


def _namespace(array: Any) -> Any:
    """Returns numpy or jax.numpy, by the type of the array, so that one function serves both."""
    return array.__array_namespace__()


def _starts(segment: Any) -> Any:
    """Returns bool[..., T], true at the first position of every suffix."""
    xp = _namespace(segment)
    previous = xp.concatenate([segment[..., :1], segment[..., :-1]], axis=-1)
    return (segment > 0) & (segment != previous)


def _found(rule: str, broken: np.ndarray) -> Iterator[str]:
    places = np.argwhere(broken)
    if len(places):
        where = ", position ".join(str(index) for index in places[0])
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield f"{rule}: example {where}{more}"


def _ranges(numbers: np.ndarray) -> str:
    """Formats sorted numbers as ranges: [0, 1, 2, 5] -> "0-2 5"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return " ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs if len(r))


__getattr__ = former_names(__name__, may_see="attention_mask", predicted_from="source_positions")
