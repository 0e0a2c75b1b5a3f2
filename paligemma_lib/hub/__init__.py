"""Downloads checkpoints and tokenizers from where they are published, as complete local files.

path = fetch("google/paligemma/jax/paligemma-3b-pt-224")       # Kaggle
path = fetch("google/paligemma-3b-pt-224@main")                # the Hugging Face Hub
path = fetch("gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz")
path = fetch("checkpoints/my.npz")                             # a local file or folder
path = fetch("nano")                                           # the small model that is here
path = fetch_tokenizer()
"""

from paligemma_lib.hub.fetching import NANO_KNOWS, exported, fetch
from paligemma_lib.hub.huggingface_models import fetch_adapter, is_hub_model
from paligemma_lib.hub.kaggle import is_kaggle, kaggle_refusals
from paligemma_lib.hub.official_tokenizer import TOKENIZER_SHA256, fetch_tokenizer
from paligemma_lib.hub.web_addresses import check_no_address

__all__ = [
    "NANO_KNOWS",
    "TOKENIZER_SHA256",
    "check_no_address",
    "exported",
    "fetch",
    "fetch_adapter",
    "fetch_tokenizer",
    "is_hub_model",
    "is_kaggle",
    "kaggle_refusals",
]
