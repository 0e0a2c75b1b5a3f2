"""Sources of images and captions, with one module for each form of data.

    source = open_source("captions.json")                 # the form is recognised by content
    source = open_source("dataset_coco.json", split="test", images="val2014")
    source = from_tfds("flickr8k_tfds", split="train[:1200]")
    len(source), source.read([17, 3])

Equal arguments make equal sources. Records hold encoded images. Errors name the record and its
file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
