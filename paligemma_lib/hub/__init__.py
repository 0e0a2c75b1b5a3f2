"""Downloads checkpoints and tokenizers from where they are published, as complete local files.

path = fetch("google/paligemma/jax/paligemma-3b-pt-224")       # Kaggle
path = fetch("gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz")
path = fetch("checkpoints/my.npz")                             # a local file or folder
path = fetch("nano")                                           # the small model that is here
path = fetch_tokenizer()
"""

from paligemma_lib.hub.fetching import exported, fetch
from paligemma_lib.hub.kaggle import is_kaggle, kaggle_refusals
from paligemma_lib.hub.official_tokenizer import TOKENIZER_SHA256, fetch_tokenizer

__all__ = [
    "TOKENIZER_SHA256",
    "exported",
    "fetch",
    "fetch_tokenizer",
    "is_kaggle",
    "kaggle_refusals",
]
