"""Defines the tokenizer: text to token ids, and back.

tokenizer = Tokenizer(model_bytes)
tokenizer.encode_prefix("caption en"), tokenizer.decode(ids)
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import sentencepiece

from paligemma_lib.batch import BOS, EOS, PAD
from paligemma_lib.runtime.stand_ins import stand_in

UNKNOWN = 3
_CONTROL = re.compile("<(?:image|bos|eos|pad)>")

# SentencePiece's defaults would replace the fullwidth letter by "c" (NFKC), merge the two spaces,
# and put a space in front.
_SAMPLE = "A  b\N{FULLWIDTH LATIN SMALL LETTER C}"


class Tokenizer:
    """A SentencePiece tokenizer with PaliGemma's conventions.

    Attributes:
      vocab_size: number of pieces.
      newline: token id of the piece for a newline.
    """

    def __init__(self, model: bytes, name: str = "tokenizer", model_vocab: int | None = None):
        """Loads a serialized model and checks that it follows the conventions.

        Args:
          model: a serialized SentencePiece model.
          name: name of the tokenizer in error messages.
          model_vocab: number of rows of the model's token embedding, if known.

        Raises:
          ValueError: `model` is not a SentencePiece model, its special ids are not PaliGemma's, it
            normalizes text, a newline is not one piece, or its number of pieces is not
            `model_vocab`.
        """
        self.name = name
        self._pieces, normalized, newline = _parsed(model, name)
        self.vocab_size: int = self._pieces.vocab_size()
        self._check_conventions(normalized, newline)
        self.newline: int = newline[0]
        if model_vocab is not None:
            self.check_fits(model_vocab)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size})"

    def serialized(self) -> bytes:
        """Returns the SentencePiece model as the bytes of a `.model` file."""
        return self._pieces.serialized_model_proto()

    def check_fits(self, model_vocab: int) -> None:
        """Raises ValueError unless the number of pieces equals `model_vocab`."""
        if self.vocab_size != model_vocab:
            raise ValueError(
                f"{self.name} has {self.vocab_size} pieces, the model's vocabulary has "
                f"{model_vocab}: they do not belong together. PaliGemma 1 and 2 need the "
                "tokenizer with 257152 pieces; a model of your own needs its own tokenizer."
            )

    def encode_prefix(self, text: str) -> list[int]:
        """Returns the token ids of a prefix: BOS, the tokens of `text`, newline.

        Line breaks that `text` ends in are left out. <loc0000> and <seg000> are tokens, as
        PaliGemma's own prefixes and suffixes have them.

        Raises:
          ValueError: the text spells a control token. Other programs write <image> and <bos> into a
            prompt; here they are added. Spelt out, they would be encoded as letters that the model
            has never seen.
        """
        tokens = self._encode(text, "the prompt")
        if found := _CONTROL.search(text):
            raise ValueError(
                f"the prompt {text!r:.60} has {found[0]}: leave it out; the image, the beginning "
                "and the end of a prompt are marked without it"
            )
        if text.endswith(("\n", "\r")):
            tokens = self._encode(text.rstrip("\r\n"), "the prompt")
        return [BOS, *tokens, self.newline]

    def encode_suffix(self, text: str) -> list[int]:
        """Returns the token ids of a suffix: the tokens of `text`, EOS.

        Control tokens that are spelt in it are letters. Raises ValueError for text that is not
        Unicode.
        """
        return [*self._encode(text, "the text"), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids` up to the first EOS, without padding and BOS.

        A character may take several tokens, one for each byte. One that is incomplete at the end,
        as where a caption is cut off, is left out. Raises ValueError for ids out of range.
        """
        kept = []
        for token in map(int, ids):
            if token == EOS:
                break
            if not 0 <= token < self.vocab_size:
                raise ValueError(
                    f"{self.name}: token id {token}, expected 0 to {self.vocab_size - 1}"
                )
            if token not in (PAD, BOS):
                kept.append(token)
        return self._pieces.decode(kept[: len(kept) - self._incomplete(kept)])

    def piece(self, token: int) -> str:
        """Returns the piece of a token id, with a newline shown as `\\n`."""
        return self._pieces.id_to_piece(token).replace("\n", "\\n")

    def _encode(self, text: str, what: str) -> list[int]:
        if not isinstance(text, str):
            raise ValueError(f"{what} is of type {type(text).__name__}, expected str")
        try:
            return list(self._pieces.encode(text))
        except Exception as error:  # of SentencePiece's, for what UTF-8 cannot hold
            raise ValueError(
                f"{what} {text!r:.60} is not Unicode: it has unpaired surrogates, as text has that "
                "was decoded wrongly"
            ) from error

    def _incomplete(self, ids: list[int]) -> int:
        """Returns how many tokens at the end begin a character of UTF-8 that does not end."""
        for count in range(1, min(3, len(ids)) + 1):
            if not self._pieces.is_byte(ids[-count]):
                return 0
            byte = int(self._pieces.id_to_piece(ids[-count])[3:5], 16)  # of <0xE4>
            if byte >= 0xC0:  # the first byte says how many there are
                return count if count < 2 + (byte >= 0xE0) + (byte >= 0xF0) else 0
            if byte < 0x80:
                return 0
        return 0

    def _check_conventions(self, normalized: str, newline: list[int]) -> None:
        pieces, name = self._pieces, self.name
        found = (pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id())
        if found != (PAD, EOS, BOS, UNKNOWN):
            raise ValueError(
                f"{name} has the ids pad, eos, bos, unk = {found}, expected "
                f"{(PAD, EOS, BOS, UNKNOWN)}: it is not a PaliGemma or Gemma tokenizer"
            )
        # With PaliGemma's settings text stays as it is, but for spaces, which become U+2581.
        if normalized != _SAMPLE.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}"):
            raise ValueError(
                f"{name} changes text: {_SAMPLE!r} becomes {normalized!r}; expected "
                "identity normalization, no dummy prefix and no removal of extra whitespaces"
            )
        # Encoding the newline on its own must give one id, which ends every prefix.
        if len(newline) != 1 or newline[0] == UNKNOWN:
            raise ValueError(
                f"{name} encodes a newline as {newline}, expected one id: train it with "
                r"user_defined_symbols=['\n']"
            )


def _parsed(model: bytes, name: str) -> tuple[sentencepiece.SentencePieceProcessor, str, list[int]]:
    """Returns the parsed model, `_SAMPLE` normalized, and the ids of a newline."""
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(model)
        pieces.id_to_piece(list(range(pieces.vocab_size())))  # fails unless all are UTF-8
        return pieces, pieces.normalize(_SAMPLE), pieces.encode("\n")
    except Exception as error:  # RuntimeError, UnicodeDecodeError, ...: the file is untrusted
        told = stand_in(model[:64]) or "not a tokenizer.json"
        raise ValueError(
            f"{name} is not a SentencePiece model; expected the file tokenizer.model or "
            f"paligemma_tokenizer.model, {told}"
        ) from error
