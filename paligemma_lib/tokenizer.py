"""Encodes prefixes and suffixes to token ids with SentencePiece, and decodes them again.

    tokenizer = load("paligemma_tokenizer.model", model_vocab=257_152)
    tokenizer.encode_prefix("caption en")          # [2, 21209, 659, 108]: BOS, text, newline
    tokenizer.encode_suffix("a dog runs .")        # [..., 1]: text, EOS
    tokenizer.decode(ids)                          # text up to the first EOS

The token sequence follows the PaliGemma report (arXiv 2407.07726, section 3.2.2). The newline that
ends a prefix is tokenized on its own, so it never merges with the text before it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable

import sentencepiece

from paligemma_lib.batch import BOS, EOS, PAD
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.regular_files import read_bounded

UNKNOWN = 3
MAX_FILE_BYTES = 64 << 20


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
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(
                f"{name} is not a SentencePiece model; expected the file tokenizer.model or "
                "paligemma_tokenizer.model, not a tokenizer.json"
            ) from error
        self.vocab_size: int = self._pieces.vocab_size()
        self._check_conventions()
        self.newline: int = self._pieces.encode("\n")[0]
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

        A newline that `text` ends in already is not doubled. Control tokens that are spelt in a
        text, such as <eos> or <image>, are encoded as the letters that they are. <loc0000> and
        <seg000> are tokens, as PaliGemma's own prefixes and suffixes have them.
        """
        return [BOS, *self._pieces.encode(text.removesuffix("\n")), self.newline]

    def encode_suffix(self, text: str) -> list[int]:
        """Returns the token ids of a suffix: the tokens of `text`, EOS."""
        return [*self._pieces.encode(text), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids` up to the first EOS, without padding and BOS."""
        kept = []
        for token in map(int, ids):
            if token == EOS:
                break
            if token not in (PAD, BOS):
                kept.append(token)
        return self._pieces.decode(kept)

    def piece(self, token: int) -> str:
        """Returns the piece of a token id, with a newline shown as `\\n`."""
        return self._pieces.id_to_piece(token).replace("\n", "\\n")

    def _check_conventions(self) -> None:
        pieces, name = self._pieces, self.name
        found = (pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id())
        if found != (PAD, EOS, BOS, UNKNOWN):
            raise ValueError(
                f"{name} has the ids pad, eos, bos, unk = {found}, expected "
                f"{(PAD, EOS, BOS, UNKNOWN)}: it is not a PaliGemma or Gemma tokenizer"
            )
        # SentencePiece's defaults would replace the fullwidth letter by "c" (NFKC), merge the two
        # spaces, and put a space in front. With PaliGemma's settings the text stays as it is, but
        # for each space, which becomes U+2581.
        sample = "A  b\N{FULLWIDTH LATIN SMALL LETTER C}"
        if pieces.normalize(sample) != sample.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}"):
            raise ValueError(
                f"{name} changes text: {sample!r} becomes {pieces.normalize(sample)!r}; expected "
                "identity normalization, no dummy prefix and no removal of extra whitespaces"
            )
        # Encoding the newline on its own must give one id, which ends every prefix.
        newline = pieces.encode("\n")
        if len(newline) != 1 or newline[0] == UNKNOWN:
            raise ValueError(
                f"{name} encodes a newline as {newline}, expected one id: train it with "
                r"user_defined_symbols=['\n']"
            )


def train(texts: Iterable[str], vocab_size: int) -> bytes:
    """Trains a tokenizer with PaliGemma's conventions, for a small model of your own.

    Args:
      texts: texts such as the model will read and write. Text with other characters can be encoded
        too: those become bytes.
      vocab_size: number of pieces, of which 260 are special pieces or single bytes.

    Returns:
      A serialized SentencePiece model, for `Tokenizer` or a file. The same texts give the same
      model.

    Raises:
      ValueError: the texts are too small for `vocab_size` pieces, or `vocab_size` is too small.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            # SentencePiece's own defaults are unk 0, bos 1, eos 2 and no padding.
            pad_id=PAD,
            eos_id=EOS,
            bos_id=BOS,
            unk_id=UNKNOWN,
            user_defined_symbols=["\n"],
            byte_fallback=True,
            # The settings that `Tokenizer` checks: text is encoded as it is.
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            num_threads=1,
            minloglevel=2,  # errors only
        )
    except RuntimeError as error:
        raise ValueError(
            f"cannot train a tokenizer of {vocab_size} pieces on these texts ({error}): use fewer "
            "pieces, but more than 260, or more text"
        ) from error
    return model.getvalue()


def load(path: str | os.PathLike[str], model_vocab: int | None = None) -> Tokenizer:
    """Loads a SentencePiece `.model` file.

    Args:
      path: a local path, or one on `gs://`.
      model_vocab: number of rows of the model's token embedding, to check that tokenizer and model
        belong together.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is too large for a tokenizer, or not a SentencePiece model with
        PaliGemma's conventions; see `Tokenizer`.
    """
    path = path_of(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file; expected a SentencePiece model. PaliGemma's comes with its "
            "weights on Kaggle, or from gs://big_vision/paligemma_tokenizer.model"
        )
    try:
        model = read_bounded(path, MAX_FILE_BYTES)
    except ValueError as error:
        raise ValueError(f"{error}: not a tokenizer") from error
    return Tokenizer(model, str(path), model_vocab)
