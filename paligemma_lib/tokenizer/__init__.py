"""Encodes prefixes and suffixes to token ids with SentencePiece, and decodes them again.

    tokenizer = load("paligemma_tokenizer.model", model_vocab=257_152)
    tokenizer.encode_prefix("caption en")          # [2, 21209, 659, 108]: BOS, text, newline
    tokenizer.encode_suffix("a dog runs .")        # [..., 1]: text, EOS
    tokenizer.decode(ids)                          # text up to the first EOS

The token sequence follows the PaliGemma report (arXiv 2407.07726, section 3.2.2). The newline that
ends a prefix is tokenized on its own, so it never merges with the text before it.
"""

from paligemma_lib.tokenizer.encoding import UNKNOWN, Tokenizer
from paligemma_lib.tokenizer.tokenizer_files import MAX_FILE_BYTES, load
from paligemma_lib.tokenizer.tokenizer_training import train

__all__ = ["MAX_FILE_BYTES", "UNKNOWN", "Tokenizer", "load", "train"]
