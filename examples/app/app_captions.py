"""Draws the button, captions while they are written, and the history of this visitor.

    ask_or_stop(service, images, sampler, way)
    heading(model)
    newest()                        # in a fragment that runs every POLL seconds while `asked`
    earlier()

`st.session_state` holds `asked` (the pending request), `results` (newest first), `batch` (how many
of them the last request gave) and `problem` (a message).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cards
import streamlit as st
from uploads import Upload

if TYPE_CHECKING:  # these take seconds to import, and the page should appear at once
    from paligemma_lib.decode.programs import Strategy
    from paligemma_lib.serving import Progress, Request, Service

MAX_HISTORY = 50  # captions of a visit that stay
POLL = 0.5  # seconds between updates of a caption that is being written


@dataclasses.dataclass(frozen=True)
class Asked:
    """The pending request of this visitor, its images, and its settings."""

    request: Request
    images: tuple[Upload, ...]
    way: cards.Way


def begin() -> None:
    """Initializes the session state at the start of a visit."""
    state = st.session_state
    state.setdefault("asked", None)  # Asked | None
    state.setdefault("results", [])  # list[cards.Result]
    state.setdefault("batch", 0)
    state.setdefault("problem", "")


def ask_or_stop(
    service: Service, images: Sequence[Upload], sampler: Strategy, way: cards.Way
) -> None:
    """Draws the button, which starts a request, or stops the pending one."""
    if asked := st.session_state.asked:
        st.button("Stop", on_click=asked.request.cancel, width="stretch", key="stop")
        return
    number = len(images)
    label = f"Caption {number} images" if number > 1 else "Caption the image"
    # No callback: its arguments would be the images and settings from when the button was drawn,
    # not the present ones.
    if st.button(
        label if number else "Choose an image first",
        type="primary",
        disabled=not number or bool(service.problem),
        width="stretch",
        key="ask",
    ):
        _ask(service, tuple(images), sampler, way)
        st.rerun()
    if st.session_state.problem:
        st.html(cards.message(st.session_state.problem, problem=True))


def heading(model: str) -> None:
    """Draws the heading and the buttons for all captions, or a hint if there are none."""
    state = st.session_state
    if not state.results and not state.asked:
        st.html(cards.nothing_yet())
        return
    with st.container(horizontal=True, vertical_alignment="center", key="heading"):
        st.html('<h2 class="section">Captions of this visit</h2>')
        if state.results:
            st.download_button(
                "CSV",
                cards.table(state.results),
                "captions.csv",
                "text/csv",
                icon=":material/download:",
                on_click="ignore",
                help="All captions of this visit as a table",
            )
            st.download_button(
                "JSON",
                cards.document(state.results, model),
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
    asked: Asked | None = state.asked
    if asked is None:
        for number, result in enumerate(state.results[: state.batch]):
            _card(f"new {number}", result, cards.answer(result))
        return
    progress = asked.request.progress()
    results = [
        cards.Result(upload, asked.way, answer.caption, answer.problem, answer.seconds)
        for upload, answer in zip(asked.images, progress.answers, strict=True)
    ]
    if progress.over:
        # The encoded images are dropped: the history shows only previews.
        kept = [
            dataclasses.replace(each, image=dataclasses.replace(each.image, encoded=b""))
            for each in results
        ]
        state.results = (kept + state.results)[:MAX_HISTORY]
        state.batch = len(kept)
        state.asked = None
        st.rerun()
    done = sum(answer.over for answer in progress.answers)
    bar.progress(done / len(results), stage_of(progress, done))
    for number, (result, given) in enumerate(zip(results, progress.answers, strict=True)):
        if number <= done:
            written = cards.writing(result.image.name, given.text)
            _card(f"new {number}", result, cards.answer(result) if given.over else written)


def earlier() -> None:
    """Draws the captions of earlier requests."""
    state = st.session_state
    for number, result in enumerate(state.results[0 if state.asked else state.batch :]):
        _card(f"old {number}", result, cards.answer(result))


def stage_of(progress: Progress, done: int) -> str:
    """Returns a line for the visitor on the progress of the request."""
    number = f"Image {done + 1} of {len(progress.answers)}"
    if progress.stage == "loading":
        return f"{number}: the model is being loaded"
    if progress.stage == "compiling":
        return f"{number}: the model is being compiled for these settings, once"
    if progress.stage == "waiting" and progress.ahead:
        others = "other image comes" if progress.ahead == 1 else "other images come"
        return f"{number}: {progress.ahead} {others} first"
    return number


def _ask(service: Service, images: tuple[Upload, ...], sampler: Strategy, way: cards.Way) -> None:
    """Sends images to the model."""
    from paligemma_lib.serving import Busy

    state = st.session_state
    state.problem = ""
    try:
        request = service.ask(
            [upload.encoded for upload in images],
            prompt=way.prompt,
            sampler=sampler,
            max_new_tokens=way.length,
            seed=way.seed,
        )
    except Busy:
        state.problem = "Too many people are waiting just now. Try again in a minute."
    except RuntimeError:  # the model has failed; the head of the page shows the reason
        pass
    else:
        state.asked = Asked(request, images, way)


def _card(place: str, result: cards.Result, body: str) -> None:
    """Draws an image and its caption side by side."""
    with st.container(border=True, key=f"card {place}"):
        column, words = st.columns([2, 3])
        column.image(result.image.preview, width="stretch", alt=result.description)
        words.html(body)
