"""Draws the button, captions while they are written, and the history of this visitor.

    ask_or_stop(models, images, sampler, way, codec)
    heading()
    newest()                        # in a fragment that runs every POLL seconds while `asked`
    earlier()

`st.session_state` holds `asked` (the pending request), `results` (a group for each image, newest
first), `batch` (how many of them the last request gave), `problem` (a message), and `visitor`.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import asking
import cards
import streamlit as st
from uploads import Upload

if TYPE_CHECKING:  # it takes seconds to import, and the page should appear at once
    from paligemma_lib.decode.programs import Strategy
    from paligemma_lib.regions import MaskCodec

MAX_HISTORY = 50  # images of a visit whose captions stay
POLL = 0.5  # seconds between updates of a caption that is being written


def begin() -> None:
    """Initializes the session state at the start of a visit."""
    state = st.session_state
    state.setdefault("asked", None)  # asking.Asked | None
    state.setdefault("results", [])  # list[tuple[cards.Result, ...]]
    state.setdefault("batch", 0)
    state.setdefault("problem", "")
    state.setdefault("visitor", secrets.token_hex(8))


def ask_or_stop(
    models: Mapping[str, asking.Model],
    images: Sequence[Upload],
    sampler: Strategy,
    way: cards.Way,
    codec: MaskCodec | None,
) -> None:
    """Draws the button, which starts a request, or stops the pending one.

    Args:
      models: those to ask, by name.
      images: those to caption.
      sampler, way: how, for the models and for people.
      codec: draws the masks of captions; None: boxes alone are drawn.
    """
    if asked := st.session_state.asked:
        st.button("Stop", on_click=asked.cancel, width="stretch", key="stop")
        return
    number = len(images)
    label = f"Caption {number} images" if number > 1 else "Caption the image"
    # No callback: its arguments would be the images and settings from when the button was drawn,
    # not the present ones.
    if st.button(
        label if number else "Choose an image first",
        type="primary",
        disabled=not number or any(each.engine.problem for each in models.values()),
        width="stretch",
        key="ask",
    ):
        _ask(models, images, sampler, way, codec)
        st.rerun()
    if st.session_state.problem:
        st.html(cards.message(st.session_state.problem, problem=True))


def heading() -> None:
    """Draws the heading and the buttons for all captions, or a hint if there are none."""
    state = st.session_state
    if not state.results and not state.asked:
        st.html(cards.nothing_yet())
        return
    with st.container(horizontal=True, vertical_alignment="center", key="heading"):
        st.html('<h2 class="section">Captions of this visit</h2>')
        if state.results:
            flat = [result for group in state.results for result in group]
            st.download_button(
                "CSV",
                cards.table(flat),
                "captions.csv",
                "text/csv",
                icon=":material/download:",
                on_click="ignore",
                help="All captions of this visit as a table",
            )
            st.download_button(
                "JSON",
                cards.document(flat),
                "captions.json",
                "application/json",
                icon=":material/download:",
                on_click="ignore",
                help="The same with alternatives and settings",
            )
            st.button("Clear", on_click=state.results.clear, key="clear")


def newest() -> None:
    """Draws the captions that are being written, or those of the last request, in one place."""
    state = st.session_state
    bar = st.empty()
    asked: asking.Asked | None = state.asked
    if asked is None:
        for number, group in enumerate(state.results[: state.batch]):
            _card(f"new {number}", group, [cards.answer(each) for each in group])
        return
    progress = asked.look()
    groups = asked.groups(progress)
    if progress.stage == "over":
        # The encoded images are dropped: the history shows only previews.
        kept = [
            tuple(
                dataclasses.replace(each, image=dataclasses.replace(each.image, encoded=b""))
                for each in group
            )
            for group in groups
        ]
        state.results = (kept + state.results)[:MAX_HISTORY]
        state.batch = len(kept)
        state.asked = None
        st.rerun()
    bar.progress(progress.done / len(groups), stage_of(progress))
    for number, (group, answers) in enumerate(zip(groups, progress.answers, strict=True)):
        if any(answer.over or answer.text for answer in answers):
            bodies = [
                cards.answer(result) if given.over else cards.writing(result, given.text)
                for result, given in zip(group, answers, strict=True)
            ]
            _card(f"new {number}", group, bodies)


def earlier() -> None:
    """Draws the captions of earlier requests."""
    state = st.session_state
    for number, group in enumerate(state.results[0 if state.asked else state.batch :]):
        _card(f"old {number}", group, [cards.answer(each) for each in group])


def copying() -> None:
    """Lets the buttons beside captions copy them; the script is the page's own, and constant."""
    script = Path(__file__).with_name("copy.js").read_text("utf-8")
    st.html(f"<script>{script}</script>", unsafe_allow_javascript=True)


def stage_of(progress: asking.Progress) -> str:
    """Returns a line for the visitor on the progress of the request."""
    count = len(progress.answers)
    number = f"Image {min(progress.done + 1, count)} of {count}"
    if progress.stage == "loading":
        return f"{number}: the model is being loaded"
    if progress.stage == "compiling":
        return f"{number}: the model is being compiled for these settings, once"
    if progress.stage == "waiting" and progress.ahead:
        others = "other image comes" if progress.ahead == 1 else "other images come"
        return f"{number}: {progress.ahead} {others} first"
    return number


def _ask(
    models: Mapping[str, asking.Model],
    images: Sequence[Upload],
    sampler: Strategy,
    way: cards.Way,
    codec: MaskCodec | None,
) -> None:
    """Sends images to the models."""
    from paligemma_lib.serving import Busy, Unavailable

    state = st.session_state
    state.problem = ""
    try:
        state.asked = asking.ask(models, images, sampler, way, state.visitor, codec)
    except Busy:
        state.problem = "Too many people are waiting just now. Try again in a minute."
    except Unavailable:  # the model has failed; the head of the page shows the reason
        pass


def _card(place: str, group: Sequence[cards.Result], bodies: Sequence[str]) -> None:
    """Draws an image and its captions: beside it, or below each other for two models."""
    with st.container(border=True, key=f"card {place}"):
        column, words = st.columns([2, 3] if len(bodies) == 1 else [1, 3])
        # What two models name would lie over each other: theirs is the plain image.
        shown = group[0].preview if len(group) == 1 else group[0].image.preview
        column.image(shown, width="stretch", alt=group[0].description)
        if len(bodies) == 1:
            words.html(bodies[0])
        else:
            words.html(f'<div class="beside">{"".join(bodies)}</div>')
