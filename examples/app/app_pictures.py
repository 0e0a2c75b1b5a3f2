"""Which pictures are to be captioned: uploads that are pictures, and drawn samples.

pictures = choose()             # widgets, and messages about what is refused
"""

import io
import random

import cards
import streamlit as st
import uploads
from uploads import Picture, Refused

MAX_PICTURES = 12  # at a time


def choose() -> list[Picture]:
    """The part of the page where they are chosen."""
    st.html('<h2 class="section">Pictures</h2>')
    pictures, messages = _uploaded()
    # Containers keep what follows in its place while the page is drawn anew.
    with st.container(gap="xsmall"):
        for message in messages:
            st.html(message)
    with st.container(horizontal=True, gap="small", key="uploaded"):
        for picture in pictures:
            st.image(picture.preview, width="stretch", alt=picture.name)

    st.html('<h3 class="label">Or drawn samples</h3>')
    with st.container(horizontal=True, gap="small", key="samples"):
        for name, picture in drawn_samples().items():
            with st.container(width=104, gap="xxsmall"):
                st.image(picture.preview, alt=f"Drawn scene: {name}")
                if st.checkbox(name.capitalize(), key=f"sample {name}"):
                    pictures.append(picture)
    return pictures[:MAX_PICTURES]


@st.cache_resource(show_spinner=False)
def drawn_samples() -> dict[str, Picture]:
    """A drawn picture of each background."""
    from paligemma_lib import sample_data

    seed, found = 2026, {}
    for index in range(100):
        scene = sample_data.compose(seed, index)
        usual = (scene.width, scene.height) in sample_data.FORMATS and not scene.greyscale
        if usual and scene.background not in found and len(scene.groups) > 1:
            file = io.BytesIO()
            sample_data.draw(scene, random.Random(index)).save(
                file, "JPEG", quality=92, subsampling=0
            )
            found[scene.background] = uploads.check(f"{scene.background}.jpg", file.getvalue())
    return dict(sorted(found.items()))


def _uploaded() -> tuple[list[Picture], list[str]]:
    """Uploads that are pictures, and messages about the others."""
    files = st.file_uploader(
        f"Your pictures, up to {MAX_PICTURES} at a time; they are not kept",
        type=[suffix for kind in uploads.SUFFIXES.values() for suffix in kind],
        accept_multiple_files=True,
        key="uploads",
    )
    before = st.session_state.get("checked", {})
    checked: dict[str, Picture | Refused] = {}
    messages = []
    for file in files[:MAX_PICTURES]:
        found = before.get(file.file_id) or _check(file.name, file.getvalue())
        checked[file.file_id] = found
        if isinstance(found, Refused):
            messages.append(cards.message(str(found), uploads.one_line(file.name), problem=True))
        elif found.note:
            messages.append(cards.message(found.note, found.name))
    if len(files) > MAX_PICTURES:
        messages.append(
            cards.message(
                f"The first {MAX_PICTURES} of {len(files)} pictures are taken; the others can "
                "follow."
            )
        )
    st.session_state.checked = checked  # each file is decoded once, however often this runs
    return [each for each in checked.values() if isinstance(each, Picture)], messages


def _check(name: str, data: bytes) -> Picture | Refused:
    try:
        return uploads.check(name, data)
    except Refused as refused:
        return refused
