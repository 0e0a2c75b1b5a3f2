"""Reads and writes the pieces of a SentencePiece model, a message of protobuf.

pieces = pieces_of(model_bytes)
model_bytes = model_of(pieces)                   # with PaliGemma's conventions

SentencePiece's own classes for that want a newer protobuf than TensorFlow has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space in pieces
NAMES = ("<pad>", "<eos>", "<bos>", "<unk>")  # of ids 0 to 3, see `batch` and `Tokenizer`

NORMAL, UNKNOWN_PIECE, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # types of pieces

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_PIECE, _SCORE, _TYPE = 1, 2, 3  # fields of SentencePiece
# Fields of TrainerSpec, with the values of a BPE model that knows bytes and PaliGemma's names.
_BPE: Mapping[int, int | str | bytes] = {
    3: 2, 35: 1, 40: 3, 41: 2, 42: 1, 43: 0, 45: "<unk>", 46: "<bos>", 47: "<eos>", 48: "<pad>"
}  # fmt: skip
# Fields of NormalizerSpec: no dummy prefix, no removal of extra whitespaces, spaces are escaped.
_IDENTITY: Mapping[int, int | str | bytes] = {1: "identity", 3: 0, 4: 0, 5: 1}


class Piece(NamedTuple):
    """A piece of the vocabulary; pairs are merged in the order of the scores of their unions."""

    text: str
    score: float
    kind: int


def pieces_of(model: bytes) -> list[Piece]:
    """Returns the pieces of a serialized SentencePiece model, by id.

    Raises:
      ValueError: the bytes are no such model.
    """
    pieces = []
    try:
        for field, value in _fields(model):
            if field == _PIECES and isinstance(value, bytes):
                found = {_SCORE: b"\0\0\0\0", _TYPE: NORMAL, **dict(_fields(value))}
                (score,) = struct.unpack("<f", found[_SCORE])
                pieces.append(Piece(found[_PIECE].decode(), score, found[_TYPE]))
    except (ValueError, KeyError, IndexError, struct.error, AttributeError, TypeError) as error:
        raise ValueError(f"it is not a SentencePiece model: {error}") from error
    if len(pieces) < len(NAMES):
        raise ValueError(f"it is not a SentencePiece model: it has {len(pieces)} pieces")
    return pieces


def model_of(pieces: Sequence[Piece]) -> bytes:
    """Returns the serialized SentencePiece model of these pieces, which leaves text as it is."""
    model = b"".join(
        _message(
            _PIECES,
            {_PIECE: piece.text, _SCORE: struct.pack("<f", piece.score), _TYPE: piece.kind},
        )
        for piece in pieces
    )
    return model + _message(_TRAINER, _BPE) + _message(_NORMALIZER, _IDENTITY)


def _message(number: int, fields: Mapping[int, int | str | bytes]) -> bytes:
    """Returns a message as a field of another: of its fields, bytes are 32 bits wide."""
    content = b""
    for field, value in fields.items():
        if isinstance(value, int):
            content += bytes([*_as_varint(field << 3 | _VARINT), *_as_varint(value)])
        elif isinstance(value, bytes):
            content += bytes([field << 3 | _FIXED32]) + value
        else:
            text = value.encode()
            content += bytes([*_as_varint(field << 3 | _BYTES), *_as_varint(len(text))]) + text
    return bytes([number << 3 | _BYTES, *_as_varint(len(content))]) + content


def _as_varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


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
