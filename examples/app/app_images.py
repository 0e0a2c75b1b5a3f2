"""Lets the visitor choose the images to caption: uploads and drawn samples.

images = choose()             # widgets, and messages about what is refused
"""

import io
import random
from collections.abc import Sequence

import cards
import streamlit as st
import uploads
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile
from uploads import Refused, Upload

MAX_IMAGES = 12  # at a time
MAX_BYTES = 200 << 20  # of the uploads of a visit, which Streamlit keeps in memory


def choose() -> list[Upload]:
    """Draws this part of the page and returns the chosen images."""
    st.html('<h2 class="section">Images</h2>')
    images, messages = _uploaded()
    # Containers keep the elements below in their places while the page is redrawn.
    with st.container(gap="xsmall"):
        for message in messages:
            st.html(message)
    with st.container(horizontal=True, gap="small", key="uploaded"):
        for upload in images:
            st.image(upload.preview, width="stretch", alt=upload.name)

    with (
        st.expander("Or drawn samples", expanded=True, key="drawn"),
        st.container(horizontal=True, gap="small", key="samples"),
    ):
        for name, upload in drawn_samples().items():
            with st.container(width=104, gap="xxsmall"):
                st.image(upload.preview, alt=f"Drawn scene: {name}")
                if st.checkbox(name.capitalize(), key=f"sample {name}"):
                    images.append(upload)
    return images[:MAX_IMAGES]


@st.cache_resource(show_spinner=False)
def drawn_samples() -> dict[str, Upload]:
    """Returns one drawn image for each background."""
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


def _uploaded() -> tuple[list[Upload], list[str]]:
    """Returns the accepted uploads, and messages about refused, misnamed and surplus files."""
    state = st.session_state
    state.setdefault("dropped", 0)  # how often all uploads were dropped
    files = st.file_uploader(
        f"Your images, up to {MAX_IMAGES} at a time; they are not kept",
        type=[suffix for kind in uploads.SUFFIXES.values() for suffix in kind],
        accept_multiple_files=True,
        key=f"uploads {state.dropped}",  # another key is another widget, without files
    )
    size = sum(file.size for file in files)
    if size > MAX_BYTES:
        _drop(files)
        state.dropped += 1
        state.too_many = f"{len(files)} images with {size / 2**20:,.0f} MB"
        st.rerun()
    before = state.get("checked", {})
    checked: dict[str, Upload | Refused] = {}
    messages = []
    if files:
        state.too_many = ""
    elif told := state.get("too_many"):
        messages.append(
            cards.message(
                f"At most {MAX_BYTES >> 20} MB are accepted at a time: choose fewer.",
                f"{told} were dropped",
                problem=True,
            )
        )
    for file in files[:MAX_IMAGES]:
        found = before.get(file.file_id) or _check(file.name, file.getvalue())
        checked[file.file_id] = found
        if isinstance(found, Refused):
            messages.append(cards.message(str(found), uploads.one_line(file.name), problem=True))
        elif found.note:
            messages.append(cards.message(found.note, found.name))
    if len(files) > MAX_IMAGES:
        messages.append(
            cards.message(
                f"The first {MAX_IMAGES} of {len(files)} images are used; add the others later."
            )
        )
    state.checked = checked  # a cache: reruns do not decode a file again
    return [each for each in checked.values() if isinstance(each, Upload)], messages


def _drop(files: Sequence[UploadedFile]) -> None:
    """Frees the memory of uploads, which Streamlit itself does only when the visit ends."""
    context = get_script_run_ctx()
    if context and isinstance(manager := context.uploaded_file_mgr, MemoryUploadedFileManager):
        for file in files:
            manager.remove_file(context.session_id, file.file_id)


def _check(name: str, data: bytes) -> Upload | Refused:
    try:
        return uploads.check(name, data)
    except Refused as refused:
        return refused
