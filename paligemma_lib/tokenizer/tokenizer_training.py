"""Trains tokenizers with PaliGemma's conventions, for small models.

model = train(captions, vocab_size=1024)
"""

import io
from collections.abc import Iterable

import sentencepiece

from paligemma_lib.batch import BOS, EOS, PAD
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.tokenizer.encoding import UNKNOWN

_MOST = 2**31 - 1  # SentencePiece counts pieces in 32 bits


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
    vocab_size = whole("tokenizer.train: vocab_size", vocab_size, 1, _MOST)
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
