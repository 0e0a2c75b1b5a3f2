"""Fine-tune PaliGemma to caption images: tf.data streaming and sharded, jitted JAX steps.

    import paligemma_lib as pg

    captioner = pg.load("google/paligemma/jax/paligemma-3b-mix-224")
    print(captioner.caption("dog.jpg"))

Names load when touched (PEP 562), so importing this costs neither TensorFlow nor JAX. The file
`__init__.pyi` lists them, for type checkers too.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
