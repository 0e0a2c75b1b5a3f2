"""SentencePiece text for PaliGemma: prefix and suffix to token ids, and back.

    tokenizer = load("paligemma_tokenizer.model", model_vocab=257_152)
    tokenizer.encode_prefix("caption en")          # [2, 21209, 659, 108]: BOS, text, newline
    tokenizer.encode_suffix("a dog runs .")        # [..., 1]: text, EOS
    tokenizer.decode(ids)                          # text up to the first EOS

The sequence is that of the PaliGemma report (arXiv 2407.07726, section 3.2.2): the newline that
ends a prefix is tokenized on its own.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable

import sentencepiece

from paligemma_lib.batch import BOS, EOS, PAD
from paligemma_lib.runtime.atomic import path_of

UNKNOWN = 3
_MAX_FILE_BYTES = 64 << 20


class Tokenizer:
    """A SentencePiece model that keeps PaliGemma's conventions.

    Attributes:
      vocab_size: number of pieces.
      newline: id of the piece for a newline.
    """

    def __init__(self, model: bytes, name: str = "tokenizer", model_vocab: int | None = None):
        """Checks the conventions.

        Args:
          model: a serialized SentencePiece model.
          name: what error messages call it.
          model_vocab: rows of the model's token embedding, if known.

        Raises:
          ValueError: not a SentencePiece model, special ids other than PaliGemma's, text changed
            on the way to pieces, or more pieces than the model has rows.
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
        """The SentencePiece model, as a file holds it."""
        return self._pieces.serialized_model_proto()

    def check_fits(self, model_vocab: int) -> None:
        """Raises ValueError unless every token id has a row among the model's `model_vocab`."""
        if self.vocab_size != model_vocab:
            raise ValueError(
                f"{self.name} has {self.vocab_size} pieces, the model's vocabulary has "
                f"{model_vocab}: they do not belong together. PaliGemma 1 and 2 need the "
                "tokenizer with 257152 pieces; a model of your own needs its own tokenizer."
            )

    def encode_prefix(self, text: str) -> list[int]:
        """BOS, the tokens of `text`, newline."""
        return [BOS, *self._pieces.encode(text), self.newline]

    def encode_suffix(self, text: str) -> list[int]:
        """The tokens of `text`, EOS."""
        return [*self._pieces.encode(text), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first EOS, without padding and BOS."""
        kept = []
        for token in map(int, ids):
            if token == EOS:
                break
            if token not in (PAD, BOS):
                kept.append(token)
        return self._pieces.decode(kept)

    def piece(self, token: int) -> str:
        """The piece with this id, as a person reads it."""
        return self._pieces.id_to_piece(token).replace("\n", "\\n")

    def _check_conventions(self) -> None:
        pieces, name = self._pieces, self.name
        found = (pieces.pad_id(), pieces.eos_id(), pieces.bos_id(), pieces.unk_id())
        if found != (PAD, EOS, BOS, UNKNOWN):
            raise ValueError(
                f"{name} has the ids pad, eos, bos, unk = {found}, expected "
                f"{(PAD, EOS, BOS, UNKNOWN)}: it is not a PaliGemma or Gemma tokenizer"
            )
        # Case, compatibility forms and repeated spaces must all survive, and nothing be added.
        sample = "A  b\N{FULLWIDTH LATIN SMALL LETTER C}"
        if pieces.normalize(sample) != sample.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}"):
            raise ValueError(
                f"{name} changes text: {sample!r} becomes {pieces.normalize(sample)!r}; expected "
                "identity normalization, no dummy prefix and no removal of extra whitespaces"
            )
        newline = pieces.encode("\n")
        if len(newline) != 1 or newline[0] == UNKNOWN:
            raise ValueError(
                f"{name} encodes a newline as {newline}, expected one id: train it with "
                r"user_defined_symbols=['\n']"
            )


def train(texts: Iterable[str], vocab_size: int) -> bytes:
    """Trains a tokenizer with PaliGemma's conventions, for a small model of one's own.

    Args:
      texts: what the model will read and write. Other text is encoded too, byte by byte.
      vocab_size: number of pieces, of which 260 are special or single bytes.

    Returns:
      A SentencePiece model, for `Tokenizer` or a file. The same texts give the same one.

    Raises:
      ValueError: the texts do not hold as many pieces.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            pad_id=PAD,
            eos_id=EOS,
            bos_id=BOS,
            unk_id=UNKNOWN,
            user_defined_symbols=["\n"],
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"no tokenizer of {vocab_size} pieces can be made of these texts ({error}): take fewer "
            "pieces, but more than 260, or more text"
        ) from error
    return model.getvalue()


def load(path: str | os.PathLike[str], model_vocab: int | None = None) -> Tokenizer:
    """Loads a SentencePiece `.model` file.

    Args:
      path: a local file, or one on `gs://`.
      model_vocab: rows of the model's token embedding, to check that the two belong together.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is no SentencePiece model with PaliGemma's conventions; see `Tokenizer`.
    """
    path = path_of(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file; expected a SentencePiece model. PaliGemma's comes with its "
            "weights on Kaggle, or from gs://big_vision/paligemma_tokenizer.model"
        )
    with path.open("rb") as file:
        model = file.read(_MAX_FILE_BYTES + 1)
    if len(model) > _MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {_MAX_FILE_BYTES >> 20} MiB: not a tokenizer")
    return Tokenizer(model, str(path), model_vocab)
