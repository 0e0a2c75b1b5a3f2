"""Surveys data before training: counts, lengths in tokens, duplicates, unreadable images.

result = survey(splits_of("captions.json"), tokenizer, "caption en")
print(result)                         # for people
result.to_dict()                      # for programs
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from paligemma_lib.data.argument_checks import MAX_NUMBER, check_whole
from paligemma_lib.data.encoded import as_jpeg_or_png, upright_size
from paligemma_lib.data.image import decode_image
from paligemma_lib.data.sources import Source
from paligemma_lib.runtime.visible_text import visible
from paligemma_lib.tokenizer import Tokenizer

_SHOWN = 3  # examples in a line
_SIDE = 32  # pixels; images are decoded at full size, then resized to this


@dataclasses.dataclass
class Survey:
    """Result of a survey; its string form is a summary for people.

    Attributes:
      splits: number of images of each split.
      captions: number of captions.
      per_image: number of captions -> number of images with that many captions.
      lengths: number of tokens of each caption with its prompt and EOS, sorted.
      text_len: number of tokens of the longest example with all captions of its image.
      unreadable: record -> why the record or its image cannot be read.
      problems: sentences about what a person should check.
    """

    splits: dict[str, int] = dataclasses.field(default_factory=dict)
    captions: int = 0
    per_image: Counter[int] = dataclasses.field(default_factory=Counter)
    lengths: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    text_len: int = 0
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the survey as values that JSON can represent, without `lengths`."""
        return {
            "images": sum(self.splits.values()),
            "captions": self.captions,
            "splits": {name or "all": count for name, count in self.splits.items()},
            "captions_per_image": {str(k): n for k, n in sorted(self.per_image.items())},
            "text_len": self.text_len,
            "unreadable": self.unreadable,
            "problems": self.problems,
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{name or 'all'} {count:,}" for name, count in self.splits.items())
        each = ", ".join(f"{n:,} with {k}" for k, n in sorted(self.per_image.items())[:6])
        lines = [f"images     {counts}", f"captions   {self.captions:,}; images {each}"]
        if len(self.lengths):
            middle, high, top = np.percentile(self.lengths, (50, 99, 100)).astype(int)
            lines.append(f"tokens     median {middle}, 99 % at most {high}, longest {top}")
            lines.append(f"text_len   {self.text_len} fits all captions of every image")
        if self.unreadable:
            shown = [f"{k}: {why}" for k, why in [*self.unreadable.items()][:_SHOWN]]
            lines.append(f"unreadable {len(self.unreadable):,}: {'; '.join(shown)}")
        lines += [f"check      {problem}" for problem in self.problems]
        return "\n".join(map(visible, lines))


def survey(splits: Mapping[str, Source], tokenizer: Tokenizer, prompt: str) -> Survey:
    """Surveys data: reads every record, decodes every image, and tokenizes every caption.

    Args:
      splits: source of each split, by name.
      tokenizer: tokenizer that counts the tokens.
      prompt: prefix of records that have none of their own.
    """
    result, lengths = Survey(), []
    texts: dict[str, set[str]] = {}  # caption -> splits
    images: dict[bytes, list[str]] = {}  # digest of an image's bytes -> split and id
    repeated = 0
    for split, source in splits.items():
        result.splits[split] = len(source)
        for number in range(len(source)):
            try:
                (record,) = source.read([number])
                decode_image(record.image, _SIDE, dtype="uint8")
            except (ValueError, OSError) as error:
                where = source.where(number)
                result.unreadable[where] = str(error).removeprefix(f"{where}: ")[:200]
                continue
            prefix = len(tokenizer.encode_prefix(record.prefix or prompt))
            own = [len(tokenizer.encode_suffix(caption)) for caption in record.captions]
            lengths += [prefix + length for length in own]
            result.text_len = max(result.text_len, prefix + sum(own))
            result.captions += len(own)
            result.per_image[len(own)] += 1
            repeated += len(record.captions) - len(set(record.captions))
            for caption in record.captions:
                texts.setdefault(caption, set()).add(split)
            # 96 bits tell millions of images apart, and take less memory than the whole hash.
            digest = hashlib.sha256(record.image).digest()[:12]
            images.setdefault(digest, []).append(f"{split}/{record.image_id}".lstrip("/"))
    result.lengths = np.sort(np.array(lengths, np.int64))
    result.problems += _problems(result, texts, images, repeated)
    return result


def record_shown(
    splits: Mapping[str, Source], tokenizer: Tokenizer, prompt: str, number: int
) -> dict[str, Any]:
    """Returns a record, numbered through all splits, with the text and tokens for the model.

    Raises:
      ValueError: there is no record with this number.
    """
    left = check_whole("the number of a record", number, 0, MAX_NUMBER)
    for source in splits.values():
        if 0 <= left < len(source):
            (record,) = source.read([left])
            decode_image(record.image, _SIDE)  # raises ValueError if it cannot be decoded
            prefix = record.prefix or prompt
            return {
                "image_id": record.image_id,
                "where": source.where(left),
                "size": list(upright_size(as_jpeg_or_png(record.image))),
                "prefix": prefix,
                "captions": list(record.captions),
                "tokens": [tokenizer.encode_suffix(caption) for caption in record.captions],
            }
        left -= len(source)
    total = sum(map(len, splits.values()))
    raise ValueError(f"no record {number}: the data has {total:,} records, numbered from 0")


def _problems(
    result: Survey,
    texts: Mapping[str, set[str]],
    images: Mapping[bytes, list[str]],
    repeated: int,
) -> list[str]:
    found = []
    if not sum(result.splits.values()):
        found.append("there are no images")
    if empty := [name or "all" for name, count in result.splits.items() if not count]:
        found.append(f"splits without images: {', '.join(empty)}")
    if bare := result.per_image[0]:
        found.append(f"{bare:,} images have no caption: nothing can be learned from them")
    twins = [names for names in images.values() if len(names) > 1]
    if twins:
        shown = "; ".join(" = ".join(names[:2]) for names in twins[:_SHOWN])
        found.append(f"{len(twins):,} images occur more than once: {shown}")
    named = Counter(name for names in images.values() for name in names)
    if same := [name for name, count in named.items() if count > 1]:
        found.append(
            f"{len(same):,} image ids belong to several images each, which scores would mix up: "
            f"{', '.join(same[:_SHOWN])}"
        )
    if repeated:
        found.append(f"{repeated:,} captions are repeated for the same image")
    shared = sum(len(where) > 1 for where in texts.values())
    if shared:
        found.append(f"{shared:,} captions are in more than one split")
    return found
