"""Converts a tokenizer to tokenizer.json, which Hugging Face tokenizers read without SentencePiece.

    path.write_text(json.dumps(tokenizer_json(model_bytes)))

The pieces of a `.model` file are read here: SentencePiece's own classes for that want a newer
protobuf than TensorFlow has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space in pieces

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # types of pieces
_NAMES = ("<pad>", "<eos>", "<bos>", "<unk>")  # of ids 0 to 3, see `batch` and `Tokenizer`
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_PIECES, _PIECE, _SCORE, _TYPE = 1, 1, 2, 3  # fields of ModelProto and of SentencePiece


class Piece(NamedTuple):
    """A piece of the vocabulary; pairs are merged in the order of the scores of their unions."""

    text: str
    score: float
    kind: int


def tokenizer_json(model: bytes) -> dict[str, Any]:
    """Returns the content of a tokenizer.json that encodes and decodes as a SentencePiece model.

    Args:
      model: a BPE model that `Tokenizer` accepts, so one that leaves text as it is.

    Raises:
      ValueError: it is no such model.
    """
    pieces = pieces_of(model)
    # A tokenizer of one's own may have other names for these, such as <s> for the first token.
    pieces[: len(_NAMES)] = [p._replace(text=n) for p, n in zip(pieces, _NAMES, strict=False)]
    ids = {piece.text: number for number, piece in enumerate(pieces)}
    special = {_UNKNOWN, _CONTROL}
    # <image> has the first id after the vocabulary. transformers puts it before the prompt.
    added = [
        *(
            (n, p.text, p.kind in special)
            for n, p in enumerate(pieces)
            if p.kind in special | {_USER_DEFINED}
        ),
        (len(pieces), "<image>", True),
    ]
    begin: dict[str, Any] = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                # Pieces of several spaces are found after spaces have been replaced.
                "normalized": SPACE in text,
                "special": is_special,
            }
            for number, text, is_special in added
        ],
        "normalizer": _replace(" ", SPACE),
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, one],
            "pair": [begin, one, begin, two],
            "special_tokens": {
                "<bos>": {"id": "<bos>", "ids": [ids["<bos>"]], "tokens": ["<bos>"]}
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [_replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": list(_merges(pieces)),
        },
    }


def pieces_of(model: bytes) -> list[Piece]:
    """Returns the pieces of a serialized SentencePiece model, by id.

    Raises:
      ValueError: the bytes are no such model.
    """
    pieces = []
    try:
        for field, value in _fields(model):
            if field == _PIECES and isinstance(value, bytes):
                found = {_SCORE: b"\0\0\0\0", _TYPE: _NORMAL, **dict(_fields(value))}
                (score,) = struct.unpack("<f", found[_SCORE])
                pieces.append(Piece(found[_PIECE].decode(), score, found[_TYPE]))
    except (ValueError, KeyError, IndexError, struct.error, AttributeError, TypeError) as error:
        raise ValueError(f"it is not a SentencePiece model: {error}") from error
    if len(pieces) < len(_NAMES):
        raise ValueError(f"it is not a SentencePiece model: it has {len(pieces)} pieces")
    return pieces


def _merges(pieces: list[Piece]) -> Iterator[list[str]]:
    """Yields each pair of pieces that is merged, the one that is merged first at first.

    SentencePiece merges the two neighbours whose union has the highest score, so a pair has the
    rank of its union. Pairs with the same union never compete; they come in the order of their ids.
    """
    normal = {piece.text: n for n, piece in enumerate(pieces) if piece.kind == _NORMAL}
    ranked = sorted(normal, key=lambda text: (-pieces[normal[text]].score, normal[text]))
    for text in ranked:
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(a, b) for a, b in pairs if a in normal and b in normal]
        for pair in sorted(known, key=lambda pair: (normal[pair[0]], normal[pair[1]])):
            yield [*pair]


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the fields of a protobuf message: their numbers, and an int or bytes each."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if key & 7 == _BYTES:
            size, at = _varint(message, at)
        elif key & 7 in (_FIXED32, _FIXED64):
            size = 4 if key & 7 == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {key & 7} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"it ends within a field at byte {at}")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns a number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise ValueError(f"a number of more than 64 bits ends at byte {at}")
