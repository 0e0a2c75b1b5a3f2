"""A web page that captions pictures: `pip install -e ".[app]" && streamlit run examples/app.py`.

    streamlit run examples/app.py -- --checkpoint paligemma-3b-pt-224.f16.npz --dtype bfloat16
    PALIGEMMA_CHECKPOINT=google/paligemma/jax/paligemma-3b-mix-224 streamlit run examples/app.py

This script runs anew for every click of every visitor. What lasts is elsewhere: the model, its
compiled programs and the queue in `paligemma_lib.serving`, once for the process; a visitor's
pictures and captions in `st.session_state`, until the visit ends. Nothing is written to disk by
it. Settings of the server and the theme are in `.streamlit/config.toml` beside this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cards
import streamlit as st
import uploads
from uploads import Picture, Refused

if TYPE_CHECKING:  # these take seconds to import, and the page should be there at once
    from paligemma_lib.decode.loop import Sampler
    from paligemma_lib.serving import Progress, Request, Service

EMBEDDED = "nano"
MAX_PICTURES = 12  # at a time
MAX_HISTORY = 50  # captions of a visit
LENGTHS = range(8, 65, 8)  # tokens
BEAMS = (2, 4, 8)
VARIETY = {"low": (0.6, 0.9), "medium": (1.0, 0.95), "high": (1.3, 1.0)}  # temperature, top p
GREEDY, SAMPLING, BEAM = "Greedy", "Sampling", "Beam search"
POLL = 0.25  # seconds between looks at a caption in the making


@dataclasses.dataclass(frozen=True)
class Asked:
    """What this visitor is waiting for."""

    request: Request
    pictures: tuple[Picture, ...]
    way: cards.Way


def main() -> None:
    """The page, from top to bottom."""
    st.set_page_config("PaliGemma captions", "🖼️", layout="wide")
    st.html(Path(__file__).with_name("app.css"))
    state = st.session_state
    state.setdefault("asked", None)  # Asked | None
    state.setdefault("results", [])  # list[cards.Result], newest first
    state.setdefault("batch", 0)  # how many of them came together last
    state.setdefault("checked", {})  # id of an upload -> Picture | Refused
    state.setdefault("problem", "")

    args = arguments()
    service = start(args.checkpoint, args.tokenizer, args.dtype)
    waiting = not (service.ready or service.problem)
    st.fragment(masthead, run_every=1 if waiting else None)(service, args.checkpoint, waiting)

    controls, captions = st.columns([5, 7], gap="large")
    with controls:
        pictures = choose_pictures()
        sampler, way = choose_way(service)
        ask_or_stop(service, pictures, sampler, way)
    with captions:
        heading(Path(args.checkpoint).name)
        st.fragment(newest, run_every=POLL if state.asked else None)()
        for result in state.results[0 if state.asked else state.batch :]:
            card(result, cards.answer(result))


def arguments() -> argparse.Namespace:
    """What stands after `--` on the command line."""
    parser = argparse.ArgumentParser(prog="streamlit run examples/app.py --", allow_abbrev=False)
    environment = os.environ.get
    parser.add_argument("--checkpoint", default=environment("PALIGEMMA_CHECKPOINT", EMBEDDED))
    parser.add_argument("--tokenizer", default=environment("PALIGEMMA_TOKENIZER"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    try:
        return parser.parse_args()
    except SystemExit:  # it has said why, in the terminal
        told = "The command line was not understood; the terminal says why."
        st.html(cards.message(told, problem=True))
        st.stop()
        raise


@st.cache_resource(show_spinner="Starting …")
def start(checkpoint: str, tokenizer: str | None, dtype: str | None) -> Service:
    """The model of this process, which all visitors and all runs of this script share."""
    import paligemma_lib as pg
    from paligemma_lib.serving import Service

    first_choices = [sampler_of(GREEDY, 4, "medium"), sampler_of(BEAM, 4, "medium")]
    first_choices.append(sampler_of(SAMPLING, 4, "medium"))
    load = functools.partial(pg.captioner.load, checkpoint, tokenizer, dtype)
    return Service(load, prepare=first_choices, max_new_tokens=max(LENGTHS))


@st.cache_resource(show_spinner=False)
def drawn_samples() -> dict[str, Picture]:
    """A drawn picture of each background."""
    import sample_data
    from drawing import draw

    seed, found = 2026, {}
    for index in range(100):
        scene = sample_data.compose(seed, index)
        usual = (scene.width, scene.height) in sample_data.FORMATS and not scene.greyscale
        if usual and scene.background not in found and len(scene.groups) > 1:
            file = io.BytesIO()
            draw(scene, random.Random(index)).save(file, "JPEG", quality=92, subsampling=0)
            found[scene.background] = uploads.check(f"{scene.background}.jpg", file.getvalue())
    return dict(sorted(found.items()))


def sampler_of(words: str, beams: int, variety: str) -> Sampler:
    """One of a few, since the model is compiled for each."""
    from paligemma_lib.decode import Beam, Greedy, Sample

    if words == BEAM:
        return Beam(beams)
    if words == SAMPLING:
        temperature, top_p = VARIETY[variety]
        return Sample(temperature, top_p=top_p)
    return Greedy()


def masthead(service: Service, checkpoint: str, waiting: bool) -> None:
    """Which model answers, and whether it can."""
    if waiting and (service.ready or service.problem):
        st.rerun()  # the whole page, which then looks no more
    if service.problem:
        light, status = "failed", "is not available"
    elif service.captioner is None:
        light, status = "busy", "is being loaded …"
    else:
        count = number_of_parameters(service.captioner.params) / 1e6
        size = service.captioner.config.vision.image_size
        light, status = ("", "ready") if service.ready else ("busy", "being compiled …")
        status = f"{count:,.1f} million parameters, {size} px: {status}"
    st.html(cards.masthead(Path(checkpoint).name, light, status))
    if service.problem:
        st.html(cards.message(service.problem, problem=True))
    elif checkpoint == EMBEDDED:
        st.html(
            cards.message(
                "The embedded model knows drawn scenes and nothing else, and speaks in labels, "
                "such as “two red : balls”. For photographs, start this page with a PaliGemma: "
                "streamlit run examples/app.py -- --checkpoint …"
            )
        )


def number_of_parameters(params: Mapping[str, Any]) -> int:
    """Of a nested dict of arrays."""
    return sum(
        number_of_parameters(each) if isinstance(each, Mapping) else each.size
        for each in params.values()
    )


def choose_pictures() -> list[Picture]:
    """Uploads that are pictures, and drawn samples."""
    st.html('<h2 class="section">Pictures</h2>')
    suffixes = [suffix for kind in uploads.SUFFIXES.values() for suffix in kind]
    files = st.file_uploader(
        f"Your pictures, up to {MAX_PICTURES} at a time; they are not kept",
        type=suffixes,
        accept_multiple_files=True,
        key="uploads",
    )
    checked, messages = {}, []
    for file in files[:MAX_PICTURES]:
        found = st.session_state.checked.get(file.file_id) or check(file.name, file.getvalue())
        checked[file.file_id] = found
        if isinstance(found, Refused):
            messages.append(cards.message(str(found), uploads.one_line(file.name), problem=True))
        elif found.note:
            messages.append(cards.message(found.note, found.name))
    if len(files) > MAX_PICTURES:
        told = (
            f"The first {MAX_PICTURES} of {len(files)} pictures are taken; the others can follow."
        )
        messages.append(cards.message(told))
    st.session_state.checked = checked
    pictures = [each for each in checked.values() if isinstance(each, Picture)]
    # Containers keep what follows in its place while the page is drawn anew.
    with st.container(gap="xsmall"):
        for message in messages:
            st.html(message)
    with st.container(horizontal=True, gap="small"):
        for picture in pictures:
            st.image(picture.preview, width=96, alt=picture.name)

    st.html('<h3 class="label">Or drawn samples</h3>')
    with st.container(horizontal=True, gap="small", key="samples"):
        for name, picture in drawn_samples().items():
            with st.container(width=104, gap="xxsmall"):
                st.image(picture.preview, alt=f"Drawn scene: {name}")
                if st.checkbox(name.capitalize(), key=f"sample {name}"):
                    pictures.append(picture)
    return pictures[:MAX_PICTURES]


def check(name: str, data: bytes) -> Picture | Refused:
    """The picture, or why it is none."""
    try:
        return uploads.check(name, data)
    except Refused as refused:
        return refused


def choose_way(service: Service) -> tuple[Sampler, cards.Way]:
    """How captions shall be written."""
    st.html('<h2 class="section">Settings</h2>')
    prompt = st.text_input("Prompt", "caption en", max_chars=200, key="prompt")
    words = st.radio(
        "How words are chosen",
        (GREEDY, SAMPLING, BEAM),
        horizontal=True,
        key="words",
        help="Greedy takes the likeliest word each time, sampling draws words at random, and beam "
        "search follows several captions at once to find the likeliest ones.",
    )
    beams, variety = 4, "medium"
    told = "greedy"
    if words == BEAM:
        beams = st.select_slider("Beams", BEAMS, beams, key="beams")
        told = f"beam search, {beams} beams"
    elif words == SAMPLING:
        variety = st.select_slider("Variety", tuple(VARIETY), variety, key="variety")
        told = "sampling, temperature {}, top p {}".format(*VARIETY[variety])
    length = st.select_slider("Longest caption, in tokens", LENGTHS, max(LENGTHS), key="length")
    sampler = sampler_of(words, beams, variety)
    if service.ready and not service.compiled(sampler):
        st.caption("The first caption of this kind waits until the model is compiled for it.")
    return sampler, cards.Way(prompt.strip(), told, length, random.randrange(2**31))


def ask_or_stop(
    service: Service, pictures: Sequence[Picture], sampler: Sampler, way: cards.Way
) -> None:
    """The button."""
    if asked := st.session_state.asked:
        st.button("Stop", on_click=asked.request.cancel, width="stretch", key="stop")
        return
    number = len(pictures)
    label = f"Caption {number} pictures" if number > 1 else "Caption the picture"
    # No callback: it would get what was chosen when the button was drawn, not what is chosen now.
    if st.button(
        label if number else "Choose a picture first",
        type="primary",
        disabled=not number or bool(service.problem),
        width="stretch",
        key="ask",
    ):
        ask(service, tuple(pictures), sampler, way)
        st.rerun()
    if st.session_state.problem:
        st.html(cards.message(st.session_state.problem, problem=True))


def ask(service: Service, pictures: tuple[Picture, ...], sampler: Sampler, way: cards.Way) -> None:
    """Hands pictures over to the model."""
    state = st.session_state
    state.problem = ""
    try:
        request = service.ask(
            [picture.encoded for picture in pictures],
            prompt=way.prompt,
            sampler=sampler,
            max_new_tokens=way.length,
            seed=way.seed,
        )
    except RuntimeError:  # busy, or there is no model
        state.problem = "Too many people are waiting just now. Try again in a minute."
        return
    state.asked = Asked(request, pictures, way)


def newest() -> None:
    """What is being written for this visitor, or was written last: it stays where it is."""
    state = st.session_state
    bar = st.empty()
    asked: Asked | None = state.asked
    if asked is None:
        for result in state.results[: state.batch]:
            card(result, cards.answer(result))
        return
    progress = asked.request.progress()
    results = [
        cards.Result(picture, asked.way, answer.caption, answer.problem, answer.seconds)
        for picture, answer in zip(asked.pictures, progress.answers, strict=True)
    ]
    if progress.over:
        kept = [
            dataclasses.replace(each, picture=dataclasses.replace(each.picture, encoded=b""))
            for each in results
        ]
        state.results = (kept + state.results)[:MAX_HISTORY]
        state.batch = len(kept)
        state.asked = None
        st.rerun()
    done = sum(answer.over for answer in progress.answers)
    bar.progress(done / len(results), stage_of(progress, done))
    for result, given in zip(results[: done + 1], progress.answers, strict=False):
        name = result.picture.name
        card(result, cards.answer(result) if given.over else cards.writing(name, given.text))


def stage_of(progress: Progress, done: int) -> str:
    """For people."""
    number = f"Picture {done + 1} of {len(progress.answers)}"
    if progress.stage == "loading":
        return f"{number}: the model is being loaded"
    if progress.stage == "compiling":
        return f"{number}: the model is being compiled for these settings, once"
    if progress.stage == "waiting" and progress.ahead:
        others = "other picture comes" if progress.ahead == 1 else "other pictures come"
        return f"{number}: {progress.ahead} {others} first"
    return number


def heading(model: str) -> None:
    """Of the captions, with what can be done with all of them; or why there are none."""
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


def card(result: cards.Result, body: str) -> None:
    """A picture with what is said of it."""
    with st.container(border=True):
        picture, words = st.columns([2, 3])
        picture.image(result.picture.preview, width="stretch", alt=result.description)
        words.html(body)


if __name__ == "__main__":
    main()
