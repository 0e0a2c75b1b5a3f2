"""Turns texts into token ids as SigLIP was trained on them.

words = SiglipWords(Path("siglip-base-patch16-224"))
words.encode(["A dog!"], length=64)            # int32[1, 64]

Source: big_vision's `pp_ops.tokenize` with its SentencePiece model c4_en, and transformers.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from paligemma_lib.runtime.regular_files import read_bounded

WORDS = "spiece.model"

_MAX_BYTES = 64 << 20
_EOS = 1  # also the padding
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipWords:
    """The tokenizer of SigLIP."""

    def __init__(self, folder: Path) -> None:
        """Reads spiece.model. Raises ValueError if it is none."""
        self._pieces = sentencepiece.SentencePieceProcessor()
        path = folder / WORDS
        try:
            self._pieces.LoadFromSerializedProto(read_bounded(path, _MAX_BYTES))
        except Exception as error:  # of SentencePiece's
            raise ValueError(f"{path} is not a SentencePiece model: copy it again") from error

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return self._pieces.vocab_size()

    def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Returns int32[N, length]: lower-cased words without punctuation, EOS, and EOS again."""
        ids = np.full((len(texts), length), _EOS, np.int32)
        for row, text in zip(ids, texts, strict=True):
            words = " ".join(text.lower().translate(_NO_PUNCTUATION).split())
            tokens = self._pieces.encode(words)[: length - 1]
            row[: len(tokens)] = tokens
        return ids
