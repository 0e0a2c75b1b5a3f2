"""Runs the Java programs METEOR and SPICE, or says what is missing to run them.

    result = meteor(references, captions)
    print(result.value if result.reason is None else result.reason)

`pip install pycocoevalcap` installs METEOR with its data. SPICE also needs two files of Stanford
CoreNLP 3.6.0, 0.4 GB, which this module never downloads by itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from paligemma_lib.metrics.caption_checks import ImageId, check_captions
from paligemma_lib.metrics.tokens import tokenize

_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


class JavaScore(NamedTuple):
    """A corpus score in [0, 1], or the reason why it could not be computed; the other is None.

    `per_image` has the score of each image, in the order of the references.
    """

    value: float | None
    reason: str | None
    per_image: tuple[float, ...] = ()


def meteor(
    references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]
) -> JavaScore:
    """Computes METEOR 1.5 (Denkowski and Lavie, 2014) of the corpus.

    It takes 2 GB of memory and some seconds.

    Raises:
      ValueError: in the same cases as `scoring.score`.
    """
    check_captions(references, captions)
    return _score("METEOR", "meteor.meteor", "Meteor", references, captions)


def spice(
    references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]
) -> JavaScore:
    """Computes SPICE 1.0 (Anderson et al., 2016), the mean over images.

    It takes 8 GB of memory and some minutes.

    Raises:
      ValueError: in the same cases as `scoring.score`.
    """
    check_captions(references, captions)
    folder = _package_folder()
    if folder is not None:
        missing = [name for name in _CORENLP if not (folder / "spice" / "lib" / name).is_file()]
        if missing:
            return JavaScore(
                None,
                f"SPICE needs {' and '.join(missing)} in {folder / 'spice' / 'lib'}: "
                "`python -m pycocoevalcap.spice.get_stanford_models` downloads them",
            )
    return _score("SPICE", "spice.spice", "Spice", references, captions)


def _score(
    name: str,
    module: str,
    scorer: str,
    references: Mapping[ImageId, Sequence[str]],
    captions: Mapping[ImageId, str],
) -> JavaScore:
    if _package_folder() is None:
        return JavaScore(None, f"{name} needs pycocoevalcap: pip install pycocoevalcap")
    if shutil.which("java") is None:
        return JavaScore(
            None, f"{name} needs Java: install it, for example by `apt install default-jre`"
        )
    # pycocoevalcap scores tokenized text. Its own tokenizer is the Java program that `tokenize`
    # reproduces, so both inputs are tokenized here and joined by spaces again.
    told = {i: [" ".join(tokenize(text)) for text in group] for i, group in references.items()}
    said = {image_id: [" ".join(tokenize(captions[image_id]))] for image_id in references}
    try:
        imported = importlib.import_module(f"pycocoevalcap.{module}")
        value, values = getattr(imported, scorer)().compute_score(told, said)
        # SPICE gives precision and recall too, of all words and of kinds of words.
        each = (found["All"]["f"] if isinstance(found, dict) else found for found in values)
        return JavaScore(float(value), None, tuple(map(float, each)))
    except Exception as error:
        # A Java program that dies closes its pipe: the wrapper then fails on an empty answer or on
        # the broken pipe, in whatever way.
        return JavaScore(None, f"{name} failed: {type(error).__name__}: {error}")


def _package_folder() -> Path | None:
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
