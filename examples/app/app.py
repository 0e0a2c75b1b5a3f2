"""Serves a web page that captions images; needs `pip install -e ".[app]"`.

    streamlit run examples/app/app.py
    streamlit run examples/app/app.py -- --checkpoint paligemma-3b-pt-224.f16.npz --dtype bfloat16
    PALIGEMMA_CHECKPOINT=google/paligemma/jax/paligemma-3b-mix-224 streamlit run examples/app/app.py

Streamlit reruns this script for every click of every visitor. State is kept elsewhere: the model,
its compiled programs and the queue in `paligemma_lib.serving`, once per process; the images and
captions of a visitor in `st.session_state`, until the visit ends. Nothing is written to disk.

The parts of the page are `app_images`, `app_settings` and `app_captions`; `uploads` checks files,
`cards` makes HTML. Settings of the server and the theme are in `.streamlit/config.toml`.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import app_captions
import app_images
import app_settings
import cards
import streamlit as st

if TYPE_CHECKING:  # takes seconds to import, and the page should appear at once
    from paligemma_lib.serving import Service

EMBEDDED = "nano"


def main() -> None:
    """Draws the page, from top to bottom."""
    st.set_page_config("PaliGemma captions", "🖼️", layout="wide")
    st.html(Path(__file__).with_name("app.css"))
    args = arguments()
    app_captions.begin()
    service = start(args.checkpoint, args.tokenizer, args.dtype)
    waiting = not (can_write(service) or service.problem)
    st.fragment(masthead, run_every=2 if waiting else None)(service, args.checkpoint, waiting)

    controls, captions = st.columns([5, 7], gap="large")
    with controls:
        images = app_images.choose()
        sampler, way = app_settings.choose()
        app_captions.ask_or_stop(service, images, sampler, way)
    with captions:
        app_captions.heading(Path(args.checkpoint).name)
        poll = app_captions.POLL if st.session_state.asked else None
        st.fragment(app_captions.newest, run_every=poll)()
        app_captions.earlier()


def arguments() -> argparse.Namespace:
    """Parses the arguments after `--` on the command line."""
    parser = argparse.ArgumentParser(
        prog="streamlit run examples/app/app.py --", allow_abbrev=False
    )
    environment = os.environ.get
    parser.add_argument("--checkpoint", default=environment("PALIGEMMA_CHECKPOINT", EMBEDDED))
    parser.add_argument("--tokenizer", default=environment("PALIGEMMA_TOKENIZER"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    try:
        return parser.parse_args()
    except SystemExit:  # argparse has printed the reason in the terminal
        told = "The command line is invalid; the terminal says why."
        st.html(cards.message(told, problem=True))
        st.stop()
        raise


@st.cache_resource(show_spinner="Starting …")
def start(checkpoint: str, tokenizer: str | None, dtype: str | None) -> Service:
    """Starts the model of this process, which all visitors and all runs of the script share."""
    # Keeps TensorFlow from importing Keras, which nothing here needs. Where Keras is imported,
    # Streamlit clears its session after each run of this script: that collects garbage in all of
    # TensorFlow and JAX (0.3 s) and drops kernels.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import paligemma_lib as pg
    from paligemma_lib.serving import Service

    load = functools.partial(pg.captioner.load, checkpoint, tokenizer, dtype)
    return Service(
        load, prepare=app_settings.all_samplers(), max_new_tokens=max(app_settings.LENGTHS)
    )


def can_write(service: Service) -> bool:
    """Whether a caption with the default settings can be written without compiling first."""
    return service.ready or service.compiled(app_settings.sampler_of(app_settings.GREEDY))


def masthead(service: Service, checkpoint: str, waiting: bool) -> None:
    """Shows the name and the status of the model."""
    if waiting and (can_write(service) or service.problem):
        st.rerun()  # reruns the whole page, which then stops polling
    if service.problem:
        light, status = "failed", "is not available"
    elif service.captioner is None:
        light, status = "busy", "is being loaded …"
    else:
        count = number_of_parameters(service.captioner.params) / 1e6
        size = service.captioner.config.vision.image_size
        light, status = ("busy", "being compiled …") if waiting else ("", "ready")
        status = f"{count:,.1f} million parameters, {size} px: {status}"
    st.html(cards.masthead(Path(checkpoint).name, light, status))
    if service.problem:
        st.html(cards.message(service.problem, problem=True))
    elif checkpoint == EMBEDDED:
        st.html(
            cards.message(
                "The embedded model knows only drawn scenes, and its captions are labels, such as "
                "“two red : balls”. For photographs, start this page with a PaliGemma model:",
                command="streamlit run examples/app/app.py -- --checkpoint …",
            )
        )


def number_of_parameters(params: Mapping[str, Any]) -> int:
    """Returns the number of parameters in a nested dict of arrays."""
    return sum(
        number_of_parameters(each) if isinstance(each, Mapping) else each.size
        for each in params.values()
    )


if __name__ == "__main__":
    main()
