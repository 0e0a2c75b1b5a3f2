"""Fine-tune PaliGemma to caption images: tf.data streaming and sharded, jitted JAX steps.

    import paligemma_lib as pg

    captioner = pg.load("google/paligemma/jax/paligemma-3b-mix-224")
    print(captioner.caption("dog.jpg"))

Submodules load when touched (PEP 562), so importing this costs neither TensorFlow nor JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees
    from paligemma_lib import batch as batch
    from paligemma_lib import captioner as captioner
    from paligemma_lib import checkpoint as checkpoint
    from paligemma_lib import data as data
    from paligemma_lib import decode as decode
    from paligemma_lib import evaluation as evaluation
    from paligemma_lib import hub as hub
    from paligemma_lib import metrics as metrics
    from paligemma_lib import model as model
    from paligemma_lib import planning as planning
    from paligemma_lib import report as report
    from paligemma_lib import run as run
    from paligemma_lib import runtime as runtime
    from paligemma_lib import sample_data as sample_data
    from paligemma_lib import serving as serving
    from paligemma_lib import sharding as sharding
    from paligemma_lib import testing as testing
    from paligemma_lib import tokenizer as tokenizer
    from paligemma_lib import train as train
    from paligemma_lib import trainable as trainable
    from paligemma_lib.captioner import Captioner as Captioner
    from paligemma_lib.captioner import load as load

__version__ = "0.1.0"

_MODULES = (
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
)
_FROM_CAPTIONER = ("Captioner", "load")

__all__ = ["__version__", *_FROM_CAPTIONER, *_MODULES]

if not TYPE_CHECKING:  # or every name would be of type Any

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in _FROM_CAPTIONER:
            return getattr(importlib.import_module(f"{__name__}.captioner"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
