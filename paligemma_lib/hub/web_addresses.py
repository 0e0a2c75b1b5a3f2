"""Says what to give in place of an address of the web, which is not downloaded.

check_no_address("https://huggingface.co/google/paligemma-3b-pt-224")        # ValueError
"""

from __future__ import annotations

import re

from paligemma_lib.runtime.visible_text import visible

_WEB = re.compile(r"(https?|hf|ftp)://", re.IGNORECASE)
_HUB = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)|hf:/)/([\w.-]+/[\w.-]+)", re.I)
_BUCKET = re.compile(r"https?://storage\.(?:googleapis|cloud\.google)\.com/([^/?#]+/[^?#]+)", re.I)
_KAGGLE = re.compile(r"https?://(?:www\.)?kaggle\.com/models/", re.IGNORECASE)


def check_no_address(name: str) -> None:
    """Raises ValueError if the name of a checkpoint is an address of the web."""
    if not _WEB.match(name):
        return
    # The query may hold a signature, and what stands before "@" a password.
    shown = visible(re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", name)[0]))[:200]
    if match := _HUB.match(name):
        cure = f"it is a model of the Hugging Face Hub: give {match[1]}"
    elif match := _BUCKET.match(name):
        cure = f"give gs://{visible(match[1])[:200]}"
    elif _KAGGLE.match(name):
        cure = "give the model's handle, such as google/paligemma/jax/paligemma-3b-pt-224"
    else:
        cure = "download it, for instance with `curl -LO ADDRESS`, and give the file or folder"
    raise ValueError(f"{shown} is an address, expected a local file or folder: {cure}")
