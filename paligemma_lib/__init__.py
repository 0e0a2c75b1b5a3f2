"""Fine-tune PaliGemma to caption images: tf.data streaming and sharded, jitted JAX steps.

    import paligemma_lib as pg

    tokenizer = pg.tokenizer.load("paligemma_tokenizer.model")

Submodules load when touched (PEP 562), so importing this costs neither TensorFlow nor JAX.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "batch",
    "captioner",
    "checkpoint",
    "data",
    "decode",
    "evaluation",
    "hub",
    "metrics",
    "model",
    "planning",
    "report",
    "run",
    "runtime",
    "sample_data",
    "serving",
    "sharding",
    "testing",
    "tokenizer",
    "train",
    "trainable",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
