"""Loads tokenizers from files, which are untrusted.

tokenizer = load("paligemma_tokenizer.model", model_vocab=257_152)
"""

import os

from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.tokenizer.encoding import Tokenizer
from paligemma_lib.tokenizer.json_reading import model_of_json

MAX_FILE_BYTES = 64 << 20


def load(path: str | os.PathLike[str], model_vocab: int | None = None) -> Tokenizer:
    """Loads a SentencePiece `.model` file, or a `tokenizer.json` that says the same.

    Args:
      path: a local path, or one on `gs://`.
      model_vocab: number of rows of the model's token embedding, to check that tokenizer and model
        belong together.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is too large for a tokenizer, or not a SentencePiece model with
        PaliGemma's conventions, see `Tokenizer`; or a `.json` file is of another kind, see
        `json_reading`.
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
    if path.suffix == ".json":
        try:
            model = model_of_json(model)
        except ValueError as error:
            raise ValueError(
                f"{path} is not a tokenizer of PaliGemma's kind: {error}. Name the tokenizer of "
                "the model from which this one was made: --tokenizer FILE, "
                "--config.model.tokenizer=FILE or pg.load(..., tokenizer_path=FILE)"
            ) from error
    return Tokenizer(model, str(path), model_vocab)
