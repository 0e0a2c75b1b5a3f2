"""Converts a tokenizer to tokenizer.json, which Hugging Face tokenizers read without SentencePiece.

    path.write_text(json.dumps(tokenizer_json(model_bytes)))

`json_reading` does the reverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paligemma_lib.tokenizer.sentencepiece_model import (
    CONTROL,
    NAMES,
    NORMAL,
    SPACE,
    UNKNOWN_PIECE,
    USER_DEFINED,
    Piece,
    pieces_of,
)


def tokenizer_json(model: bytes) -> dict[str, Any]:
    """Returns the content of a tokenizer.json that encodes and decodes as a SentencePiece model.

    Args:
      model: a BPE model that `Tokenizer` accepts, so one that leaves text as it is.

    Raises:
      ValueError: it is no such model.
    """
    pieces = pieces_of(model)
    # A tokenizer of one's own may have other names for these, such as <s> for the first token.
    pieces[: len(NAMES)] = [p._replace(text=n) for p, n in zip(pieces, NAMES, strict=False)]
    ids = {piece.text: number for number, piece in enumerate(pieces)}
    special = {UNKNOWN_PIECE, CONTROL}
    # <image> has the first id after the vocabulary. transformers puts it before the prompt.
    added = [
        *(
            (n, p.text, p.kind in special)
            for n, p in enumerate(pieces)
            if p.kind in special | {USER_DEFINED}
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


def _merges(pieces: list[Piece]) -> Iterator[list[str]]:
    """Yields each pair of pieces that is merged, the one that is merged first at first.

    SentencePiece merges the two neighbours whose union has the highest score, so a pair has the
    rank of its union. Pairs with the same union never compete; they come in the order of their ids.
    """
    normal = {piece.text: n for n, piece in enumerate(pieces) if piece.kind == NORMAL}
    ranked = sorted(normal, key=lambda text: (-pieces[normal[text]].score, normal[text]))
    for text in ranked:
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(a, b) for a, b in pairs if a in normal and b in normal]
        for pair in sorted(known, key=lambda pair: (normal[pair[0]], normal[pair[1]])):
            yield [*pair]


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}
