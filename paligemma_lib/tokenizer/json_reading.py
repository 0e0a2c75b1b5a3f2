"""Converts a tokenizer.json, of Hugging Face tokenizers, to the SentencePiece model that it states.

    model = model_of_json(path.read_bytes())        # ids are the same, for any text

Merges are the scores of SentencePiece by another name: it merges the two neighbours whose union has
the highest score, and any that have a union. So the merges of a tokenizer that was made of a
SentencePiece model are all pairs of pieces whose union is a piece, by unions. Where they are not,
no scores say the same, and the file is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from paligemma_lib.runtime.bounds import shown
from paligemma_lib.runtime.stand_ins import stand_in
from paligemma_lib.runtime.visible_text import visible
from paligemma_lib.tokenizer.sentencepiece_model import (
    BYTE,
    CONTROL,
    NAMES,
    NORMAL,
    SPACE,
    UNKNOWN_PIECE,
    USER_DEFINED,
    Piece,
    model_of,
)

_IMAGE = "<image>"  # the first id after the vocabulary; it is no piece
_NORMALIZER = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
# After the normalizer no space is left to split at.
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
_PRE_TOKENIZERS = (None, {**_SPLIT, "invert": False})
_MODEL = {
    "type": ("BPE",),
    "unk_token": ("<unk>",),
    "byte_fallback": (True,),
    "dropout": (None,),
    "ignore_merges": (None, False),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_IS_BYTE = re.compile("<0x[0-9A-F]{2}>")
_MAX_PIECE = 256  # characters; PaliGemma's have 31 at most


def model_of_json(data: bytes) -> bytes:
    """Returns the serialized SentencePiece model that encodes as a tokenizer.json does.

    Control tokens that are spelt in a text are letters, see `Tokenizer`.

    Args:
      data: the file, of a size that the caller has bounded. It is not trusted.

    Raises:
      ValueError: it is no JSON of this form, or a tokenizer of another kind than Gemma's: BPE that
        falls back to bytes and leaves text as it is.
    """
    content = _parsed(data)
    model = content.get("model")
    if not isinstance(model, dict):
        raise ValueError("it has no model")
    for name, expected in _MODEL.items():
        _check(f"model.{name}", model.get(name), expected)
    _check("normalizer", content.get("normalizer"), [_NORMALIZER])
    _check("pre_tokenizer", content.get("pre_tokenizer"), _PRE_TOKENIZERS)
    texts = _texts(model.get("vocab"))
    kinds = _kinds(texts, content.get("added_tokens"))
    scores = _scores(model.get("merges"), {text for text in texts if kinds[text] == NORMAL})
    return model_of([Piece(text, scores.get(text, 0.0), kinds[text]) for text in texts])


def _parsed(data: bytes) -> dict[str, Any]:
    if told := stand_in(data[:64]):
        raise ValueError(told)
    try:
        content = json.loads(data)
    except Exception as error:  # ValueError, UnicodeDecodeError, RecursionError, MemoryError, ...
        raise ValueError(f"it is no JSON: {visible(str(error))[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def _check(name: str, found: Any, expected: Iterable[Any]) -> None:
    if found not in expected:
        wanted = " or ".join(map(repr, expected))
        raise ValueError(f"{name} is {shown(found)}, expected {wanted}")


def _texts(vocab: Any) -> list[str]:
    """Returns the pieces by id."""
    if not isinstance(vocab, dict) or not all(type(number) is int for number in vocab.values()):
        raise ValueError("model.vocab is no object of ids by piece")
    texts = sorted(vocab, key=vocab.__getitem__)
    if [vocab[text] for text in texts] != list(range(len(texts))):
        raise ValueError("model.vocab leaves ids out, or has some twice")
    if tuple(texts[: len(NAMES)]) != NAMES:
        found = visible(", ".join(texts[: len(NAMES)]))[:100]
        raise ValueError(f"its first pieces are {found}, expected {', '.join(NAMES)}")
    if texts[-1] == _IMAGE:
        texts.pop()
    # transformers writes a tab in place of its byte. A tab is encoded as that byte.
    before, tab, after = _BYTES[8:11]
    if tab not in vocab and "\t" in vocab:
        at = vocab["\t"]
        if texts[at - 1] == before and texts[at + 1 : at + 2] == [after]:
            texts[at] = tab
    if missing := {*_BYTES} - {*texts}:
        raise ValueError(f"its vocabulary lacks the byte {min(missing)}")
    if any(not 0 < len(text) <= _MAX_PIECE for text in texts):
        raise ValueError(f"a piece is empty, or longer than {_MAX_PIECE} characters")
    if any("\ud800" <= character <= "\udfff" for character in {*"".join(texts)}):
        raise ValueError("a piece has half of a character, a surrogate without the other")
    return texts


def _kinds(texts: list[str], added: Any) -> dict[str, int]:
    """Returns what each piece is."""
    kinds = {text: BYTE if _IS_BYTE.fullmatch(text) else NORMAL for text in texts}
    if not isinstance(added, list) or not all(isinstance(each, dict) for each in added):
        raise ValueError("added_tokens are no list of objects")
    for each in added:
        number, text = each.get("id"), each.get("content")
        if number == len(texts) and text == _IMAGE:
            continue
        if type(number) is not int or not 0 <= number < len(texts) or texts[number] != text:
            raise ValueError(f"it adds the token {shown(text)}, which the model does not have")
        if any(each.get(name) for name in ("single_word", "lstrip", "rstrip")) and number >= 4:
            raise ValueError(f"its token {visible(text)[:100]} is found by what stands beside it")
        if kinds[text] == NORMAL:
            kinds[text] = USER_DEFINED
    return {**kinds, **dict.fromkeys(NAMES, CONTROL), "<unk>": UNKNOWN_PIECE}


def _scores(merges: Any, normal: set[str]) -> Mapping[str, float]:
    """Returns the score of each piece that a merge makes: the earlier, the higher.

    A merge of a piece that is not normal never takes place, since text is cut at such pieces first.
    """
    found: dict[str, set[str]] = {}
    last = ""
    if not isinstance(merges, list):
        raise ValueError("model.merges is no list")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [*map(type, pair)] != [str, str]:
            raise ValueError(f"model.merges has {shown(merge)}, which is no pair")
        union = "".join(pair)
        if union not in normal:
            continue
        if union in found and union != last:
            raise ValueError(f"its merges to {visible(union)[:100]} do not follow one another")
        found.setdefault(union, set()).add(pair[0])
        last = union
    for text in normal:
        firsts = {text[:cut] for cut in range(1, len(text))}
        pairs = {first for first in firsts if first in normal and text[len(first) :] in normal}
        # SentencePiece begins with all characters, those too that are no pieces.
        if pairs != found.get(text, set()) or not normal.issuperset(text):
            raise ValueError(f"its merges to {visible(text)[:100]} are not those of SentencePiece")
    return {union: -float(rank) for rank, union in enumerate(found)}
