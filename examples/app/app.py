"""Serves a web page that captions images; needs `pip install -e ".[app]"`.

    streamlit run examples/app/app.py
    streamlit run examples/app/app.py -- --checkpoint paligemma-3b-pt-224.f16.npz --dtype bfloat16
    streamlit run examples/app/app.py -- --checkpoint base=nano --checkpoint mine=runs/mine
    streamlit run examples/app/app.py -- --checkpoint nano --adapter birds --adapter dogs=runs/dogs
    streamlit run examples/app/app.py -- --checkpoint paligemma-3b-mix-224 --masks vae-oid.npz
    PALIGEMMA_CHECKPOINT=google/paligemma/jax/paligemma-3b-mix-224 streamlit run examples/app/app.py

Streamlit reruns this script for every click of every visitor. State is kept elsewhere: the models,
their programs and queues in `paligemma_lib.serving`, once per process; the images and captions of a
visitor in `st.session_state`, until the visit ends. Nothing is written to disk.

The parts of the page are `app_images`, `app_settings` and `app_captions`; `asking` asks the models,
`uploads` checks files, `cards` makes HTML. Settings of the server and the theme are in
`.streamlit/config.toml`.
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
from asking import Model

from paligemma_lib.cli.data_options import codec_in
from paligemma_lib.cli.named_paths import models_and_adapters

if TYPE_CHECKING:  # takes seconds to import, and the page should appear at once
    from paligemma_lib.regions import MaskCodec
    from paligemma_lib.serving import Engine

EMBEDDED = "nano"


def main() -> None:
    """Draws the page, from top to bottom."""
    st.set_page_config("PaliGemma captions", "🖼️", layout="wide")
    st.html(Path(__file__).with_name("app.css"))
    args = arguments()
    app_captions.begin()
    paths, adapters = named(args)
    engines = {
        name: start(path, args.tokenizer, args.dtype, adapters) for name, path in paths.items()
    }
    codec = codec_of(args.masks)
    models = {name: Model(engine) for name, engine in engines.items()}
    models |= {name: Model(engine, name) for name in adapters for engine in engines.values()}
    waiting = not all(can_write(each) or each.engine.problem for each in models.values())
    shown = st.fragment(masthead, run_every=2 if waiting else None)
    shown(models, EMBEDDED in paths.values(), waiting)

    controls, captions = st.columns([5, 7], gap="large")
    with controls, st.container(key="controls"):
        go = st.container(key="go")  # the button is drawn above what it depends on, to be in sight
        images = app_images.choose()
        with st.expander("Settings", expanded=True, key="settings"):
            chosen = app_settings.models(list(models))
            sampler, way = app_settings.choose()
        with go:
            asked = {name: models[name] for name in chosen}
            app_captions.ask_or_stop(asked, images, sampler, way, codec)
    with captions, st.container(key="captions"):
        app_captions.heading()
        poll = app_captions.POLL if st.session_state.asked else None
        st.fragment(app_captions.newest, run_every=poll)()
        app_captions.earlier()
    app_captions.copying()


def arguments() -> argparse.Namespace:
    """Parses the arguments after `--` on the command line."""
    parser = argparse.ArgumentParser(
        prog="streamlit run examples/app/app.py --", allow_abbrev=False
    )
    environment = os.environ.get
    parser.add_argument("--checkpoint", action="append", metavar="[NAME=]C")
    parser.add_argument("--adapter", action="append", metavar="[NAME=]A", default=[])
    parser.add_argument("--tokenizer", default=environment("PALIGEMMA_TOKENIZER"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--masks", metavar="NPZ")  # draws masks, and not their boxes alone
    try:
        args = parser.parse_args()
        args.checkpoint = args.checkpoint or [environment("PALIGEMMA_CHECKPOINT", EMBEDDED)]
        return args
    except SystemExit:  # argparse has printed the reason in the terminal
        told = "The command line is invalid; the terminal says why."
        st.html(cards.message(told, problem=True))
        st.stop()
        raise


def named(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the paths of checkpoints and of adapters by names; tells what is wrong with them."""
    try:
        return models_and_adapters(args.checkpoint, args.adapter)
    except ValueError as error:
        st.html(cards.message(str(error), problem=True))
        st.stop()
        raise


@st.cache_resource(show_spinner="Starting …")
def start(
    checkpoint: str, tokenizer: str | None, dtype: str | None, adapters: Mapping[str, str]
) -> Engine:
    """Starts a model of this process, which all visitors and all runs of the script share."""
    # Keeps TensorFlow from importing Keras, which nothing here needs. Where Keras is imported,
    # Streamlit clears its session after each run of this script: that collects garbage in all of
    # TensorFlow and JAX (0.3 s) and drops kernels.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import paligemma_lib as pg
    from paligemma_lib.serving import Engine

    load = functools.partial(pg.captioner.load, checkpoint, tokenizer, dtype, adapters)
    return Engine(
        load,
        prepare=app_settings.all_samplers(),
        max_new_tokens=max(app_settings.LENGTHS),
        adapters=list(adapters),
    )


def codec_of(path: str | None) -> MaskCodec | None:
    """Returns the codec of masks in a file, or None without one; tells what is wrong with it."""
    try:
        return load_codec(path)
    except (ValueError, OSError, ImportError) as error:
        st.html(cards.message(str(error), problem=True))
        st.stop()
        raise


@st.cache_resource(show_spinner=False)
def load_codec(path: str | None) -> MaskCodec | None:
    """Loads the codec of this process, which all visitors and all runs of the script share."""
    return codec_in(path)


def can_write(model: Model) -> bool:
    """Whether a caption with the default settings can be written without compiling first."""
    sampler = app_settings.sampler_of(app_settings.GREEDY)
    return model.engine.ready or model.engine.is_compiled(sampler, model.adapter)


def masthead(models: Mapping[str, Model], embedded: bool, waiting: bool) -> None:
    """Shows the names and the status of the models."""
    if waiting and all(can_write(each) or each.engine.problem for each in models.values()):
        st.rerun()  # reruns the whole page, which then stops polling
    told = [(name, *status(model)) for name, model in models.items()]
    st.html(cards.masthead(told))
    for model in models.values():
        if model.engine.problem and model.adapter is None:
            st.html(cards.message(model.engine.problem, problem=True))
    if embedded:
        st.html(
            cards.message(
                "The embedded model, nano, knows only drawn scenes, and its captions are labels, "
                "such as “balls red two”. For photographs, start this page with a PaliGemma "
                "model:",
                command="streamlit run examples/app/app.py -- --checkpoint …",
            )
        )


def status(model: Model) -> tuple[str, str]:
    """Returns a light and a line on the status of a model."""
    if model.engine.problem:
        return "failed", "is not available"
    captioner = model.engine.captioner
    if captioner is None:
        return "busy", "is being loaded …"
    told = "an adapter: "
    if model.adapter is None:
        count = number_of_parameters(captioner.params) / 1e6
        told = f"{count:,.1f} million parameters, {captioner.config.vision.image_size} px: "
    return ("", f"{told}ready") if can_write(model) else ("busy", f"{told}being compiled …")


def number_of_parameters(params: Any) -> int:
    """Returns the number of parameters in a tree of arrays."""
    if isinstance(params, Mapping):
        return sum(map(number_of_parameters, params.values()))
    return int(getattr(params, "size", 0))


if __name__ == "__main__":
    main()
