"""Images and captions to batches: tf.data, without JAX.

    source = from_tfds("flickr8k_tfds", split="train[:1200]")
    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0)

The names load when touched (PEP 562), so that `paligemma_lib.data.text` and `.order`, which are
NumPy alone, do not cost TensorFlow.
"""

import lazy_loader

from paligemma_lib.deprecation import former_names

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = former_names(__name__, _load, from_pictures="from_image_files")
