"""Embeds images and texts by SigLIP or CLIP, so that captions can be compared with images.

    embedder = load("google/siglip-base-patch16-224")
    embedder.images([PIL.Image.open("dog.jpg")]) @ embedder.texts(["a dog"]).T      # cosines

SigLIP runs on this library's own vision transformer, in JAX. CLIP, and SigLIP 2 with its other
tokenizer, run in Hugging Face transformers, which needs `pip install 'paligemma_lib[clip]'`.
"""

from paligemma_lib.embedding.embedder import Embedder, load
from paligemma_lib.embedding.image_scores import score_images

__all__ = ["Embedder", "load", "score_images"]
