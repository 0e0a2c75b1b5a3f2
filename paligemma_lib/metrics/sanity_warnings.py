"""Warns of captions that are too good to be true, or broken in a way that scores do not show.

    sanity_warnings(["a.jpg", "b.jpg"], ["", "a dog"], [[], ["a", "dog"]], references)
    # ("1 of 2 captions (50%) are empty: is EOS the first token of all? First: 'a.jpg'",)

Each limit below names the share found among Flickr8k's human-written captions when each of them is
compared with the other four of its image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from paligemma_lib.metrics.cider import DocumentFrequencies
from paligemma_lib.metrics.constant_captions import best_constant

EQUALS_A_REFERENCE = "equal a reference of their image"  # words that tell this warning from others

_MANY = 0.05  # share of captions; human-written: 0.3 % too long, 0.002 % repeating, 0.02 % cut off
_EXACT = 0.15  # share of captions that equal a reference; human-written: 0.1 %
_SAME = 0.25  # share of captions that are the most frequent one; human-written: 0.02 %
_ENOUGH = 20  # images; with fewer, a share above a limit means little

# One to six words, three or more times in a row: "a dog a dog a dog".
_REPETITION = re.compile(r"(?<!\S)(\S+(?: \S+){0,5})(?: \1){2,}(?!\S)")
_MID_PHRASE = {"a", "an", "the", "of", "and", "with", "their", "his", "is", "are"}
_BROKEN_TEXT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffd]"  # controls, unpaired surrogates, U+FFFD
    "|[\xc2\xc3][\x80-\xbf\u0152-\u2122]|\xe2\u20ac"  # UTF-8 read as Latin-1 or Windows-1252
    r"|&(?:[a-zA-Z]{2,6}|\#\d{2,5});"  # HTML character references
    r"|\u2581|</?s>|<(?:pad|eos|bos|unk|mask|image|loc\d{4}|seg\d{3})>"  # special tokens
)


def sanity_warnings(
    image_ids: Sequence[object],
    captions: Sequence[str],
    tokens: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
) -> tuple[str, ...]:
    """Searches captions and their references for signs of a fault.

    Args:
      image_ids: ids of the images.
      captions: one per image, before tokenization.
      tokens: tokens of each caption.
      references: tokens of each reference of each image.

    Returns:
      One line for each kind of fault found: how many captions, which first, and what to check.
    """
    total = len(captions)
    texts = [" ".join(words) for words in tokens]
    commonest, _ = Counter(texts).most_common(1)[0]
    kinds: list[tuple[float, Callable[[int], object], str]] = [
        (0, lambda i: not tokens[i], "are empty: is EOS the first token of all?"),
        (
            0,
            lambda i: _BROKEN_TEXT.search(captions[i]),
            "contain broken characters, HTML or tokenizer pieces: decode them with the model's "
            "tokenizer, and read files as UTF-8.",
        ),
        (
            _EXACT,
            lambda i: tokens[i] and tokens[i] in references[i],
            f"{EQUALS_A_REFERENCE}: did references leak into the predictions, or these images "
            "into training?",
        ),
        (
            _SAME,
            lambda i: texts[i] and texts[i] == commonest,
            f"are the same, {commonest!r:.80}: does the model see its images?",
        ),
        (
            _MANY,
            lambda i: len(tokens[i]) > 2 * max(map(len, references[i])),
            "are more than twice as long as any reference: did training include EOS, and does "
            "decoding stop there?",
        ),
        (
            _MANY,
            lambda i: _REPETITION.search(texts[i]),
            "repeat the same words: did training include EOS, and does decoding stop there?",
        ),
        (
            _MANY,
            lambda i: tokens[i] and tokens[i][-1] in _MID_PHRASE,
            "end in the middle of a phrase: allow more new tokens.",
        ),
    ]
    found = []
    for limit, is_faulty, what in kinds:
        places = [place for place in range(total) if is_faulty(place)]
        # A limit of 0 means that a single such caption is a fault, however few images there are.
        if len(places) > limit * total and (not limit or total >= _ENOUGH):
            first = ", ".join(repr(image_ids[place]) for place in places[:3])
            share = f"{len(places)} of {total} captions ({len(places) / total:.0%})"
            found.append(f"{share} {what} First: {first}")
    return tuple(found)


def score_warnings(
    cider: float,
    said: Sequence[Sequence[str]],
    told: Sequence[Sequence[Sequence[str]]],
    document_frequencies: DocumentFrequencies,
) -> tuple[str, ...]:
    """Warns of a CIDEr that means little, or that a model reaches without looking at its images.

    Args:
      cider: CIDEr of the corpus.
      said: tokens of each caption.
      told: tokens of each reference of each image.
      document_frequencies: those that the captions were scored with.
    """
    if document_frequencies.images == 1:
        return (
            "CIDEr of a single image is 0: it compares images; score hundreds, or take the "
            "document frequencies of a larger corpus",
        )
    if len(said) < _ENOUGH:
        return ()
    text, value = best_constant(said, told, document_frequencies)
    if cider > value:
        return ()
    return (
        f"CIDEr is {100 * cider:.1f}, not above the {100 * value:.1f} that {text!r:.80} has as the "
        "caption of every image: the model says nothing of its images. Check that the right "
        "checkpoint was loaded, that the prompt and the image size are those of training, and "
        "that training has run for long enough",
    )
