"""Lets the visitor choose models and how captions are written, and maps choices to samplers.

names = models(["base", "mine"])    # one, or two to compare
sampler, way = choose()             # widgets; `way` is what is told of it later
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cards
import streamlit as st

if TYPE_CHECKING:  # takes seconds to import, and the page should appear at once
    from paligemma_lib.decode.programs import Strategy

GREEDY, SAMPLING, BEAM = WORDS = ("Greedy", "Sampling", "Beam search")
BEAMS = (2, 4, 8)
VARIETY = {"low": (0.6, 0.9), "medium": (1.0, 0.95), "high": (1.3, 1.0)}  # temperature, top p
USUAL_BEAMS, USUAL_VARIETY = 4, "medium"
LENGTHS = range(8, 65, 8)  # tokens


def sampler_of(words: str, beams: int = USUAL_BEAMS, variety: str = USUAL_VARIETY) -> Strategy:
    """Returns the sampler for these choices. There are only a few: each one is compiled."""
    from paligemma_lib.decode import Beam, Greedy, Sample

    if words == BEAM:
        return Beam(beams)
    if words == SAMPLING:
        temperature, top_p = VARIETY[variety]
        return Sample(temperature, top_p=top_p)
    return Greedy()


def all_samplers() -> list[Strategy]:
    """Returns all samplers that can be chosen: the default first, then the usual ones."""
    usual = [sampler_of(words) for words in (GREEDY, BEAM, SAMPLING)]
    others = [sampler_of(BEAM, beams) for beams in BEAMS]
    others += [sampler_of(SAMPLING, variety=variety) for variety in VARIETY]
    return list(dict.fromkeys(usual + others))


def models(names: Sequence[str]) -> list[str]:
    """Draws the choice of models, if there are several; returns one name, or two to compare."""
    if len(names) == 1:
        return list(names)
    left, right = st.columns(2)
    first = left.selectbox("Model", names, key="model")
    others = [name for name in names if name != first]
    second = right.selectbox(
        "Beside it", others, index=None, placeholder="no other", key="second model"
    )
    return [first] if second is None else [first, second]


def choose() -> tuple[Strategy, cards.Way]:
    """Draws this part of the page; returns the chosen sampler and the settings to show."""
    prompt = st.text_input("Prompt", "caption en", max_chars=200, key="prompt")
    words = st.radio(
        "How words are chosen",
        WORDS,
        horizontal=True,
        key="words",
        help="Greedy takes the likeliest word each time, sampling draws words at random, and beam "
        "search follows several captions at once to find the likeliest ones.",
    )
    beams, variety, told = USUAL_BEAMS, USUAL_VARIETY, "greedy"
    if words == BEAM:
        beams = st.select_slider("Beams", BEAMS, beams, key="beams")
        told = f"beam search, {beams} beams"
    elif words == SAMPLING:
        variety = st.select_slider("Variety", tuple(VARIETY), variety, key="variety")
        told = "sampling, temperature {}, top p {}".format(*VARIETY[variety])
    length = st.select_slider("Longest caption, in tokens", LENGTHS, max(LENGTHS), key="length")
    way = cards.Way(prompt.strip(), told, length, seed=random.randrange(2**31))
    return sampler_of(words, beams, variety), way
