"""Reads images and captions and makes batches of them, with tf.data and without JAX.

    source = from_tfds("flickr8k_tfds", split="train[:1200]")
    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0)

Each name is imported on first access (PEP 562). So importing `paligemma_lib.data.text` or `.order`,
which need only NumPy, does not import TensorFlow.
"""

import lazy_loader

from paligemma_lib.deprecation import former_names

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = former_names(__name__, _load, from_pictures="from_image_files")
