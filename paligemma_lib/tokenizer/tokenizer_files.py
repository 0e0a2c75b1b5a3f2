"""Loads tokenizers from files, which are untrusted.

tokenizer = load("paligemma_tokenizer.model", model_vocab=257_152)
"""

import os
from pathlib import Path

from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.tokenizer.encoding import Tokenizer

MAX_FILE_BYTES = 64 << 20


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


def check_has_model(folder: Path) -> None:
    """Raises ValueError if a folder has a tokenizer.json, but no tokenizer.model beside it."""
    if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise ValueError(
            f"{folder} has the tokenizer as tokenizer.json, the format of Hugging Face tokenizers, "
            "which is not read: copy tokenizer.model, of the model from which this one was made, "
            "beside it"
        )
