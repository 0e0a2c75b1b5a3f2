"""Loads a model and captions an image, a list of images, a folder or a source.

captioner = pg.load("nano")
print(captioner.caption("dog.jpg"))
"""

from paligemma_lib.captioner.loading import Captioner, load
from paligemma_lib.captioner.model_files import tokenizer_of
from paligemma_lib.captioner.streaming import Captioned, Skipped

__all__ = ["Captioned", "Captioner", "Skipped", "load", "tokenizer_of"]
